//! The webhook as API servers meet it: real TLS on real sockets, replicas that share the scripted
//! API server's Secret and registration.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test fails by panicking"
)]

mod certificate;
mod flood;
mod replica;
mod serving;
