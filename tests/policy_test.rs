//! `mesh-lite policy test`: the tests that policies carry, as their author sees them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    process::{Command, Output},
};

use mesh_lite_test_support::process::finish;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

const TESTED: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web], notIpBlocks: [10.9.0.0/16]}
  tests:
  - {from: cluster.local/ns/shop/sa/web, port: 8080, expect: ALLOW}
  - {from: cluster.local/ns/shop/sa/web, sourceIp: 10.9.0.1, port: 8080, expect: DENY}
  - {from: plaintext, port: 8080, expect: DENY}
";

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Of one file, `p.yaml`.
fn test(document: &str, arguments: &[&str]) -> Said {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("p.yaml"), document).unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .current_dir(directory.path())
        .args(["policy", "test", "p.yaml"])
        .args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = finish(&mut command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        code: status.code(),
        out: text(stdout),
        err: text(stderr),
    }
}

#[test]
fn tests_that_pass_are_told_one_by_one() {
    let said = test(TESTED, &[]);
    let expected = "\
AuthorizationPolicy shop/api-from-web (p.yaml:1)
  ok      tests[0]  cluster.local/ns/shop/sa/web -> port 8080: ALLOW
  ok      tests[1]  cluster.local/ns/shop/sa/web from 10.9.0.1 -> port 8080: DENY
  ok      tests[2]  plaintext -> port 8080: DENY

3 tests: 3 passed, 0 failed
";
    assert_eq!((said.code, &*said.out), (Some(0), expected));
}

#[test]
fn a_test_that_fails_says_what_was_expected_what_came_and_why() {
    let said = test(
        &TESTED.replace(
            "plaintext, port: 8080, expect: DENY",
            "plaintext, port: 8080, expect: ALLOW",
        ),
        &[],
    );
    assert_eq!(said.code, Some(1));
    for part in [
        "  ok      tests[0]",
        "  FAILED  tests[2]  plaintext -> port 8080: expected ALLOW, got DENY\n",
        "          p.yaml:12:5\n",
        "no ALLOW rule matches; nearest is shop/api-from-web (p.yaml:7): rules[0].from[0].source.principals",
        "a control plane does not load it while a test fails",
        "3 tests: 2 passed, 1 failed\n",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in:\n{}", said.out);
    }
}

#[test]
fn a_document_that_can_t_be_loaded_fails_the_run_though_the_tests_of_others_pass() {
    let broken = TESTED
        .replace("api-from-web", "broken")
        .replace("principals", "princpals");
    let said = test(&format!("{TESTED}---\n{broken}"), &[]);
    assert_eq!(said.code, Some(1));
    for part in [
        "error[unknown-field]",
        "princpals",
        "3 tests: 3 passed, 0 failed; 1 error in documents: what can't be read is not tested\n",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in:\n{}", said.out);
    }
    // a test that fails is counted as what it is
    let failing = TESTED.replace("8080, expect: ALLOW", "8080, expect: DENY");
    let said = test(&format!("{failing}---\n{broken}"), &[]);
    let words = "1 failed; 1 error in documents: what";
    assert!(said.out.contains(words), "{}", said.out);
}

#[test]
fn a_test_that_can_t_be_read_is_no_test_that_passed_and_hides_none_that_fails() {
    let unreadable = TESTED.replace("8080, expect: ALLOW", "8080, expect: MAYBE");
    let said = test(&unreadable, &[]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    let words = "2 tests: 2 passed, 0 failed; 1 error in documents";
    assert!(
        said.out.contains("MAYBE") && said.out.contains(words),
        "{}",
        said.out
    );
    let failing = unreadable.replace(
        "plaintext, port: 8080, expect: DENY",
        "plaintext, port: 8080, expect: ALLOW",
    );
    let said = test(&failing, &[]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    for part in [
        "MAYBE",
        "plaintext -> port 8080: expected ALLOW, got DENY\n",
        "2 tests: 1 passed, 1 failed; 1 error in documents",
    ] {
        assert!(said.out.contains(part), "{part:?} is not in:\n{}", said.out);
    }
}

#[test]
fn documents_without_tests_say_so() {
    let without: String = TESTED
        .lines()
        .take(8)
        .map(|line| format!("{line}\n"))
        .collect();
    let said = test(&without, &[]);
    assert_eq!(
        (said.code, &*said.out),
        (Some(0), "no policy carries tests\n")
    );
}

#[test]
fn a_program_gets_every_test_as_json() {
    let failing = TESTED.replace(
        "plaintext, port: 8080, expect: DENY",
        "plaintext, port: 8080, expect: ALLOW",
    );
    let said = test(&failing, &["--output", "json"]);
    assert_eq!(said.code, Some(1));
    let json: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&json["passed"], &json["failed"]), (&2.into(), &1.into()));
    let third = &json["tests"][2];
    assert_eq!(
        (&third["policy"], &third["line"], &third["passed"]),
        (&"shop/api-from-web".into(), &12.into(), &false.into())
    );
    assert_eq!(
        (&third["expected"], &third["got"]),
        (&"ALLOW".into(), &"DENY".into())
    );
}

#[test]
fn a_path_that_can_t_be_read_is_no_run_at_all() {
    let said = test(TESTED, &["nowhere.yaml"]);
    assert_eq!((said.code, &*said.out), (Some(2), ""), "{}", said.err);
    assert!(said.err.contains("nowhere.yaml"), "{}", said.err);
}
