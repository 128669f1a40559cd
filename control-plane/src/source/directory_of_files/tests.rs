use tempfile::TempDir;

use super::*;
use crate::{outbound_rules::OutboundRules, policy_index::ShippedDefaults};

struct Fixture {
    temporary: TempDir,
    directory: DirectoryOfFiles,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    conditions: Conditions,
}

fn fixture() -> Fixture {
    let temporary = TempDir::new().unwrap();
    let trust_domain = TrustDomain::new("mesh.test").unwrap();
    let workloads = watch::Sender::new(Arc::new(WorkloadIndex::default()));
    let seen = workloads.subscribe();
    let policies = PolicyIndex::new(trust_domain.clone(), "mesh", ShippedDefaults::STRICT);
    let conditions = Conditions::new();
    let published = Published {
        workloads,
        policies: watch::Sender::new(policies),
        conditions: conditions.clone(),
    };
    let claimable = ClaimableAddresses::new("mesh", &OutboundRules::default());
    let directory = DirectoryOfFiles::new(
        temporary.path().to_owned(),
        trust_domain,
        Dialect::default(),
        claimable,
        published,
    );
    Fixture {
        temporary,
        directory,
        workloads: seen,
        conditions,
    }
}

impl Fixture {
    fn write(&self, file: &str, text: &str) {
        fs::write(self.temporary.path().join(file), text).unwrap();
    }

    fn read(&mut self) -> Vec<String> {
        self.directory.read().unwrap();
        self.workloads
            .borrow()
            .workloads()
            .map(|workload| workload.name.to_string())
            .collect()
    }

    fn problems(&self) -> String {
        self.conditions.of(Part::Documents).join("\n")
    }
}

fn workload(name: &str, address: &str) -> String {
    format!(
        "---\napiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{serviceAccount: {name}, addresses: [{address}]}}\n"
    )
}

#[test]
fn reads_yaml_files_and_nothing_else() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.write("b.yml", &workload("b", "10.0.0.2"));
    fixture.write("c.yaml.bak", &workload("c", "10.0.0.3"));
    fixture.write(".d.yaml", &workload("d", "10.0.0.4"));
    fixture.write("README", "not a document");
    assert_eq!(fixture.read(), ["shop/a", "shop/b"]);
    assert_eq!(fixture.problems(), "");
}

#[test]
fn publishes_nothing_when_no_content_changed() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.read();
    fixture.workloads.mark_unchanged();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.read();
    assert!(!fixture.workloads.has_changed().unwrap());
}

#[test]
fn forgets_a_workload_whose_document_or_file_is_removed() {
    let mut fixture = fixture();
    fixture.write(
        "a.yaml",
        &(workload("a", "10.0.0.1") + &workload("b", "10.0.0.2")),
    );
    fixture.write("c.yaml", &workload("c", "10.0.0.3"));
    fixture.read();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fs::remove_file(fixture.temporary.path().join("c.yaml")).unwrap();
    assert_eq!(fixture.read(), ["shop/a"]);
}

#[test]
fn follows_a_document_that_moves_to_another_file() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.read();
    fs::remove_file(fixture.temporary.path().join("a.yaml")).unwrap();
    fixture.write("b.yaml", &workload("a", "10.0.0.9"));
    assert_eq!(fixture.read(), ["shop/a"]);
    assert_eq!(fixture.problems(), "");
}

#[test]
fn keeps_what_an_unreadable_file_said_before() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.write("b.yaml", &workload("b", "10.0.0.2"));
    fixture.read();
    fixture.write("a.yaml", "\0 not YAML }{");
    fs::remove_file(fixture.temporary.path().join("b.yaml")).unwrap();
    assert_eq!(fixture.read(), ["shop/a"]);
    assert!(
        fixture.problems().contains("a.yaml"),
        "{}",
        fixture.problems()
    );
}

#[test]
fn refuses_a_document_that_is_there_twice_and_names_both_places() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("x", "10.0.0.1"));
    fixture.write(
        "b.yaml",
        &(workload("y", "10.0.0.2") + &workload("x", "10.0.0.3")),
    );
    assert_eq!(fixture.read(), ["shop/y"]);
    let problems = fixture.problems();
    assert!(problems.contains("a.yaml:2, b.yaml:7"), "{problems}");
}

#[test]
fn takes_what_is_no_file_for_a_document_that_can_not_be_read() {
    let mut fixture = fixture();
    fs::create_dir(fixture.temporary.path().join("directory.yaml")).unwrap();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    assert_eq!(fixture.read(), ["shop/a"]);
    assert!(
        fixture.problems().contains("directory.yaml"),
        "{}",
        fixture.problems()
    );
    assert!(
        fixture.problems().contains("it is not a file"),
        "{}",
        fixture.problems()
    );
}

#[test]
fn refuses_a_directory_that_is_gone_and_keeps_what_it_said() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    fixture.read();
    fs::remove_dir_all(fixture.temporary.path()).unwrap();
    let error = fixture.directory.read().unwrap_err();
    assert!(error.to_string().contains("can't list"), "{error}");
    assert_eq!(fixture.workloads.borrow().workloads().count(), 1);
}

#[test]
fn a_directory_that_comes_back_empty_has_no_documents_any_more() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &workload("a", "10.0.0.1"));
    assert_eq!(fixture.read(), ["shop/a"]);
    let directory = fixture.temporary.path().to_owned();
    fs::remove_dir_all(&directory).unwrap();
    fixture.directory.read().unwrap_err();
    assert_eq!(fixture.workloads.borrow().workloads().count(), 1);
    fs::create_dir(&directory).unwrap();
    assert_eq!(fixture.read(), Vec::<String>::new());
}

/// What a policy's file says of its neighbours is told by the policies; workloads go by it too.
#[test]
fn a_workload_that_is_removed_beside_an_unreadable_document_is_gone() {
    let mut fixture = fixture();
    let broken = "---\napiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {nmae: x, namespace: shop}\nspec: {}\n";
    let both = [workload("a", "10.0.0.1"), workload("b", "10.0.0.2")].concat();
    fixture.write("a.yaml", &format!("{both}{broken}"));
    assert_eq!(fixture.read(), ["shop/a", "shop/b"]);
    let one = workload("b", "10.0.0.2");
    fixture.write("a.yaml", &format!("{one}{broken}"));
    assert_eq!(fixture.read(), ["shop/b"]);
    // of which nobody knows what it is, it may be b
    fixture.write("a.yaml", "---\nkind: [\n");
    assert_eq!(fixture.read(), ["shop/b"]);
}

#[test]
fn an_edit_of_policies_publishes_no_workloads() {
    let mut fixture = fixture();
    fixture.write("w.yaml", &workload("a", "10.0.0.1"));
    fixture.read();
    fixture.workloads.mark_unchanged();
    let policy = "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                  metadata: {name: p, namespace: shop}\nspec: {rules: [{}]}\n";
    fixture.write("p.yaml", policy);
    assert_eq!(fixture.read(), ["shop/a"]);
    assert!(!fixture.workloads.has_changed().unwrap());
    let policies = fixture.directory.published.policies.borrow();
    assert_eq!(policies.workloads().workloads().count(), 1);
}

#[test]
fn refuses_a_file_that_is_too_long_without_reading_it_all() {
    let mut fixture = fixture();
    fixture.write("a.yaml", &"# x\n".repeat(MAX_FILE));
    assert_eq!(fixture.read(), Vec::<String>::new());
    assert!(
        fixture.problems().contains("bytes"),
        "{}",
        fixture.problems()
    );
}

/// A namespace that is denied everything, as a workload in it sees it.
fn verdict_in(fixture: &Fixture, namespace: &str) -> String {
    use mesh_lite_proto::authorization::{Caller, Facts, decide};
    let policies = fixture.directory.published.policies.borrow();
    let selected = crate::policy_index::Selected {
        namespace,
        labels: &BTreeMap::new(),
    };
    let snapshot = policies.snapshot_for(selected, std::time::SystemTime::UNIX_EPOCH);
    let web = "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap();
    let facts = Facts {
        caller: Caller::Authenticated(&web),
        source: "10.0.0.1".parse().unwrap(),
        port: 80,
    };
    format!("{:?}", decide(&snapshot, &facts).step)
}

#[test]
fn istios_documents_are_refused_until_they_are_asked_for_and_then_its_root_is_the_mesh() {
    let document = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: a, namespace: istio-system}\nspec: {rules: [{}]}\n";
    let mut refusing = fixture();
    refusing.write("a.yaml", document);
    refusing.read();
    let problems = refusing.problems();
    for way in [
        "write apiVersion: mesh-lite.io/v1",
        "--istio-root-namespace",
    ] {
        assert!(problems.contains(way), "{problems}");
    }
    assert_eq!(verdict_in(&refusing, "istio-system"), "BrokenDocument");

    let mut taking = fixture();
    taking.directory.dialect = Dialect::with_istio("istio-system");
    taking.write("a.yaml", document);
    // of the same namespace, but not Istio's: it stays in its namespace
    let ours = document
        .replace("security.istio.io", "mesh-lite.io")
        .replace("name: a", "name: b")
        .replace("rules: [{}]", "action: DENY, rules: [{}]");
    taking.write("b.yaml", &ours);
    taking.read();
    assert_eq!(taking.problems(), "");
    assert_eq!(verdict_in(&taking, "shop"), "AllowRule");
    assert_eq!(verdict_in(&taking, "istio-system"), "DenyRule");
}

#[test]
fn a_broken_document_in_istios_root_namespace_denies_everywhere() {
    for broken in [
        "kind: AuthorizationPolicy\nmetadata: {name: a, namespace: istio-system}\nspec: {rules: 7}\n",
        "kind: AuthorizationPolicy\nmetadata: {name: B, namespace: istio-system}\nspec: {}\n",
        "kind: AuthorizationPolicie\nmetadata: {name: a, namespace: istio-system}\nspec: {}\n",
        "kind: RequestAuthentication\nmetadata: {name: a, namespace: istio-system}\nspec: {}\n",
        "kind: Eviction\nmetadata: {name: a, namespace: istio-system}\nspec: {serial: \"01\"}\n",
        "kind: AuthorizationPolicy\nmetadata: {name: a, namespace: istio-system}\nspec: {}\n\
         ---\napiVersion: mesh-lite.io/v1\n\
         kind: AuthorizationPolicy\nmetadata: {name: a, namespace: istio-system}\nspec: {}\n",
    ] {
        let mut fixture = fixture();
        fixture.directory.dialect = Dialect::with_istio("istio-system");
        fixture.write(
            "a.yaml",
            &format!("apiVersion: security.istio.io/v1\n{broken}"),
        );
        fixture.read();
        assert_eq!(verdict_in(&fixture, "shop"), "BrokenDocument", "{broken}");
    }
}
