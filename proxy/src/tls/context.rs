//! TLS material, built anew from each identity and published in one send: a connection sees
//! either all of the old or all of the new.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_lite_proto::{identity::WorkloadId, trust_bundle::TrustBundle, tunnel};
use rustls::{
    ClientConfig, Error as TlsError, ServerConfig,
    client::{ResolvesClientCert, Resumption},
    crypto::aws_lc_rs::sign::any_supported_type,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};

use super::{
    peer_verifier::{AnyPeer, ExactPeer, PeerVerifier, UnusableRoot},
    provider::provider,
};
use crate::identity::Identity;

/// Expected identities of servers that this pod talks to; each costs one small configuration.
const MAX_CLIENT_CONFIGS: usize = 4096;

/// Everything a handshake needs, of one identity.
pub struct TlsContext {
    identity: Arc<Identity>,
    verifier: Arc<PeerVerifier>,
    certified_key: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<WorkloadId, Arc<ClientConfig>>>,
}

impl TlsContext {
    /// `before` lends its verifier, with the chains it knows, if the trust bundle is the same.
    ///
    /// # Errors
    /// If the key is not the leaf's, or a root can't be used.
    pub fn build(identity: Arc<Identity>, before: Option<&Self>) -> Result<Self, UnusableIdentity> {
        let verifier = match before {
            Some(before) if before.identity.trust_bundle == identity.trust_bundle => {
                Arc::clone(&before.verifier)
            }
            _ => Arc::new(PeerVerifier::new(Arc::clone(&identity.trust_bundle))?),
        };
        let certified_key = certified_key(&identity)?;
        let server = server_config(
            &verifier,
            Arc::new(OneKey(Arc::clone(&certified_key))),
            tunnel::ALPN,
        )?;
        Ok(Self {
            identity,
            verifier,
            certified_key,
            server,
            clients: Mutex::default(),
        })
    }

    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub fn verifier(&self) -> &Arc<PeerVerifier> {
        &self.verifier
    }

    pub(super) fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    /// The configuration for dialling exactly `expected`.
    pub(super) fn client(&self, expected: &WorkloadId) -> Result<Arc<ClientConfig>, TlsError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Ok(Arc::clone(config));
        }
        let key = Some(Arc::clone(&self.certified_key));
        let config = build_client(&self.verifier, key, expected, tunnel::ALPN)?;
        if clients.len() >= MAX_CLIENT_CONFIGS {
            clients.clear();
        }
        clients.insert(expected.clone(), Arc::clone(&config));
        Ok(config)
    }
}

/// A client configuration for one exact server, outside the data path: the control plane's.
///
/// # Errors
/// If the identity or the trust bundle can't be used.
pub fn client_config(
    trust_bundle: &Arc<TrustBundle>,
    identity: Option<&Identity>,
    expected: &WorkloadId,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, UnusableIdentity> {
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(trust_bundle))?);
    let key = identity.map(certified_key).transpose()?;
    Ok(build_client(&verifier, key, expected, alpn)?)
}

fn certified_key(identity: &Identity) -> Result<Arc<CertifiedKey>, UnusableIdentity> {
    // from where it lies: the provider's own way would leave a copy that nobody wipes
    let key = any_supported_type(&identity.key.as_der())?;
    let certified_key = CertifiedKey::new(identity.chain.clone(), key);
    certified_key.keys_match()?;
    Ok(Arc::new(certified_key))
}

fn server_config(
    verifier: &Arc<PeerVerifier>,
    key: Arc<OneKey>,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyPeer(Arc::clone(verifier))))
        .with_cert_resolver(key);
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would skip the verifier, and with it a trust bundle that has changed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn build_client(
    verifier: &Arc<PeerVerifier>,
    key: Option<Arc<CertifiedKey>>,
    expected: &WorkloadId,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ExactPeer {
            verifier: Arc::clone(verifier),
            expected: expected.clone(),
        }));
    let mut config = match key {
        Some(key) => builder.with_client_cert_resolver(Arc::new(OneKey(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct OneKey(Arc<CertifiedKey>);

impl ResolvesServerCert for OneKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl ResolvesClientCert for OneKey {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableIdentity {
    #[error(transparent)]
    Root(#[from] UnusableRoot),
    #[error("the identity's key and certificate can't be used for TLS: {0}")]
    Tls(#[from] TlsError),
}
