//! The first command of the README.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use mesh_lite_test_support::process::succeed;

#[test]
fn the_demo_shows_the_mesh_at_work_and_ends_well() {
    let shown = succeed(Command::new(env!("CARGO_BIN_EXE_mesh-lite")).args(["demo", "--once"]));
    for part in [
        "spiffe://cluster.local/ns/shop/sa/web",
        "$ mesh-lite explain ",
        "DENIED  spiffe://cluster.local/ns/shop/sa/guest",
        "rules[0].from[0].source.principals (policy.yaml:9)",
        "was        cluster.local/ns/shop/sa/guest",
        "should be  cluster.local/ns/shop/sa/web",
        "is nowhere in it",
        "0 failures",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
}
