//! The workload's identity as the data path sees it: published whole, in one send.

use std::sync::Arc;

use mesh_lite_proto::{
    svid::LeafFacts,
    trust_bundle::{TrustBundle, pem},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

mod advice;
pub mod issued_chain;
pub mod issuer_client;
pub mod key_and_csr;
pub(crate) mod owner;
pub mod renewal;
pub mod renewal_state;
pub mod report;
pub(crate) mod secret_stream;
pub mod state_file;
pub mod token_file;
pub mod trust_bundle_file;

/// One leaf with its key, and whom to trust. Never half of a new one and half of an old one.
pub struct Identity {
    /// Grows by one with each change.
    pub revision: u64,
    pub leaf: LeafFacts,
    /// Leaf first, then the issuing CA.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKey,
    pub trust_bundle: Arc<TrustBundle>,
}

/// A private key, PKCS#8 DER. Wiped when dropped; has no `Debug`, and leaves the process in the
/// state file, and through the workload socket to whom it is opened for.
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    pub fn from_pkcs8(der: Vec<u8>) -> Self {
        Self(Zeroizing::new(der))
    }

    pub fn as_der(&self) -> PrivateKeyDer<'_> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.as_slice()))
    }

    /// PKCS#8 PEM, for the workload's own Envoy (SDS-S28).
    pub(crate) fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem("PRIVATE KEY", &self.0))
    }

    /// For the state file and the arithmetic on keys.
    fn secret_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A key outlives the identity it came with when only the trust bundle changes.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0.clone())
    }
}
