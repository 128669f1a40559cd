//! Who is on the other side of a connection: fixed at the TLS handshake, never taken from what
//! a message says (SDS-S24).

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use mesh_lite_proto::{
    svid::{InvalidLeaf, IssuerMayNotSign, LeafFacts, inspect_leaf, issuer_end, public_key_of},
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
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use spiffe::TrustDomain;
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{certificate_authority::certificate_request::KeyPrint, workload_index::WorkloadName};

/// A caller with an X509-SVID of our trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) leaf: LeafFacts,
    pub(crate) key: KeyPrint,
    /// The key of the root that its chain was verified by.
    pub(crate) root: KeyPrint,
}

impl Peer {
    /// From the chain that the verifier accepted in this handshake. It is verified again: rustls
    /// does not say by which root, and the bundle may have changed since.
    pub(crate) fn from_chain(
        chain: &[CertificateDer<'_>],
        bundle: &TrustBundle,
        now: UnixTime,
    ) -> Result<Self, InvalidPeer> {
        let (leaf, intermediates) = chain
            .split_first()
            .ok_or_else(|| InvalidLeaf::Malformed("no leaf".to_owned()))?;
        let anchors: Vec<TrustAnchor<'_>> = anchors(bundle).collect();
        let end_entity = EndEntityCert::try_from(leaf).map_err(InvalidPeer::Chain)?;
        let path = end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                intermediates,
                now,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(InvalidPeer::Chain)?;
        for intermediate in path.intermediate_certificates() {
            issuer_end(&intermediate.der())?;
        }
        Ok(Self {
            leaf: inspect_leaf(leaf)?,
            key: KeyPrint::of(&public_key_of(leaf)?),
            root: KeyPrint::of(&path.anchor().subject_public_key_info),
        })
    }

    /// Connections outlive the handshake: a root that is dropped takes with it all it vouched for.
    pub(crate) fn is_trusted_in(&self, bundle: &TrustBundle) -> bool {
        anchors(bundle).any(|anchor| KeyPrint::of(&anchor.subject_public_key_info) == self.root)
    }
}

/// The roots that webpki can use; one that it can't use leaves the others usable.
fn anchors(bundle: &TrustBundle) -> impl Iterator<Item = TrustAnchor<'_>> {
    bundle
        .authorities()
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
}

/// Why the chain of a connection proves nobody.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidPeer {
    #[error(transparent)]
    Leaf(#[from] InvalidLeaf),
    #[error("no root of the trust bundle vouches for it: {0}")]
    Chain(webpki::Error),
    #[error(transparent)]
    Issuer(#[from] IssuerMayNotSign),
}

/// What every request knows of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Where it comes from: for the audit log, never a proof.
    pub(crate) address: SocketAddr,
    /// `None`: no certificate was shown. A token may still be.
    pub(crate) peer: Option<Arc<Peer>>,
    /// True once the connection is about to be closed: long streams end.
    pub(crate) closing: watch::Receiver<bool>,
    /// Changes once the caller proved itself, by certificate or by token: the connection then may
    /// live, and its requests be, as long as a workload's need to.
    pub(crate) proved: watch::Sender<Standing>,
}

/// By what a connection is known to be a workload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    Unproved,
    /// By its certificate, at the handshake.
    Peer,
    /// By a token that opens streams: a pod's, or a reusable one.
    Workload(WorkloadName),
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
        let facts = inspect_leaf(leaf).map_err(refused)?;
        if facts.id.trust_domain() != &self.trust_domain {
            return Err(refused(InvalidCaller::TrustDomain(facts.id.to_string())));
        }
        Ok(())
    }

    fn verify_at(
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
}

fn refused(error: impl Into<InvalidCaller>) -> Error {
    let error = CertificateError::Other(OtherError(Arc::new(error.into())));
    Error::InvalidCertificate(error)
}

fn is_about_time(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::NotValidYetContext { .. } | CertificateError::ExpiredContext { .. }
    )
}

/// If a certificate is refused for its time: its first second, or its last one, in which whoever
/// signed it must have been valid too.
fn end_nearest_to_now(
    error: &CertificateError,
    leaf: &CertificateDer<'_>,
) -> Result<Option<UnixTime>, Error> {
    if !is_about_time(error) {
        return Ok(None);
    }
    let facts = inspect_leaf(leaf).map_err(refused)?;
    let end = match error {
        CertificateError::NotValidYetContext { .. } => facts.not_before,
        _ => facts.not_after,
    };
    let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH);
    Ok(Some(UnixTime::since_unix_epoch(
        since_1970.unwrap_or_default(),
    )))
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
        let verified = self.verify_at(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(only_the_clock)) = &verified else {
            return verified;
        };
        // Anybody can make a certificate that is over: the clocks are spoken of only if nothing
        // else is wrong with it.
        if let Some(end) = end_nearest_to_now(only_the_clock, end_entity)?
            && let Err(error) = self.verify_at(end_entity, intermediates, end)
        {
            return Err(match error {
                // no time is right for it: nobody vouches for it
                Error::InvalidCertificate(error) if is_about_time(&error) => {
                    Error::InvalidCertificate(CertificateError::UnknownIssuer)
                }
                error => error,
            });
        }
        verified
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
