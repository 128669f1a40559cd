//! Envoy 1.40 takes its secrets from us: the proof that what we serve is the SDS API.
//!
//! Rotations, bad orders and unknown names come from an SDS server in this process, whose secrets
//! the test holds in its hands; tokens, restarts and storage from the real control plane and
//! sidecars. `tests/envoy/*.yaml` are the bootstraps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod broken_secret;
mod control_plane;
mod forms;
mod peer_certificates;
mod registration;
mod root_change;
mod rotation;
mod scene;
mod secret_server;
mod traffic;
mod withdrawal;
mod workload_socket;
