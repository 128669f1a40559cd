//! An issuing CA that another program keeps in place, as cert-manager does: a Secret with
//! `tls.crt`, `tls.key` and `ca.crt`, mounted in the data directory.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::trust_bundle::TrustBundle;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use spiffe::TrustDomain;

use super::{
    authority::IssuingAuthority,
    file_replacement::read,
    key_store::{KeyStoreError, parse_chain},
    rotation::SETTLE_IN_CLUSTER,
};

pub(crate) const CERTIFICATE: &str = "tls.crt";
pub(crate) const KEY: &str = "tls.key";
pub(crate) const ROOTS: &str = "ca.crt";

/// What its three files say.
pub(crate) struct PluggedIn {
    pub(crate) authority: IssuingAuthority,
    /// Of `ca.crt`: they join the trust bundle. Empty if there is none.
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

impl PluggedIn {
    /// `None`: there is no `tls.crt`, so the issuing CA is one of ours.
    pub(super) fn read(
        directory: &Path,
        trust_domain: &TrustDomain,
    ) -> Result<Option<Self>, KeyStoreError> {
        let certificate = match read(&directory.join(CERTIFICATE)) {
            Ok(certificate) => certificate,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let key = read(&directory.join(KEY))?;
        let roots = match read(&directory.join(ROOTS)) {
            Ok(roots) => Some(roots),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let roots = roots.as_ref().map(|roots| roots.as_slice());
        Self::parse(directory, &certificate, &key, roots, trust_domain).map(Some)
    }

    /// `place` is named in errors.
    pub(crate) fn parse(
        place: &Path,
        certificate: &[u8],
        key: &[u8],
        roots: Option<&[u8]>,
        trust_domain: &TrustDomain,
    ) -> Result<Self, KeyStoreError> {
        let path = place.join(CERTIFICATE);
        let (certificate, above) = parse_chain(&path, certificate)?;
        let key = parse_any_key(&place.join(KEY), key)?;
        let authority = IssuingAuthority::with_intermediates(certificate, above, key, trust_domain)
            .map_err(|error| KeyStoreError::Authority { path, error })?;
        let path = place.join(ROOTS);
        let roots = match roots {
            // an empty one is what an issuer without a root of its own leaves
            None => Vec::new(),
            Some(text) if text.trim_ascii().is_empty() => Vec::new(),
            Some(text) => TrustBundle::from_pem(trust_domain.clone(), text)
                .map_err(|error| KeyStoreError::TrustBundle { path, error })?
                .authorities()
                .to_vec(),
        };
        Ok(Self { authority, roots })
    }
}

/// As cert-manager writes keys: PKCS#1 and SEC1 by default, PKCS#8 if asked.
fn parse_any_key(path: &Path, text: &[u8]) -> Result<KeyPair, KeyStoreError> {
    let not_pem = || KeyStoreError::not_pem(path, "private key (not encrypted)");
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| not_pem())?;
    KeyPair::try_from(&key).map_err(|_| not_pem())
}

/// Roots that `ca.crt` no longer names, while leaves signed under them may be in use: who renews
/// the CA swaps all three files at once, and peers would refuse each other.
#[derive(Default)]
pub(super) struct DepartingRoots {
    named: Vec<CertificateDer<'static>>,
    departing: Vec<(CertificateDer<'static>, SystemTime)>,
}

impl DepartingRoots {
    /// Adds to the bundle what still must be in it. `named`: what `ca.crt` names now;
    /// `active`: the root of the CA that signs now, which never departs.
    pub(super) fn complete(
        &mut self,
        bundle: TrustBundle,
        named: Vec<CertificateDer<'static>>,
        active: Option<&CertificateDer<'static>>,
        leaf_lifetime: Duration,
        now: SystemTime,
    ) -> TrustBundle {
        // the next CA signs after one settle time, its predecessor's last leaf ends a life later;
        // another for clocks
        let until = now
            .checked_add(leaf_lifetime)
            .and_then(|until| until.checked_add(SETTLE_IN_CLUSTER.saturating_mul(2)))
            .unwrap_or(now);
        for root in &self.named {
            let known = self.departing.iter().any(|(other, _)| other == root);
            if !named.contains(root) && !known {
                self.departing.push((root.clone(), until));
            }
        }
        self.named = named;
        self.departing.retain(|(root, until)| {
            !self.named.contains(root) && (*until > now || active == Some(root))
        });
        let departing = self.departing.iter().map(|(root, _)| root.clone());
        let all = bundle.authorities().iter().cloned().chain(departing);
        // more roots than a bundle holds: those that are named now count
        TrustBundle::new(bundle.trust_domain().clone(), all.collect()).unwrap_or(bundle)
    }
}

#[cfg(test)]
mod tests;
