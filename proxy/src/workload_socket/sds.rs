//! The SDS API over what the socket hands out.

use std::sync::Arc;

use mesh_lite_proto::{
    secret_discovery::{
        BundleForm, Secrets, ToldRejections, VersionedSecret,
        service::{SecretEvent, SecretSource, SecretSources, answer_once},
    },
    wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};
use tokio::sync::watch;
use tonic::{Request, Status};

use super::{connection::LocalCaller, served::Served};
use crate::{
    clock::Clock,
    metrics::{LocalSecret, Metrics, OpenStream},
};

pub(super) struct LocalSources {
    served: watch::Receiver<Arc<Served>>,
    metrics: Metrics,
    clock: Clock,
}

impl LocalSources {
    pub(super) fn new(
        served: watch::Receiver<Arc<Served>>,
        metrics: &Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            served,
            metrics: metrics.clone(),
            clock,
        }
    }
}

impl SecretSources for LocalSources {
    type Source = LocalSecrets;

    async fn open(&self, opening: Request<()>) -> Result<LocalSecrets, Status> {
        let caller = caller_of(&opening)?;
        Ok(LocalSecrets {
            served: self.served.clone(),
            caller,
            metrics: self.metrics.clone(),
            clock: self.clock,
            told_rejections: ToldRejections::default(),
            _open: self.metrics.socket_stream(),
        })
    }

    async fn fetch(&self, request: Request<DiscoveryRequest>) -> Result<DiscoveryResponse, Status> {
        caller_of(&request)?;
        let request = request.get_ref();
        let now = Now {
            served: Arc::clone(&self.served.borrow()),
            clock: self.clock,
        };
        answer_once(&now, request).ok_or_else(|| {
            self.metrics
                .local_secrets(LocalSecret::Unknown, request.resource_names.len().max(1));
            Status::not_found(
                "there is none of these secrets now. \"default\" and the own SPIFFE ID are there once the sidecar \
                 has its certificate (`mesh-lite identity` says why not); ROOTCA, ALL and spiffe://TRUST-DOMAIN are \
                 bundles",
            )
        })
    }
}

/// The connection a request came on. Every connection of ours has one.
fn caller_of<T>(request: &Request<T>) -> Result<LocalCaller, Status> {
    request
        .extensions()
        .get::<LocalCaller>()
        .cloned()
        .ok_or_else(|| Status::internal("a request came without its connection"))
}

/// What is served at one moment.
struct Now {
    served: Arc<Served>,
    clock: Clock,
}

impl Secrets for Now {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        self.served.secret(name, form, (self.clock)())
    }
}

/// The secrets of one stream.
pub(super) struct LocalSecrets {
    served: watch::Receiver<Arc<Served>>,
    caller: LocalCaller,
    metrics: Metrics,
    clock: Clock,
    told_rejections: ToldRejections,
    _open: OpenStream,
}

impl Secrets for LocalSecrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        self.served.borrow().secret(name, form, (self.clock)())
    }
}

impl SecretSource for LocalSecrets {
    fn wanted(&mut self, _names: &[&str]) {
        // all there is was made when the identity came
    }

    fn check(&mut self) -> Result<(), Status> {
        let closing = &self.caller.opened_by.closing;
        if *closing.borrow() || closing.has_changed().is_err() {
            return Err(Status::unavailable("the sidecar ends: come back later"));
        }
        Ok(())
    }

    async fn changed(&mut self) {
        let served = async {
            // the identity's owner is gone: nothing changes any more
            if self.served.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = served => {}
            _ = self.caller.opened_by.closing.changed() => {}
        }
    }

    fn observe(&mut self, event: SecretEvent<'_>) {
        match event {
            SecretEvent::Accepted(secrets) => self
                .metrics
                .local_secrets(LocalSecret::Accepted, secrets.len()),
            SecretEvent::Rejected { rejection, pair } => {
                self.metrics
                    .local_secrets(LocalSecret::Rejected, rejection.secrets.len());
                // the metric counts them all
                if self.told_rejections.is_new(rejection) {
                    tracing::warn!(
                        uid = self.caller.opened_by.uid,
                        pid = self.caller.opened_by.pid,
                        secrets = ?rejection.secrets,
                        ?pair,
                        message = ?rejection.message,
                        "secrets rejected at the workload socket: the client keeps the last good ones"
                    );
                }
            }
            SecretEvent::Unknown(name) => {
                self.metrics.local_secrets(LocalSecret::Unknown, 1);
                tracing::debug!(uid = self.caller.opened_by.uid, name, "no such secret now");
            }
        }
    }
}
