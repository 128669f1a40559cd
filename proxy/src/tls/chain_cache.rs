//! Chains that were verified already.
//!
//! Two of a handshake's three signature checks on either side concern the peer's chain, which is
//! the same for every connection of that peer. Remembering the answer makes a full handshake
//! almost half as dear. A cache belongs to one trust bundle and is dropped with it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest::{Context, SHA256};
use rustls_pki_types::CertificateDer;

use super::peer_identity::{PeerIdentity, Role};

/// Peers of one pod are tens, rarely thousands; an entry is about 400 bytes.
const MAX_CHAINS: usize = 4096;

#[derive(Default)]
pub(super) struct ChainCache(Mutex<HashMap<Key, Arc<PeerIdentity>>>);

/// SHA-256 of the role and every certificate of the chain, with their lengths.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(role: Role, chain: &[CertificateDer<'_>]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[role as u8]);
        for certificate in chain {
            context.update(&certificate.len().to_be_bytes());
            context.update(certificate);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        Self(key)
    }
}

impl ChainCache {
    /// Who the chain proves, if it was verified before and is valid at `now`.
    pub(super) fn find(&self, key: &Key, now: SystemTime) -> Option<Arc<PeerIdentity>> {
        let chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chains
            .get(key)
            .filter(|peer| peer.is_valid_at(now))
            .cloned()
    }

    pub(super) fn insert(&self, key: Key, peer: Arc<PeerIdentity>, now: SystemTime) {
        let mut chains = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= MAX_CHAINS {
            chains.retain(|_, peer| peer.is_valid_at(now));
        }
        if chains.len() >= MAX_CHAINS {
            // Only certificates that our own authority signed get here, so this is a very large
            // mesh and not an attack; it pays with a slower handshake, not with memory.
            chains.clear();
        }
        chains.insert(key, peer);
    }
}
