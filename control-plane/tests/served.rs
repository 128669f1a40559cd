//! The control plane as its clients see it: in process, on real sockets, with real TLS and a
//! real gRPC client.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "support code of tests is outside of #[test] functions"
)]

mod served {
    pub(crate) mod client;
    mod mesh_by_clock;
    pub(crate) mod running;
    mod workload_api;

    mod acceptance;
    mod admin;
    mod authority_life;
    mod authorization_policies;
    mod connections;
    mod imported_authority;
    mod issuance;
    mod leaf_profile;
    mod root_change;
    mod rotation;
    mod secrecy;
    mod secret_streams;
    mod workload_directory;
}
