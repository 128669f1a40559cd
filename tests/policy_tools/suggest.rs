//! `policy suggest`: with what it writes as the only policy, the same traffic passes, and nothing
//! else does.

use std::fs;

use mesh_lite_test_support::needs_namespaces;
use mesh_lite_test_support::process::finish;

use crate::recorded_mesh::{Call, Caller, PLAINTEXT_ON_9091, RecordedMesh};

/// Lax, as it is before anybody has looked: the namespace may do anything but for guest's 9090.
const LAX: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: lax, namespace: shop}
spec:
  action: ALLOW
  rules:
  - from: [{source: {namespaces: [shop]}}]
  - from: [{source: {ipBlocks: [10.77.0.1/32]}}]
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: no-guest, namespace: shop}
spec:
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/guest]}}]
    to: [{operation: {ports: [\"9090\"]}}]
";
const PASSED: [Call; 3] = [
    (Caller::Web, 8080),
    (Caller::Web, 9090),
    (Caller::Guest, 8080),
];
const DENIED: Call = (Caller::Guest, 9090);
const PLAINTEXT: Call = (Caller::Legacy, 9091);
/// Nobody did these, though all of them could have been done.
const NEVER: [Call; 2] = [(Caller::Web, 9091), (Caller::Guest, 9091)];

#[test]
fn a_suggested_policy_lets_the_same_traffic_through_and_nothing_else() {
    needs_namespaces!("policy_tools::suggest");
    let lax = format!("{LAX}{PLAINTEXT_ON_9091}");
    let mut mesh = RecordedMesh::start(&lax, true);
    for _ in 0..3 {
        assert_eq!(mesh.outcomes(&PASSED), [true; 3]);
    }
    assert!(!mesh.reaches(DENIED));
    assert!(mesh.reaches(PLAINTEXT));
    mesh.wait_open(0);

    let page = mesh.saved_page('b');
    let (suggested, said) = suggest(&mesh, &page);
    assert!(said.starts_with("Replayed under this policy: 9 connections let through again, 1 denied again; 1 would be denied"), "{said}");
    assert!(
        said.contains("1 connection in plaintext, which no identity names"),
        "{said}"
    );
    for words in [
        "cluster.local/ns/shop/sa/web  # 6 connections, last ",
        "  # - from: [{source: {ipBlocks: [\"10.77.0.1/32\"]}}]  # 1 connection",
    ] {
        assert!(suggested.contains(words), "{suggested}");
    }
    // the log suggests the same but for its name and times
    let (by_log, _) = suggest(&mesh, &mesh.access_log('b'));
    assert_eq!(without_comments(&suggested), without_comments(&by_log));
    replay_foretells_that_plaintext_is_over(&mesh, &suggested, &page);

    mesh.apply(&suggested);
    assert_eq!(mesh.outcomes(&PASSED), [true; 3]);
    assert!(!mesh.reaches(DENIED), "what was denied stays denied");
    assert!(!mesh.reaches(PLAINTEXT), "as foretold");
    assert_eq!(mesh.outcomes(&NEVER), [false; 2]);
    // what the tests of the suggestion say holds in force, not only when it was loaded
    let tested = fs::read_to_string(mesh.mesh.config_dir().join("policy.yaml")).unwrap();
    assert!(
        tested.contains("sa/guest, sourceIp: \"10.77.0.12\", port: 9090, expect: DENY}"),
        "{tested}"
    );
}

/// What it writes, and what it says of it.
fn suggest(mesh: &RecordedMesh, records: &str) -> (String, String) {
    let config = mesh.mesh.config_dir().display().to_string();
    let arguments = ["--config-dir", &config, "--records", records];
    let output = finish(mesh.tool(&["policy", "suggest"]).args(arguments));
    let suggested = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}{suggested}");
    (suggested, said)
}

/// As the suggestion says of itself.
fn replay_foretells_that_plaintext_is_over(mesh: &RecordedMesh, suggested: &str, page: &str) {
    let config = mesh.edited("suggested", suggested).display().to_string();
    let (replayed, code) = mesh.told(&[
        "policy",
        "replay",
        "--config-dir",
        &config,
        "--records",
        page,
    ]);
    assert_eq!(
        (replayed["flipped"].as_u64(), code),
        (Some(1), 1),
        "{replayed}"
    );
    assert_eq!(
        replayed["flips"][0]["sources"][0], "10.77.0.1",
        "{replayed}"
    );
}

fn without_comments(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .map(|line| line.split("  #").next().unwrap_or(line));
    lines.filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn without_documents_no_policy_without_selector_is_written() {
    needs_namespaces!("policy_tools::suggest");
    let mesh = RecordedMesh::start(LAX, false);
    assert!(mesh.reaches((Caller::Web, 8080)));
    let output = finish(&mut mesh.tool(&["policy", "suggest"]));
    let suggested = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        suggested.contains("# Left out: no document tells its labels"),
        "{suggested}"
    );
    assert!(
        suggested.lines().all(|line| line.starts_with('#')),
        "{suggested}"
    );
}
