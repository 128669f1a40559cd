//! What is looked at before a chain and its key leave the process (SDS-S18): a client that takes a
//! broken one keeps it. Envoy acknowledges the same bytes the second time, and then blames the
//! bundle.

use std::time::SystemTime;

use mesh_lite_proto::{
    svid::{InvalidLeaf, LeafFacts, inspect_leaf, public_key_of},
    trust_bundle::TrustBundle,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    caller::{InvalidPeer, Peer},
    clock::readable,
};

/// `key` is PKCS#8, DER.
///
/// # Errors
/// What is wrong with it: then it must not be sent to anybody.
pub(crate) fn check_svid(
    chain: &[CertificateDer<'_>],
    key: &[u8],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<LeafFacts, BrokenSvid> {
    let (first, issuers) = chain.split_first().ok_or(BrokenSvid::NoChain)?;
    let leaf = inspect_leaf(first)?;
    for (place, issuer) in issuers.iter().enumerate() {
        let place = place.saturating_add(2);
        let (rest, issuer) =
            X509Certificate::from_der(issuer).map_err(|_| BrokenSvid::Unreadable { place })?;
        if !rest.is_empty() {
            return Err(BrokenSvid::Unreadable { place });
        }
        if !issuer.is_ca() {
            return Err(BrokenSvid::SecondLeaf { place });
        }
    }
    if leaf.id.trust_domain() != bundle.trust_domain() {
        return Err(BrokenSvid::TrustDomain {
            id: leaf.id.to_string(),
            bundle: bundle.trust_domain().to_string(),
        });
    }
    check_key(first, key)?;
    if now < leaf.not_before {
        return Err(BrokenSvid::NotYetValid {
            from: readable(leaf.not_before),
            now: readable(now),
        });
    }
    if now >= leaf.not_after {
        return Err(BrokenSvid::Expired {
            at: readable(leaf.not_after),
            now: readable(now),
        });
    }
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Peer::from_chain(chain, bundle, UnixTime::since_unix_epoch(since_1970))?;
    Ok(leaf)
}

fn check_key(leaf: &CertificateDer<'_>, key: &[u8]) -> Result<(), BrokenSvid> {
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    // the reason would quote nothing of the key, and says nothing more
    let signing = any_supported_type(&private).map_err(|_| BrokenSvid::Key)?;
    let public = signing.public_key().ok_or(BrokenSvid::Key)?;
    if public.as_ref() == public_key_of(leaf)? {
        Ok(())
    } else {
        Err(BrokenSvid::OtherKey)
    }
}

/// Says nothing of the key but that it is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenSvid {
    #[error("there is no certificate in it")]
    NoChain,
    #[error("its first certificate is no X509-SVID: {0}")]
    NotALeaf(#[from] InvalidLeaf),
    #[error("certificate {place} of its chain can't be read")]
    Unreadable { place: usize },
    #[error("certificate {place} of its chain is no CA: the leaf comes first and alone")]
    SecondLeaf { place: usize },
    #[error("{id} is not of {bundle}, whose bundle is served beside it")]
    TrustDomain { id: String, bundle: String },
    #[error("its key is not PKCS#8, or of a kind that can't be used")]
    Key,
    #[error("its key is not its certificate's")]
    OtherKey,
    #[error("it is not valid before {from}, and it is {now} here: compare the clocks")]
    NotYetValid { from: String, now: String },
    #[error("it expired at {at}, and it is {now} here")]
    Expired { at: String, now: String },
    #[error("the bundle that is served does not vouch for it: {0}")]
    Chain(#[from] InvalidPeer),
}

#[cfg(test)]
mod tests;
