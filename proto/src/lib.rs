//! The contract: all that two processes of mesh-lite must agree on. No I/O; no tasks but those of
//! the one service that two of them serve.
//!
//! ```text
//!   identity ── svid ── trust_bundle        who a workload is, and how it proves it
//!   secret_discovery                        how certificates are asked for and answered (SDS),
//!                                           and the service that answers
//!   workload_directory                      who must answer at an address
//!   document                                YAML documents, each with file and line
//!   authorization                           who may connect: documents, and one pure decision
//!   decision_record                         what a sidecar remembers of its decisions
//!   tunnel                                  what two sidecars say inside TLS
//!   app_probes                              probes that go through the sidecar
//!   sidecar, kubernetes                     names and numbers
//!   wire                                    generated messages; only conversions touch them
//! ```

pub mod app_probes;
pub mod authorization;
pub mod decision_record;
pub mod document;
pub mod identity;
pub mod kubernetes;
pub mod secret_discovery;
pub mod sidecar;
pub mod svid;
pub mod trust_bundle;
pub mod tunnel;
pub mod wire;
pub mod workload_directory;
