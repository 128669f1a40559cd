//! `proto` ← `proxy`, `control-plane`, `injector` ← root, and one crypto provider.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use mesh_lite_test_support::process::{finish, succeed};
use serde_json::Value;

fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

/// Workspace members and the members they depend on, other than for their own tests.
fn members() -> BTreeMap<String, BTreeSet<String>> {
    let text = succeed(cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]));
    let metadata: Value = serde_json::from_str(&text).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
    let names: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let production = dependencies
                .iter()
                .filter(|dependency| dependency["kind"] != "dev");
            (
                name(package),
                production
                    .map(name)
                    .filter(|name| names.contains(name))
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn crates_depend_on_the_contract_and_not_on_each_other() {
    let members = members();
    let of = |name: &str| -> Vec<&str> { members[name].iter().map(String::as_str).collect() };
    assert_eq!(of("mesh-lite-proto"), Vec::<&str>::new());
    assert_eq!(of("mesh-lite-proxy"), ["mesh-lite-proto"]);
    assert_eq!(of("mesh-lite-control-plane"), ["mesh-lite-proto"]);
    assert_eq!(of("mesh-lite-injector"), ["mesh-lite-proto"]);
    assert_eq!(of("mesh-lite-test-support"), Vec::<&str>::new());
    assert_eq!(
        of("mesh-lite"),
        [
            "mesh-lite-control-plane",
            "mesh-lite-injector",
            "mesh-lite-proto",
            "mesh-lite-proxy"
        ]
    );
}

#[test]
fn there_is_one_crypto_provider() {
    let arguments = [
        "tree",
        "--offline",
        "--workspace",
        "--edges",
        "normal,build,dev",
    ];
    for other in ["ring", "openssl", "native-tls"] {
        // Cargo fails where nobody knows the name, and prints nothing where nobody uses it.
        let users = finish(cargo().args(arguments).args(["--invert", other]));
        let users = String::from_utf8(users.stdout).unwrap();
        assert_eq!(users, "", "{other} is in use");
    }
}

#[test]
fn nothing_that_must_be_single_is_linked_twice() {
    let doubled = succeed(cargo().args(["tree", "--offline", "--workspace", "--duplicates"]));
    for single in ["aws-lc-sys", "aws-lc-rs", "rustls", "tonic", "prost", "h2"] {
        let named = |line: &&str| line.split(' ').next() == Some(single);
        let versions: BTreeSet<&str> = doubled.lines().filter(named).collect();
        assert!(versions.len() <= 1, "{versions:?}");
    }
}
