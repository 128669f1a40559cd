//! Who a peer is: its chain against the trust bundle, its leaf against X509-SVID §5.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::WorkloadId,
    svid::{
        ChainTooLong, InvalidLeaf, IssuerMayNotSign, MAX_CHAIN, check_chain_size, inspect_leaf,
        issuer_end,
    },
    trust_bundle::TrustBundle,
};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    chain_cache::{ChainCache, Key},
    peer_identity::{PeerIdentity, Role},
    provider::provider,
};

/// Verifies peers of one trust domain, for as long as its bundle stays as it is.
pub struct PeerVerifier {
    bundle: Arc<TrustBundle>,
    roots: Vec<TrustAnchor<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
    verified: ChainCache,
}

impl PeerVerifier {
    /// # Errors
    /// If an authority of the bundle can't be a trust anchor; the sentence says which.
    pub fn new(bundle: Arc<TrustBundle>) -> Result<Self, UnusableRoot> {
        let roots = bundle
            .authorities()
            .iter()
            .enumerate()
            .map(|(index, authority)| {
                anchor_from_trusted_cert(authority)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|reason| UnusableRoot {
                        index: index.saturating_add(1),
                        reason,
                    })
            })
            .collect::<Result<_, _>>()?;
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self {
            bundle,
            roots,
            algorithms,
            verified: ChainCache::default(),
        })
    }

    pub fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// Whether the root that a peer was proved by is still trusted.
    pub fn trusts_root_of(&self, peer: &PeerIdentity) -> bool {
        self.roots
            .iter()
            .any(|root| root.subject_public_key_info.as_ref() == peer.root())
    }

    /// Who the holder of `chain` (leaf first) is. Cheap for a chain that was verified before.
    ///
    /// # Errors
    /// Names the first reason to refuse.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<Arc<PeerIdentity>, PeerRefused> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        check_chain_size(chain)?;
        let key = Key::of(role, chain);
        if let Some(peer) = self.verified.find(&key, time) {
            return Ok(peer);
        }
        let peer = Arc::new(self.verify_afresh(chain, role, now)?);
        self.verified.insert(key, Arc::clone(&peer), time);
        Ok(peer)
    }

    fn verify_afresh(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<PeerIdentity, PeerRefused> {
        let (leaf, intermediates) = chain.split_first().ok_or(PeerRefused::NoCertificate)?;
        let facts = inspect_leaf(leaf)?;
        if facts.id.trust_domain() != self.bundle.trust_domain() {
            return Err(PeerRefused::ForeignTrustDomain(facts.id));
        }
        let end_entity = EndEntityCert::try_from(leaf).map_err(PeerRefused::Chain)?;
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let path = end_entity
            .verify_for_usage(
                self.algorithms.all,
                &self.roots,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(PeerRefused::Chain)?;
        let mut chain_ends = facts.not_after;
        for intermediate in path.intermediate_certificates() {
            chain_ends = chain_ends.min(issuer_end(&intermediate.der())?);
        }
        let root = path.anchor().subject_public_key_info.as_ref().into();
        Ok(PeerIdentity::new(facts, root, chain_ends))
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerVerifier")
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("authority {index} of the trust bundle can't be used as a root: {reason}")]
pub struct UnusableRoot {
    index: usize,
    reason: webpki::Error,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerRefused {
    #[error("the peer sent no certificate")]
    NoCertificate,
    #[error("the peer's {0}")]
    ChainTooLong(#[from] ChainTooLong),
    #[error("the peer's leaf is not an X509-SVID: {0}")]
    Leaf(#[from] InvalidLeaf),
    #[error("the peer is {0}, of a trust domain whose bundle we don't have")]
    ForeignTrustDomain(WorkloadId),
    #[error("the peer's chain does not hold: {0}")]
    Chain(webpki::Error),
    #[error(transparent)]
    Issuer(#[from] IssuerMayNotSign),
    #[error("the peer is {found}, not {expected}, who must answer there")]
    NotTheExpected {
        found: WorkloadId,
        expected: WorkloadId,
    },
}

impl From<PeerRefused> for TlsError {
    fn from(refused: PeerRefused) -> Self {
        let error = match &refused {
            PeerRefused::Chain(webpki::Error::CertExpired { time, not_after }) => {
                CertificateError::ExpiredContext {
                    time: *time,
                    not_after: *not_after,
                }
            }
            PeerRefused::Chain(webpki::Error::CertNotValidYet { time, not_before }) => {
                CertificateError::NotValidYetContext {
                    time: *time,
                    not_before: *not_before,
                }
            }
            PeerRefused::Chain(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            _ => CertificateError::Other(OtherError(Arc::new(refused))),
        };
        Self::InvalidCertificate(error)
    }
}

/// Lets in any client of the trust domain: policy decides what it may do.
#[derive(Debug)]
pub(super) struct AnyPeer(pub(super) Arc<PeerVerifier>);

/// Takes one exact server, so that our certificate is not even shown to another.
#[derive(Debug)]
pub(super) struct ExactPeer {
    pub(super) verifier: Arc<PeerVerifier>,
    pub(super) expected: WorkloadId,
}

fn whole_chain<'a>(
    leaf: &CertificateDer<'a>,
    intermediates: &[CertificateDer<'a>],
) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf)
        .chain(intermediates)
        .take(MAX_CHAIN + 1)
        .cloned()
        .collect()
}

impl ServerCertVerifier for ExactPeer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let peer = self
            .verifier
            .verify(&whole_chain(leaf, intermediates), Role::Server, now)?;
        if *peer.id() == self.expected {
            return Ok(ServerCertVerified::assertion());
        }
        let found = peer.id().clone();
        Err(PeerRefused::NotTheExpected {
            found,
            expected: self.expected.clone(),
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.verifier.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.verifier.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AnyPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        self.0
            .verify(&whole_chain(leaf, intermediates), Role::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
