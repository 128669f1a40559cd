//! `strict-ready`: it names who would be cut, and says that nobody would be only if nobody is.

use mesh_lite_test_support::{eventually, needs_namespaces};
use serde_json::{Value, json};

use crate::recorded_mesh::{Caller, RecordedMesh, allowing, is_cut, lives};

const LAX: &str = "\
---
apiVersion: mesh-lite.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
";

fn callers() -> String {
    allowing(&[("web", 8080), ("guest", 8080), ("10.77.0.12/32", 8080)])
}

fn permissive() -> String {
    callers() + LAX
}

fn strict() -> String {
    callers() + &LAX.replace("PERMISSIVE", "STRICT")
}

/// What it says of fresh pages of these sidecars, and its exit code.
fn asked(mesh: &RecordedMesh, letters: &str, since: &str) -> (Value, String, i32) {
    let config = mesh.mesh.config_dir().display().to_string();
    let pages: Vec<String> = letters
        .chars()
        .map(|letter| mesh.saved_page(letter))
        .collect();
    let mut arguments = vec!["strict-ready", "--config-dir", &config, "--since", since];
    for page in &pages {
        arguments.extend(["--records", page]);
    }
    let (told, code) = mesh.told(&arguments);
    let (said, _) = mesh.said(&arguments);
    (told, said, code)
}

#[test]
fn strict_cuts_exactly_the_one_that_strict_ready_names_while_it_is_not_ready() {
    needs_namespaces!("policy_tools::strict_ready");
    let mut mesh = RecordedMesh::start(&permissive(), false);
    let (mut web, mut guest) = (
        mesh.holds((Caller::Web, 8080)),
        mesh.holds((Caller::Guest, 8080)),
    );
    mesh.wait_open(2);
    let (told, said, code) = asked(&mesh, "ab", "1s");
    assert_eq!((&told["ready"], code), (&json!(false), 1));
    let [call] = &told["plaintext"].as_array().unwrap()[..] else {
        panic!("{told}")
    };
    let named = ["workload", "peer", "peer_workload"].map(|field| call[field].as_str().unwrap());
    assert_eq!(named, ["shop/api-1", "10.77.0.12", "shop/guest-1"]);
    assert_eq!(
        (&call["port"], &call["count"], &call["open"]),
        (&json!(8080), &json!(1), &json!(1))
    );
    assert!(said.starts_with("not ready"), "{said}");
    let line =
        "shop/guest-1 (10.77.0.12, outside the mesh) → shop/api-1:8080   1 connection since ";
    assert!(said.contains(line), "{said}");

    // the logs are whole, and say the same
    let config = mesh.mesh.config_dir().display().to_string();
    let logs = [mesh.access_log('a'), mesh.access_log('b')];
    let [of_web, of_api] = &logs;
    let arguments = [
        "strict-ready",
        "--config-dir",
        &config,
        "--since",
        "1s",
        "--records",
        of_web,
        "--records",
        of_api,
    ];
    let (by_log, code) = mesh.told(&arguments);
    assert_eq!(code, 1);
    assert_eq!(by_log["plaintext"][0]["open"], json!(1), "{by_log}");
    assert!(!by_log.to_string().contains("begins later"), "{by_log}");

    mesh.apply(&strict());
    is_cut(&mut guest);
    lives(&mut web);
    assert!(!mesh.reaches((Caller::Guest, 8080)));
    assert!(mesh.reaches((Caller::Web, 8080)));
}

fn wait_until_guest_calls_by_its_sidecar(mesh: &RecordedMesh) {
    eventually("guest's calls come in the mesh", || {
        assert!(mesh.reaches((Caller::Guest, 8080)));
        let page = mesh.page('b', "/decisions");
        if page.contains("ns/shop/sa/guest") {
            Ok(())
        } else {
            Err(page)
        }
    });
}

#[test]
fn strict_cuts_nobody_once_strict_ready_says_so() {
    needs_namespaces!("policy_tools::strict_ready");
    let mut mesh = RecordedMesh::start(&permissive(), false);
    assert!(mesh.reaches((Caller::Web, 8080)));
    assert!(mesh.reaches((Caller::Guest, 8080)));
    let (told, _, code) = asked(&mesh, "ab", "24h");
    assert_eq!((&told["ready"], code), (&json!(false), 1));
    assert_eq!(told["plaintext"].as_array().unwrap().len(), 1, "{told}");

    // put right: the caller joins the mesh
    mesh.guest_joins();
    wait_until_guest_calls_by_its_sidecar(&mesh);
    // what was recorded is not forgotten: it depends on how far back one looks
    let (told, _, _) = asked(&mesh, "abc", "24h");
    assert_eq!(told["plaintext"].as_array().unwrap().len(), 1, "{told}");
    assert!(
        told["not_known"].as_array().unwrap().len() >= 3,
        "no page goes back a day: {told}"
    );
    // nor is a workload that nobody recorded
    let (told, said, code) = asked(&mesh, "ab", "2s");
    assert_eq!((&told["ready"], code), (&json!(false), 1));
    assert!(
        said.contains("shop/guest-1: nothing is recorded of it"),
        "{said}"
    );

    let said = eventually("ready", || {
        // longer than the asking takes on a loaded machine
        let (told, said, code) = asked(&mesh, "abc", "10s");
        if told["ready"] == json!(true) && code == 0 {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert!(
        said.starts_with("ready: STRICT would cut nobody (3 workloads"),
        "{said}"
    );

    let (mut web, mut guest) = (
        mesh.holds((Caller::Web, 8080)),
        mesh.holds((Caller::Guest, 8080)),
    );
    mesh.apply(&strict());
    assert!(mesh.reaches((Caller::Web, 8080)));
    assert!(mesh.reaches((Caller::Guest, 8080)));
    lives(&mut web);
    lives(&mut guest);
    let cut = mesh
        .mesh
        .b()
        .log()
        .count(&[("event", "close"), ("end", "policy_changed")]);
    assert_eq!(cut, 0);
}
