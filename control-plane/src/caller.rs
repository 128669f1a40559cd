//! Who is on the other side of a connection: fixed at the TLS handshake, never taken from what
//! a message says (SDS-S24).

use std::sync::Arc;

use mesh_lite_proto::{
    svid::{InvalidLeaf, LeafFacts, inspect_leaf, public_key_of},
    trust_bundle::TrustBundle,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;
use tokio::sync::watch;

use crate::certificate_authority::certificate_request::KeyPrint;

/// A caller with an X509-SVID of our trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) leaf: LeafFacts,
    pub(crate) key: KeyPrint,
}

impl Peer {
    /// From the chain that the verifier accepted in this handshake.
    pub(crate) fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, InvalidLeaf> {
        let leaf = chain
            .first()
            .ok_or_else(|| InvalidLeaf::Malformed("no leaf".to_owned()))?;
        let key = KeyPrint::of(&public_key_of(leaf)?);
        Ok(Self {
            leaf: inspect_leaf(leaf)?,
            key,
        })
    }
}

/// What every request knows of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None`: no certificate was shown. A join token may still be.
    pub(crate) peer: Option<Arc<Peer>>,
    /// True once the connection is about to be closed: long streams end.
    pub(crate) closing: watch::Receiver<bool>,
}

/// Webpki's chain check, and X509-SVID's rules on top, which webpki does not know.
#[derive(Debug)]
pub(crate) struct CallerVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl CallerVerifier {
    pub(crate) fn new(
        bundle: &TrustBundle,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let mut roots = RootCertStore::empty();
        // one that webpki can't use leaves the others usable; none at all is an error below
        roots.add_parsable_certificates(bundle.authorities().iter().cloned());
        let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()?;
        Ok(Self {
            chain,
            trust_domain: bundle.trust_domain().clone(),
        })
    }

    fn check_leaf(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = |error: InvalidCaller| {
            let error = CertificateError::Other(OtherError(Arc::new(error)));
            Error::InvalidCertificate(error)
        };
        let facts = inspect_leaf(leaf).map_err(|error| refused(error.into()))?;
        if facts.id.trust_domain() != &self.trust_domain {
            return Err(refused(InvalidCaller::TrustDomain(facts.id.to_string())));
        }
        Ok(())
    }
}

impl ClientCertVerifier for CallerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // peers have one certificate each: naming the roots would only cost bytes
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        self.check_leaf(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug, thiserror::Error)]
enum InvalidCaller {
    #[error(transparent)]
    Leaf(#[from] InvalidLeaf),
    #[error("{0} is of another trust domain")]
    TrustDomain(String),
}
