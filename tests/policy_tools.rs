//! What tools say of a change of policy, on connections that were recorded in network namespaces,
//! and then what the change does: the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "policy_tools/recorded_mesh.rs"]
mod recorded_mesh;

#[path = "policy_tools/plan.rs"]
mod plan;
#[path = "policy_tools/replay.rs"]
mod replay;
#[path = "policy_tools/strict_ready.rs"]
mod strict_ready;
#[path = "policy_tools/suggest.rs"]
mod suggest;
