//! Whether a certificate chain may be used as our own: checked when it was issued, and again
//! when it comes from the state file.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::WorkloadId,
    svid::{InvalidLeaf, LeafFacts, inspect_leaf, public_key_of},
    trust_bundle::{TrustBundle, hex},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

use super::{
    PrivateKey,
    key_and_csr::{KeyError, public_half},
};
use crate::tls::{
    peer_identity::Role,
    peer_verifier::{PeerRefused, PeerVerifier, UnusableRoot},
};

/// Reads the leaf of `chain`, if the chain may be used with `key` at `now`: the leaf first, an
/// X509-SVID of exactly one URI, with this key, valid now, proved by `bundle`, and of the same
/// workload as `before`. Peers would refuse anything else, so we do first, in words.
///
/// # Errors
/// The first of these that does not hold.
pub fn check_chain(
    chain: &[CertificateDer<'static>],
    key: &PrivateKey,
    bundle: &Arc<TrustBundle>,
    before: Option<&WorkloadId>,
    now: SystemTime,
) -> Result<LeafFacts, UnusableChain> {
    let first = chain.first().ok_or(UnusableChain::Empty)?;
    let leaf = inspect_leaf(first)?;
    if public_key_of(first)? != public_half(key)? {
        return Err(UnusableChain::OtherKey);
    }
    if let Some(before) = before
        && *before != leaf.id
    {
        return Err(UnusableChain::OtherWorkload {
            before: before.clone(),
            found: leaf.id,
        });
    }
    if now < leaf.not_before {
        let early = leaf.not_before.duration_since(now).unwrap_or_default();
        return Err(UnusableChain::NotYetValid { early });
    }
    if let Ok(late) = now.duration_since(leaf.not_after) {
        return Err(UnusableChain::Ended { late });
    }
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    PeerVerifier::new(Arc::clone(bundle))?.verify(
        chain,
        Role::Client,
        UnixTime::since_unix_epoch(since_epoch),
    )?;
    Ok(leaf)
}

/// The key id of the authority that signed a leaf, lower-case hex, if the leaf states it.
pub fn issuer_key_id(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                authority.key_identifier.as_ref().map(|id| hex(id.0))
            }
            _ => None,
        })
}

/// When a certificate ends. `None`: it is none, or ends before 1970.
pub(super) fn end_of(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let end = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end))
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableChain {
    #[error("the chain holds no certificate")]
    Empty,
    #[error("its first certificate is no leaf: {0}")]
    Leaf(#[from] InvalidLeaf),
    #[error("its leaf is for another key than the one we asked for")]
    OtherKey,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("its leaf is of {found}, but this workload is {before}")]
    OtherWorkload {
        before: WorkloadId,
        found: WorkloadId,
    },
    #[error("its leaf is valid only in {} s by our clock", early.as_secs_f64().ceil())]
    NotYetValid { early: Duration },
    #[error("its leaf ended {} s ago by our clock", late.as_secs())]
    Ended { late: Duration },
    #[error(transparent)]
    Root(#[from] UnusableRoot),
    #[error("our own trust bundle does not prove it: {0}")]
    Untrusted(#[from] PeerRefused),
}

impl UnusableChain {
    /// Whether a wrong clock would explain it.
    pub fn is_about_time(&self) -> bool {
        matches!(self, Self::NotYetValid { .. } | Self::Ended { .. })
    }
}

#[cfg(test)]
mod tests;
