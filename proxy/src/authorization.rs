//! Who may connect: policy as it arrives, and every connection held to it.

pub mod enforcement;
pub mod policy_watch;
