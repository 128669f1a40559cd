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
    pub(crate) mod log;
    mod mesh_by_clock;
    pub(crate) mod running;
    mod workload_api;

    mod acceptance;
    mod admin;
    mod audit;
    mod authority_life;
    mod authorization_policies;
    mod certificate_requests;
    mod clock_skew;
    mod connections;
    mod imported_authority;
    mod issuance;
    mod leaf_profile;
    mod remote_keys;
    mod root_change;
    mod rotation;
    mod secrecy;
    mod secret_streams;
    mod stream_tokens;
    mod workload_directory;
}
