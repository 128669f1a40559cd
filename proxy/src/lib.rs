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
//!      └─────── workload_socket    SDS for the workload's own clients, if asked for
//!   app_probes  the kubelet's probes of the application, which has to be reached under STRICT
//!   readiness, drain, admin, metrics, access_log, decisions     what operators hold on to
//! ```

pub mod access_log;
pub mod account;
pub mod admin;
mod app_files;
pub mod app_probes;
pub mod authorization;
mod back_off;
pub mod capture;
pub mod clock;
pub mod control;
pub mod control_plane_client;
pub mod data_directory;
pub mod data_path;
pub mod decisions;
pub mod dial;
pub mod directory;
pub mod drain;
pub mod forward;
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod listener;
pub mod live_connections;
pub mod memory_limit;
pub mod metrics;
pub mod original_destination;
pub mod outbound;
pub mod readiness;
pub mod route;
pub mod sidecar;
mod socket;
mod spread;
pub mod tls;
pub mod tunnel;
pub mod workload_socket;
