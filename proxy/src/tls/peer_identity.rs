//! Who a peer has proved to be.

use std::time::SystemTime;

use mesh_lite_proto::{identity::WorkloadId, svid::LeafFacts};

/// A peer that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub leaf: LeafFacts,
    /// The root that its chain ends in: its public key, DER.
    root: Box<[u8]>,
    /// The earliest end of any certificate of its chain.
    chain_ends: SystemTime,
}

impl PeerIdentity {
    pub(super) fn new(leaf: LeafFacts, root: Box<[u8]>, chain_ends: SystemTime) -> Self {
        Self {
            leaf,
            root,
            chain_ends,
        }
    }

    pub(super) fn root(&self) -> &[u8] {
        &self.root
    }

    pub fn id(&self) -> &WorkloadId {
        &self.leaf.id
    }

    pub(super) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.leaf.not_before <= now && now <= self.chain_ends
    }
}

/// As what a peer presents its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client = 0,
    Server = 1,
}
