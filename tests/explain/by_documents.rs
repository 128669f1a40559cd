//! Calls that nobody made, judged by documents.

use std::{fs, path::Path};

use mesh_lite_test_support::loopback_mesh::WEB_ONLY;

use super::{Said, explain};

const WORKLOADS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web, namespace: shop}
spec: {serviceAccount: web, addresses: [10.0.0.1, 10.9.0.1]}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api, namespace: shop}
spec: {serviceAccount: api, addresses: [10.0.0.2], labels: {app: api}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: old, namespace: shop}
spec: {serviceAccount: old, addresses: [10.0.0.3], meshed: false}
---
";

/// A directory with the workloads and a policy.
pub(super) fn directory(file: &str, policy: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("workloads.yaml"), WORKLOADS).unwrap();
    fs::write(directory.path().join(file), policy).unwrap();
    directory
}

pub(super) fn ask(directory: &Path, more: &[&str]) -> Said {
    let directory = directory.display().to_string();
    let to = [
        "--to",
        "shop/api",
        "--port",
        "80",
        "--config-dir",
        &directory,
    ];
    explain(&[more, &to].concat())
}

#[test]
fn evictions_dry_runs_and_denials_are_told_of_in_their_order() {
    let policy = format!(
        "{WEB_ONLY}---\napiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: trial, namespace: shop}}\n\
         spec: {{action: DENY, dryRun: true, rules: [{{to: [{{operation: {{ports: [80]}}}}]}}]}}\n"
    );
    let directory = directory("policy.yaml", &policy);
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "ALLOWED",
        "policy.yaml:14), rules[0]: would DENY this call if it were enforced",
    ]);
    let eviction = "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: out, namespace: mesh-lite-system}\n\
                    spec: {spiffeId: spiffe://cluster.local/ns/shop/sa/web}\n";
    fs::write(directory.path().join("evictions.yaml"), eviction).unwrap();
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "DENIED",
        "the peer is evicted by mesh-lite-system/out (",
        "evictions.yaml:1)",
        "not asked",
    ]);
    assert_eq!(said.code, Some(1));
    assert!(!said.out.contains("matches, and decides"), "{}", said.out);
}

#[test]
fn documents_lie_in_several_directories_and_files() {
    let whole = directory("policy.yaml", WEB_ONLY);
    let apart = tempfile::tempdir().unwrap();
    fs::rename(
        whole.path().join("policy.yaml"),
        apart.path().join("policy.yaml"),
    )
    .unwrap();
    let policy = apart.path().join("policy.yaml").display().to_string();
    ask(
        whole.path(),
        &["--from", "shop/web", "--config-dir", &policy],
    )
    .has(&["ALLOWED"]);
    let said = ask(whole.path(), &["--from", "shop/web"]);
    assert_eq!(
        said.code,
        Some(1),
        "the policy lies elsewhere: {}",
        said.out
    );
}

#[test]
fn an_answer_that_hangs_on_the_address_is_not_guessed() {
    let policy = WEB_ONLY.replace("{principals:", "{ipBlocks: [\"10.0.0.0/16\"], principals:");
    let directory = directory("policy.yaml", &policy);
    ask(directory.path(), &["--from", "shop/web"])
        .refuses(&["several addresses", "--from-address"]);
    ask(directory.path(), &["--from", "plaintext"]).refuses(&["--from-address"]);
    let said = ask(
        directory.path(),
        &["--from", "shop/web", "--from-address", "10.0.0.1"],
    );
    assert_eq!(said.code, Some(0), "{}", said.out);
    let said = ask(
        directory.path(),
        &["--from", "shop/web", "--from-address", "10.9.0.1"],
    );
    said.has(&["was        10.9.0.1", "should be  10.0.0.0/16"]);
}

#[test]
fn what_can_t_be_answered_is_neither_yes_nor_no() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let at = directory.path().display().to_string();
    ask(directory.path(), &["--from", "shop/wbe"]).refuses(&["no Workload document", "shop/web"]);
    let to = |to: &str, port: &str| {
        explain(&[
            "--from",
            "shop/web",
            "--to",
            to,
            "--port",
            port,
            "--config-dir",
            &at,
        ])
    };
    to("shop/apl", "80").refuses(&["no Workload document", "shop/api"]);
    to("shop/old", "80").refuses(&["outside the mesh"]);
    to("shop/api", "15006").refuses(&["one of the sidecar's own"]);
    for wrong in ["0", "http", "65536", ""] {
        to("shop/api", wrong).refuses(&["a number from 1 to 65535"]);
    }
    explain(&[
        "--from",
        "shop/web",
        "--to",
        "shop/api",
        "--port",
        "80",
        "--config-dir",
        "/nowhere",
    ])
    .refuses(&["/nowhere"]);
    for usage in [
        &["--from", "shop/web"][..],
        &[],
        &["0123456789abcdef", "--from", "shop/web"],
    ] {
        assert_eq!(explain(usage).code, Some(2), "{usage:?}");
    }
}

#[test]
fn a_document_that_can_t_be_loaded_denies_in_the_answer_too() {
    let directory = directory("policy.yaml", &WEB_ONLY.replace("principals", "princpals"));
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "DENIED",
        "can't be loaded",
        "1 error in them",
        "next        repair that document: mesh-lite policy lint",
    ]);
    assert_eq!(said.code, Some(1));
}

#[test]
fn a_file_goes_by_the_same_name_as_with_every_other_tool() {
    let one = directory("policy.yaml", WEB_ONLY);
    let policy = one.path().join("policy.yaml").display().to_string();
    let place = format!("policy      shop/api-from-web ({policy}:1)");
    ask(one.path(), &["--from", "cluster.local/ns/shop/sa/x"]).has(&[&place]);
    let more = tempfile::tempdir().unwrap();
    let more = more.path().display().to_string();
    ask(
        one.path(),
        &[
            "--from",
            "cluster.local/ns/shop/sa/x",
            "--config-dir",
            &more,
        ],
    )
    .has(&[&place]);
}

#[test]
fn an_answer_that_hangs_on_the_shipped_default_asks_whether_it_is_right() {
    let other = WEB_ONLY.replace("app: api", "app: other");
    let directory = directory("policy.yaml", &other);
    let question = "is --shipped right?";
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&["DENIED", question, "--shipped permissive"]);
    for shipped in ["strict", "permissive"] {
        let said = ask(
            directory.path(),
            &["--from", "shop/web", "--shipped", shipped],
        );
        assert!(!said.out.contains(question), "{}", said.out);
        assert_eq!(said.code, Some(i32::from(shipped == "strict")));
    }
    // a document decides
    fs::write(directory.path().join("policy.yaml"), WEB_ONLY).unwrap();
    for from in ["shop/web", "cluster.local/ns/shop/sa/guest"] {
        let said = ask(directory.path(), &["--from", from]);
        assert!(!said.out.contains(question), "{}", said.out);
    }
    // plaintext never comes to a document that only names others
    ask(directory.path(), &["--from", "shop/old"]).has(&["DENIED"]);
    let json = ask(
        directory.path(),
        &["--from", "shop/web", "--output", "json"],
    )
    .json();
    assert_eq!(json[0]["rests_on_shipped"], false);
}

#[test]
fn of_several_values_it_is_said_that_there_are_several_and_a_denial_is_nobody_s_advice() {
    let several = WEB_ONLY.replace(
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/shop/sa/web\", \"cluster.local/ns/shop/sa/b\", \"cluster.local/ns/pay/sa/c",
    );
    assert_ne!(several, WEB_ONLY);
    let deny = "---\napiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: no, namespace: shop}\n\
                spec: {action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}\n";
    let directory = directory("policy.yaml", &format!("{several}{deny}"));
    let said = ask(
        directory.path(),
        &["--from", "cluster.local/ns/shop/sa/wbe"],
    );
    said.has(&[
        "wants cluster.local/ns/shop/sa/web (or 2 others), not cluster.local/ns/shop/sa/wbe",
        "should be  cluster.local/ns/shop/sa/web (or 2 others)\n",
        "was cluster.local/ns/shop/sa/wbe, would match evil",
    ]);
    assert!(!said.out.contains("should be evil"), "{}", said.out);
}

#[test]
fn the_port_of_a_service_is_told_from_the_one_that_is_dialled() {
    let service = "apiVersion: mesh-lite.io/v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
                   spec: {addresses: [10.96.0.5], selector: {app: api}, ports: [{port: 80, targetPort: 8080}]}\n---\n";
    let directory = directory("policy.yaml", &format!("{service}{WEB_ONLY}"));
    let words = "80 is the port of the service shop/api, which dials this workload at 8080: did you \
                 mean --port 8080?";
    ask(directory.path(), &["--from", "shop/web"]).has(&["but         ", words]);
    let at = directory.path().display().to_string();
    let to = ["--to", "shop/api", "--port", "8080", "--config-dir", &at];
    let said = explain(&[&["--from", "shop/web"][..], &to].concat());
    said.has(&["ALLOWED"]);
    assert!(!said.out.contains("did you mean"), "{}", said.out);
}
