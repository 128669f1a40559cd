//! TLS 1.3 between sidecars: always mutual, never resumed, and no certificate is believed
//! before it was verified against the trust bundle of its own trust domain.

pub mod acceptor;
pub mod chain_cache;
pub mod connector;
pub mod context;
#[cfg(test)]
pub(crate) mod fixture;
pub mod peer_identity;
pub mod peer_verifier;
pub mod provider;
pub mod session;
