//! `mesh-lite identity` against sidecars as they are: well, without a certificate, cut off.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

use mesh_lite_test_support::applications::http_get_here;
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::mesh::WEB_ID;
use mesh_lite_test_support::process::finish;
use mesh_lite_test_support::{LoopbackMesh, eventually};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// No application listens there; nobody calls it.
const NO_APPLICATION: u16 = 1;

fn identity(mesh: &LoopbackMesh, arguments: &[&str]) -> Output {
    let admin = mesh.sidecar("web").admin().to_string();
    let mut command = Command::new(PROGRAM);
    finish(
        command
            .args(["identity", "--admin", &admin])
            .args(arguments),
    )
}

fn metrics(mesh: &LoopbackMesh) -> String {
    http_get_here(mesh.sidecar("web").admin(), "/metrics")
        .unwrap()
        .1
}

/// Waits until it exits with `code` and says all of `parts`.
fn says(mesh: &LoopbackMesh, code: i32, parts: &[&str]) -> String {
    eventually(&format!("exit code {code} and {parts:?}"), || {
        let output = identity(mesh, &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        if output.status.code() == Some(code) && parts.iter().all(|part| text.contains(part)) {
            Ok(text)
        } else {
            Err((output.status, text, String::from_utf8(output.stderr)))
        }
    })
}

#[test]
fn a_valid_identity_is_told_to_people_and_to_programs() {
    let mut mesh = LoopbackMesh::start(PROGRAM, NO_APPLICATION, WEB_ONLY);
    mesh.start_sidecar("web").wait_ready();
    let text = says(&mesh, 0, &[WEB_ID, "valid, and renewed by itself"]);
    for part in [
        "serial",
        "(24 h left)",
        "signed by     issuing CA, key id ",
        "root          1 of 1 in the trust bundle",
        "renewal due",
        "clock         our clock",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let output = identity(&mesh, &["--output", "json"]);
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "valid");
    assert_eq!(report["certificate"]["spiffe_id"], WEB_ID);
    let at = |part: &Value| part.as_u64().unwrap();
    let (now, due) = (at(&report["now"]), at(&report["renewal"]["due"]));
    let end = at(&report["certificate"]["not_after"]);
    assert!(now < due && due < end, "{report}");
    let issuer = &report["certificate"]["issuer"];
    assert!(at(&issuer["not_after"]) > end, "{report}");
    assert!(text.contains(issuer["key_id"].as_str().unwrap()), "{text}");
    assert!(
        report["certificate"]["root"]["key_id"].is_string(),
        "{report}"
    );
    assert!(report["clock_skew_seconds"].as_i64().unwrap().abs() < 30);
}

#[test]
fn a_sidecar_without_a_certificate_says_why_and_what_to_do() {
    let mut mesh = LoopbackMesh::start(PROGRAM, NO_APPLICATION, WEB_ONLY);
    mesh.start_sidecar_with("web", "not-a-token-of-this-mesh");
    says(
        &mesh,
        1,
        &[
            "no certificate yet",
            "why           the control plane does not accept the token",
            "what to do    make a new token with `mesh-lite token create",
        ],
    );
}

#[test]
fn a_renewal_that_fails_is_told_before_the_end_and_the_end_after_it() {
    let short = ["--leaf-lifetime", "12s"];
    let mut mesh = LoopbackMesh::prepare(PROGRAM, NO_APPLICATION, WEB_ONLY, &short);
    mesh.start_control_plane();
    mesh.start_sidecar("web").wait_ready();
    mesh.kill_control_plane();
    let breakage = "mesh_lite_time_to_breakage_seconds{cause=\"leaf\"} ";
    eventually("the metric counts down to the leaf's end", || {
        let page = metrics(&mesh);
        let line = page.lines().find_map(|line| line.strip_prefix(breakage));
        let left = line.and_then(|left| left.parse::<f64>().ok());
        left.filter(|left| *left < 12.0).ok_or(page)
    });
    let unreachable = "mesh_lite_cert_renewals_total{result=\"unreachable\"} 0";
    assert!(!metrics(&mesh).contains(unreachable));
    says(
        &mesh,
        1,
        &[
            "but it can't be renewed",
            "failing       since ",
            "why           the control plane can't issue now",
            "what to do    check that the control plane runs",
            "next attempt",
        ],
    );
    says(
        &mesh,
        1,
        &["the certificate has ended", "ended  ", "what to do"],
    );
    mesh.start_control_plane();
    mesh.sidecar_mut("web").kill();
    mesh.start_sidecar("web").wait_ready();
    says(&mesh, 0, &["valid, and renewed by itself"]);
    assert!(!metrics(&mesh).contains(breakage), "repaired");
}

#[test]
fn where_no_sidecar_answers_is_told_from_a_bad_certificate() {
    for (admin, words) in [
        ("127.0.0.1:1", "no sidecar answers at 127.0.0.1:1"),
        ("[::1]:1", "no sidecar answers at [::1]:1"),
    ] {
        let mut command = Command::new(PROGRAM);
        let output = finish(command.args(["identity", "--output", "json", "--admin", admin]));
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(words) && said.contains("--admin"), "{said}");
    }
}
