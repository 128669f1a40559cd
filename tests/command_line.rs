//! What the command line says of itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

fn mesh_lite(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn wrong_usage_is_said_in_words_and_exits_with_2() {
    for arguments in [
        &["proxy"][..],
        &["demo", "--twice"],
        &["proxy", "--upstreams", "8081=shop"],
        &["no-such-role"],
        &["identity", "--output", "yaml"],
        &["identity", "--admin", "localhost"],
    ] {
        let output = mesh_lite(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn every_role_has_help_with_examples() {
    for role in [
        "demo",
        "control-plane",
        "proxy",
        "redirect",
        "root",
        "token",
        "identity",
    ] {
        let help = String::from_utf8(mesh_lite(&[role, "--help"]).stdout).unwrap();
        assert!(help.contains("Usage:"), "{role}");
        assert!(help.contains("Example"), "{role} has no example:\n{help}");
    }
}

#[test]
fn a_sidecar_without_a_data_directory_ends_at_once_and_says_what_to_do() {
    let output = mesh_lite(&[
        "proxy",
        "--control-plane",
        "127.0.0.1:1",
        "--trust-bundle",
        "absent.pem",
        "--data-dir",
        "/nowhere/at/all",
        "--capture",
        "explicit",
    ]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("install -d -o"), "{words}");
}
