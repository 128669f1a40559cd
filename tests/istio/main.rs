//! Istio's own documents, as far as they are about connections, mean here what Istio's
//! documentation says of them. Each file is one case: documents as they are given to Istio, and in
//! the comments above them
//!
//! ```text
//! # page: where the documentation says so          # says: what it says
//! # refused: the class of the refusal, if the documents can't be loaded
//! # differs: why, where the verdict here is not Istio's
//! # VERDICT [(Istio VERDICT)] namespace{label=value,...} :port from principal|plaintext [at address]
//! ```
//! Each case is run twice: with nothing but `apiVersion` changed, and unchanged as
//! `--istio-root-namespace istio-system` takes it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path, process::Command, time::SystemTime};

use mesh_lite_control_plane::policy_index::{PolicyIndex, Selected, ShippedDefaults};
use mesh_lite_proto::{
    authorization::{Caller, Facts, Verdict, decide},
    document::Dialect,
    identity::WorkloadId,
};

mod real_mesh;

const ROOT_NAMESPACE: &str = "istio-system";

struct Case {
    name: String,
    text: String,
}

/// One line of a case: who calls what, and what is to come of it.
#[derive(Debug)]
struct Expected {
    verdict: Verdict,
    /// What Istio says.
    istios: Verdict,
    namespace: String,
    labels: BTreeMap<String, String>,
    port: u16,
    caller: Option<WorkloadId>,
    source: IpAddr,
}

fn all() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/istio");
    let mut cases: Vec<Case> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| Case {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: fs::read_to_string(&path).unwrap(),
        })
        .collect();
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    cases
}

impl Case {
    fn note(&self, key: &str) -> Option<&str> {
        let prefix = format!("# {key}: ");
        self.text
            .lines()
            .find_map(|line| line.strip_prefix(&prefix))
    }

    fn expected(&self) -> Vec<Expected> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("# "));
        lines
            .filter(|line| line.starts_with("ALLOW ") || line.starts_with("DENY "))
            .map(Expected::read)
            .collect()
    }

    /// Their policies, with only `apiVersion` changed, or not even that.
    fn index(&self, unchanged: bool) -> PolicyIndex {
        let (text, dialect, mesh_namespace) = if unchanged {
            let dialect = Dialect::with_istio(ROOT_NAMESPACE);
            (self.text.clone(), dialect, "mesh-lite-system")
        } else {
            let ours = self
                .text
                .replace("security.istio.io/v1beta1", "mesh-lite.io/v1")
                .replace("security.istio.io/v1", "mesh-lite.io/v1");
            (ours, Dialect::default(), ROOT_NAMESPACE)
        };
        // Istio ships PERMISSIVE
        let shipped = ShippedDefaults::PERMISSIVE;
        let trust_domain = "cluster.local".parse().unwrap();
        let mut index = PolicyIndex::new(trust_domain, mesh_namespace, shipped);
        index.replace_all([&dialect.split(&self.name, text.as_bytes())]);
        index
    }
}

impl Expected {
    fn read(line: &str) -> Self {
        let verdict = |word: &str| match word {
            "ALLOW" => Verdict::Allow,
            "DENY" => Verdict::Deny,
            other => panic!("{other} in {line}"),
        };
        let (ours, rest) = line.split_once(' ').unwrap();
        let (istios, rest) = match rest.strip_prefix("(Istio ") {
            Some(rest) => rest.split_once(") ").unwrap(),
            None => (ours, rest),
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let (workload, port, caller, source) = match words.as_slice() {
            [workload, port, "from", caller] => (*workload, *port, *caller, "192.0.2.1"),
            [workload, port, "from", caller, "at", source] => (*workload, *port, *caller, *source),
            _ => panic!("{line}"),
        };
        let (namespace, labels) = workload.split_once('{').unwrap_or((workload, "}"));
        let labels = labels.strip_suffix('}').unwrap().split(',');
        let labels = labels.filter_map(|label| label.split_once('='));
        Self {
            verdict: verdict(ours),
            istios: verdict(istios),
            namespace: namespace.to_owned(),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            port: port.strip_prefix(':').unwrap().parse().unwrap(),
            caller: (caller != "plaintext").then(|| format!("spiffe://{caller}").parse().unwrap()),
            source: source.parse().unwrap(),
        }
    }

    fn verdict_by(&self, index: &PolicyIndex) -> (Verdict, String) {
        let workload = Selected {
            namespace: &self.namespace,
            labels: &self.labels,
        };
        let snapshot = index.snapshot_for(workload, SystemTime::UNIX_EPOCH);
        let caller = self.caller.as_ref();
        let decision = decide(
            &snapshot,
            &Facts {
                caller: caller.map_or(Caller::Plaintext, Caller::Authenticated),
                source: self.source,
                port: self.port,
            },
        );
        (decision.verdict, decision.reason())
    }
}

#[test]
fn each_case_is_decided_as_istios_documentation_says() {
    let mut wrong = Vec::new();
    let mut decided = 0;
    for case in all() {
        for unchanged in [true, false] {
            if !unchanged && case.note("only") == Some("unchanged") {
                continue;
            }
            let index = case.index(unchanged);
            for expected in case.expected() {
                let (verdict, reason) = expected.verdict_by(&index);
                decided += 1;
                if verdict != expected.verdict {
                    let name = &case.name;
                    wrong.push(format!(
                        "{name}, unchanged: {unchanged}: {verdict}, {reason}\n{expected:?}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{decided} verdicts");
}

#[test]
fn the_documents_load_unless_their_case_says_how_they_are_refused() {
    for case in all() {
        for unchanged in [true, false] {
            if !unchanged && case.note("only") == Some("unchanged") {
                continue;
            }
            let problems: Vec<_> = case.index(unchanged).problems().collect();
            let errors = problems.iter().flat_map(|problem| problem.errors.iter());
            let classes: Vec<&str> = errors.map(|error| error.class.as_str()).collect();
            match case.note("refused") {
                None => assert_eq!(classes, [""; 0], "{}: {problems:?}", case.name),
                Some(class) => assert!(classes.contains(&class), "{}: {classes:?}", case.name),
            }
        }
    }
}

#[test]
fn without_being_asked_for_they_are_refused_with_both_ways_out_and_deny() {
    for case in all() {
        let mut index = PolicyIndex::new(
            "cluster.local".parse().unwrap(),
            "mesh-lite-system",
            ShippedDefaults::PERMISSIVE,
        );
        let documents = Dialect::default().split(&case.name, case.text.as_bytes());
        index.replace_all([&documents]);
        for document in &documents.readable {
            let errors = document.spec_node().unwrap_err().to_string();
            for way in [
                "write apiVersion: mesh-lite.io/v1",
                "--istio-root-namespace",
            ] {
                assert!(errors.contains(way), "{}: {errors}", case.name);
            }
            let workload = Selected {
                namespace: &document.key.namespace,
                labels: &BTreeMap::new(),
            };
            let snapshot = index.snapshot_for(workload, SystemTime::UNIX_EPOCH);
            assert!(!snapshot.broken.is_empty(), "{} does not deny", case.name);
        }
    }
}

#[test]
fn the_program_takes_them_by_its_setting() {
    let lint = |case: &Case, settings: &[&str]| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/istio")
            .join(format!("{}.yaml", case.name));
        let output = Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
            .args(["policy", "lint", file.to_str().unwrap()])
            .args(settings)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for case in all() {
        let printed = lint(&case, &["--istio-root-namespace", ROOT_NAMESPACE]);
        match case.note("refused") {
            None => assert!(!printed.contains("error["), "{}: {printed}", case.name),
            Some(class) => {
                let error = format!("error[{class}]");
                assert!(printed.contains(&error), "{}: {printed}", case.name);
            }
        }
        let printed = lint(&case, &[]);
        assert!(
            printed.contains("error[istio-api-version]"),
            "{}: {printed}",
            case.name
        );
    }
}

#[test]
fn each_case_says_where_it_is_from_and_why_it_differs_and_never_lets_more_through() {
    for case in all() {
        let name = &case.name;
        let page = case.note("page").unwrap_or_default();
        assert!(page.starts_with("https://istio.io/latest/docs/"), "{name}");
        assert!(case.note("says").is_some(), "{name}");
        let expected = case.expected();
        assert!(!expected.is_empty(), "{name}");
        let mut differing = expected.iter().filter(|one| one.verdict != one.istios);
        assert!(
            differing.clone().all(|one| one.verdict == Verdict::Deny),
            "{name} lets more through than Istio"
        );
        assert_eq!(
            differing.next().is_some(),
            case.note("differs").is_some(),
            "{name}"
        );
    }
}
