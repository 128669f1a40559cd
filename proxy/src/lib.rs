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

pub mod authorization;
pub mod capture;
pub mod clock;
pub mod dial;
pub mod forward;
pub mod identity;
pub mod limits;
pub mod listener;
pub mod live_connections;
pub mod metrics;
pub mod original_destination;
mod socket;
pub mod tls;
pub mod tunnel;
