//! How an application's connections come to the sidecar without its knowledge.
//!
//! ```text
//! rules      what is to be captured, and the same said in nft's and in iptables' language
//! apply      hand a rule text to the kernel's tool, whole or not at all
//! netlink    ask the kernel something, and have its answer whole or not at all
//! conntrack  forget what the kernel decided before the rules were there
//! self_test  connect and see where one arrives: captured, or not
//! record     what `redirect` proved, for the sidecar to demand
//! install    all of that in order: `mesh-lite redirect`
//! listening  explicit capture: no rules, but nobody else may listen for the network
//! ```
//!
//! Capture is NAT to the sidecar's own ports, exempting one user. A guard beside it answers RST
//! to whatever should have been redirected but was not, so that a flushed NAT table refuses
//! connections instead of letting them out in plaintext.

pub mod apply;
pub mod conntrack;
pub mod install;
pub mod listening;
pub mod netlink;
pub mod record;
pub mod rules;
pub mod self_test;
