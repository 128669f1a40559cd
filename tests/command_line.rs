//! What the command line says of itself.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::{Command, Output};

use mesh_lite_test_support::NOBODY_UID;

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
        &["demo"][..],
        &["control-plane"],
        &["proxy"],
        &["redirect"],
        &["root"],
        &["token"],
        &["identity"],
        &["explain"],
        &["policy", "lint"],
        &["policy", "test"],
    ] {
        let help = String::from_utf8(mesh_lite(&[role, &["--help"]].concat()).stdout).unwrap();
        assert!(help.contains("Usage:"), "{role:?}");
        assert!(help.contains("Example"), "{role:?} has no example:\n{help}");
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

/// What it prints is the token alone; what it is good for is said beside it.
#[test]
fn a_token_says_what_it_is_good_for() {
    let directory = tempfile::TempDir::new().unwrap();
    let state = directory.path().join("state");
    let state = state.to_str().unwrap();
    let create = |more: &[&str]| {
        let common = ["token", "create", "shop/web", "--data-dir", state];
        mesh_lite(&[&common, more].concat())
    };
    let nowhere = create(&["--reusable"]);
    assert_eq!(nowhere.status.code(), Some(1));
    let said = String::from_utf8(nowhere.stderr).unwrap();
    assert!(said.contains("mesh-lite root init"), "{said}");
    assert!(
        mesh_lite(&["root", "init", "--data-dir", state])
            .status
            .success()
    );
    for (more, start, good) in [
        (&["--ttl", "1m"][..], "mesh-lite-join-", "Good once"),
        (
            &["--reusable", "--ttl", "1h"],
            "mesh-lite-stream-",
            "Opens SDS streams",
        ),
    ] {
        let made = create(more);
        assert!(made.status.success());
        let token = String::from_utf8(made.stdout).unwrap();
        assert!(
            token.starts_with(start) && token.lines().count() == 1,
            "{start}"
        );
        let said = String::from_utf8(made.stderr).unwrap();
        assert!(
            said.starts_with(good) && said.contains("shop/web"),
            "{said}"
        );
        assert!(!said.contains(token.trim()), "{said}");
    }
}

#[test]
fn redirect_without_the_right_to_says_so_and_leaves_an_earlier_record() {
    use std::os::unix::fs::chown;
    let state = tempfile::tempdir().unwrap();
    let record = state.path().join("capture.json");
    std::fs::write(&record, "an earlier one").unwrap();
    let program = env!("CARGO_BIN_EXE_mesh-lite");
    let mut command = if rustix::process::geteuid().is_root() {
        // its own directory: only the missing capability keeps it from removing the record
        for path in [state.path(), &record] {
            chown(path, Some(NOBODY_UID), None).unwrap();
        }
        let uid = NOBODY_UID.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", program]);
        command
    } else {
        Command::new(program)
    };
    let output = command
        .args(["redirect", "--state-dir"])
        .arg(state.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NET_ADMIN"), "{said}");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "an earlier one");
}
