//! `policy replay`: the flips that it names are those that happen.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use mesh_lite_test_support::needs_namespaces;
use serde_json::Value;

use crate::recorded_mesh::{Call, Caller, PLAINTEXT_ON_9091, RecordedMesh, allowing, calls_of};

const CALLS: [Call; 8] = [
    (Caller::Web, 8080),
    (Caller::Web, 9090),
    (Caller::Web, 9091),
    (Caller::Guest, 8080),
    (Caller::Guest, 9090),
    (Caller::Guest, 9091),
    (Caller::Legacy, 8080),
    (Caller::Legacy, 9091),
];

fn before() -> String {
    allowing(&[
        ("web", 8080),
        ("web", 9090),
        ("guest", 8080),
        ("10.77.0.1/32", 9091),
    ]) + PLAINTEXT_ON_9091
}

/// guest changes its port, web gets one more, and plaintext is over.
fn after() -> String {
    allowing(&[
        ("web", 8080),
        ("web", 9090),
        ("web", 9091),
        ("guest", 9090),
        ("10.77.0.1/32", 9091),
    ])
}

/// What does not depend on where it was recorded: the log's clock is read a moment later.
fn timeless(told: &Value) -> Value {
    let mut told = told.clone();
    let fields = told.as_object_mut().unwrap();
    fields.remove("recordings");
    for flip in fields["flips"].as_array_mut().unwrap() {
        flip.as_object_mut()
            .unwrap()
            .retain(|name, _| name != "first" && name != "last");
    }
    told
}

#[test]
fn what_replay_foretells_happens_and_page_and_log_foretell_the_same() {
    needs_namespaces!("policy_tools::replay");
    let mut mesh = RecordedMesh::start(&before(), true);
    let served = mesh.outcomes(&CALLS);
    let calls = [true, true, false, true, false, false, false, true];
    assert_eq!(served, calls, "{CALLS:?}");
    mesh.wait_open(0);

    let (page, log) = (mesh.saved_page('b'), mesh.access_log('b'));
    let same = mesh.edited("same", &before());
    let new = mesh.edited("new", &after());
    let (same, new) = (same.display().to_string(), new.display().to_string());
    let replayed = |documents: &str, recording: &str| {
        mesh.told(&[
            "policy",
            "replay",
            "--config-dir",
            documents,
            "--records",
            recording,
        ])
    };
    let (nothing, code) = replayed(&same, &page);
    assert_eq!(
        (&nothing["flips"], code),
        (&Value::Array(Vec::new()), 0),
        "{nothing}"
    );
    let (by_page, code) = replayed(&new, &page);
    assert_eq!(code, 1);
    let (by_log, _) = replayed(&new, &log);
    assert_eq!(timeless(&by_page), timeless(&by_log));
    // in the pod, without a file
    let (by_sidecar, _) = mesh.told(&["policy", "replay", "--config-dir", &new]);
    assert_eq!(timeless(&by_page), timeless(&by_sidecar));
    assert_eq!(by_page["connections"], CALLS.len(), "{by_page}");

    let foretold = calls_of(&by_page["flips"]);
    let (text, _) = mesh.said(&["policy", "replay", "--config-dir", &new, "--records", &page]);
    tells_of_flips(&text, foretold.len());

    mesh.apply(&after());
    let flipped = flipped(&served, &mesh.outcomes(&CALLS));
    assert_eq!(flipped, foretold, "{text}");
    assert_eq!(flipped.len(), 4, "{flipped:?}");
}

fn tells_of_flips(text: &str, flips: usize) {
    let headline = format!("{flips} of 8 connections ({flips} of 8 distinct) would flip");
    assert!(text.starts_with(&headline), "{text}");
    for words in [
        "cluster.local/ns/shop/sa/guest from 10.77.0.12 → shop/api-1:8080   1 connection, last ",
        "was allow by shop/api-callers (policy.yaml:",
        "plaintext of 10.77.0.1 (shop/legacy) → shop/api-1:9091",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

/// The calls of which the outcome is another one.
fn flipped(before: &[bool], after: &[bool]) -> Vec<Call> {
    let mut flipped: Vec<Call> = CALLS
        .into_iter()
        .zip(before.iter().zip(after))
        .filter_map(|(call, (before, after))| (before != after).then_some(call))
        .collect();
    flipped.sort_unstable();
    flipped
}

#[test]
fn what_can_not_be_replayed_is_no_answer() {
    needs_namespaces!("policy_tools::replay");
    let mesh = RecordedMesh::start(&before(), false);
    assert!(mesh.reaches((Caller::Web, 8080)));
    let page = mesh.saved_page('b');
    let policy_only = mesh.edited("policy-only", &before());
    std::fs::remove_file(policy_only.join("shop.yaml")).unwrap();
    let policy_only = policy_only.display().to_string();
    let config = mesh.mesh.config_dir().display().to_string();
    let cut_off = mesh.mesh.network.home().join("cut-off.jsonl");
    let whole = std::fs::read_to_string(&page).unwrap();
    let first = whole.split_inclusive('\n').next().unwrap();
    std::fs::write(&cut_off, first).unwrap();
    let cut_off = cut_off.display().to_string();
    for (documents, records, words) in [
        (
            &policy_only,
            &page,
            "recorded by shop/api-1, and the documents have no such Workload",
        ),
        (&config, &cut_off, "save the whole page"),
        (&config, &"/nowhere".to_owned(), "can't be opened"),
        (&"/nowhere".to_owned(), &page, "\"/nowhere\" can't be read"),
    ] {
        let arguments = [
            "policy",
            "replay",
            "--config-dir",
            documents,
            "--records",
            records,
        ];
        let output = mesh.tool(&arguments).output().unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(words), "{complaint}");
        assert_eq!(output.stdout, b"", "no half an answer");
    }
    // a document that can't be loaded is a finding, and denies
    let broken = mesh.edited(
        "broken",
        &before().replace("principals", "requestPrincipals"),
    );
    let broken = broken.display().to_string();
    let (text, code) = mesh.said(&["policy", "replay", "--config-dir", &broken]);
    assert_eq!(code, 1, "{text}");
    assert!(
        text.starts_with("1 of 1 connection (1 of 1 distinct) would flip"),
        "{text}"
    );
    assert!(text.contains("errors in the documents"), "{text}");
    // of a plan it comes first: all else rests on it
    let (text, code) = mesh.said(&["policy", "plan", "--config-dir", &broken]);
    assert_eq!(code, 1, "{text}");
    let first = text.lines().next().unwrap();
    assert!(first.ends_with("errors in the documents:"), "{text}");
    assert!(text.contains("\nthis change closes "), "{text}");
}

#[test]
fn a_pipe_into_which_nobody_writes_is_named() {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
        .args([
            "policy",
            "replay",
            "--config-dir",
            "tests",
            "--records",
            "-",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut complaint = String::new();
    let mut said = BufReader::new(tool.stderr.take().unwrap());
    said.read_line(&mut complaint).unwrap();
    assert_eq!(complaint, "mesh-lite: waiting for standard input\n");
    drop(tool.stdin.take());
    assert_eq!(tool.wait().unwrap().code(), Some(2));
}
