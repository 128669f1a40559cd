//! The sidecar.
//!
//! ```text
//!   capture     what the kernel hands over: rules, and the proof that they hold
//!      │
//!   listener ── inbound  ── tls::acceptor  ── authorization ── forward ──▶ the application
//!      │
//!      └─────── outbound ── directory ── tls::connector ────── forward ──▶ another sidecar
//!
//!   identity    key and CSR ─▶ issued leaf ─▶ renewed in time; kept in the state file
//!   readiness, drain, admin, metrics, access_log     what operators hold on to
//! ```

pub mod identity;
