//! The control plane's own X509-SVID and TLS configuration: issued by its own issuing CA, kept
//! in memory, renewed at half of its life and whenever the trust changes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::{InvalidWorkloadId, WorkloadId},
    sidecar,
};
use rcgen::{KeyPair, PublicKeyData};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use spiffe::TrustDomain;
use tokio::{sync::watch, time};

use crate::{
    caller::CallerVerifier,
    certificate_authority::{
        CertificateAuthority, IssueError, certificate_request::PublicKey, rotation::Trust,
    },
    clock::{Clock, unix_seconds},
    metrics::{CertificateKind, Metrics},
};

/// After a failure, which only a broken issuing CA can cause.
const RETRY: Duration = Duration::from_secs(5);
/// A timer stands still while the machine sleeps; the clock on the wall does not.
const LOOK_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct ServingIdentity {
    pub(crate) id: WorkloadId,
    pub(crate) authority: CertificateAuthority,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
}

/// One configuration and when to make the next.
pub(crate) struct Served {
    pub(crate) config: Arc<ServerConfig>,
    renew_at: SystemTime,
}

/// The clock that callers' certificates are judged by.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = Duration::from_secs(unix_seconds((self.0)()));
        Some(UnixTime::since_unix_epoch(since))
    }
}

pub(crate) fn control_plane_id(
    trust_domain: &TrustDomain,
    mesh_namespace: &str,
) -> Result<WorkloadId, InvalidWorkloadId> {
    WorkloadId::new(
        trust_domain,
        mesh_namespace,
        sidecar::CONTROL_PLANE_SERVICE_ACCOUNT,
    )
}

impl ServingIdentity {
    /// A new key, a new leaf, a whole new configuration: what was resumable under the old trust
    /// is not under the new one.
    pub(crate) fn make(&self, trust: &Trust) -> Result<Served, ServingError> {
        let now: SystemTime = (self.clock)();
        let key = KeyPair::generate().map_err(IssueError::from)?;
        let public_key = PublicKey::from_der(&key.subject_public_key_info())
            .map_err(|_| ServingError::OwnKey)?;
        let name = sidecar::CONTROL_PLANE_SERVICE_ACCOUNT.to_owned();
        let svid = self
            .authority
            .issue(self.id.clone(), Some(name), public_key, now)?;
        self.metrics
            .expiry(CertificateKind::Serving, svid.facts.not_after);
        let left = svid.facts.not_after.duration_since(now).unwrap_or_default();
        let renew_at = now.checked_add(left / 2).unwrap_or(now);
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::from_der(svid.chain, private, &self.provider)?;
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certified));
        let verifier = CallerVerifier::new(&trust.bundle, Arc::clone(&self.provider))?;
        let time = Arc::new(ByClock(self.clock));
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        // a resumed session would skip the verifier
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Served {
            config: Arc::new(config),
            renew_at,
        })
    }

    /// Runs until nobody listens any more.
    pub(crate) async fn keep(
        self,
        mut served: Served,
        published: watch::Sender<Arc<ServerConfig>>,
    ) {
        let mut trust = self.authority.watch();
        loop {
            let now = (self.clock)();
            let left = served.renew_at.duration_since(now).unwrap_or_default();
            tokio::select! {
                () = time::sleep(left.min(LOOK_EVERY)) => {
                    if (self.clock)() < served.renew_at {
                        continue;
                    }
                }
                changed = trust.changed() => if changed.is_err() { return },
                () = published.closed() => return,
            }
            let current = Arc::clone(&trust.borrow_and_update());
            match self.make(&current) {
                Ok(next) => {
                    published.send_replace(Arc::clone(&next.config));
                    served = next;
                }
                Err(error) => {
                    tracing::error!(%error, "the control plane's own certificate can't be renewed");
                    served.renew_at = (self.clock)().checked_add(RETRY).unwrap_or(now);
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServingError {
    #[error("the control plane can't certify itself: {0}")]
    Issue(#[from] IssueError),
    #[error("the control plane's own key is of a kind that it does not certify")]
    OwnKey,
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("callers' certificates can't be verified with this trust bundle: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
