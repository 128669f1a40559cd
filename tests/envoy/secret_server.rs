//! The SDS service of `proto` on a Unix socket, over secrets that the test changes as it likes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mesh_lite_proto::secret_discovery::service::{
    SecretEvent, SecretService, SecretSource, SecretSources, answer_once,
};
use mesh_lite_proto::secret_discovery::{
    ALL_BUNDLES, BundleForm, OWN_BUNDLE, Secrets, VersionedSecret, bundle_secret, svid_secret,
};
use mesh_lite_proto::trust_bundle::TrustBundle;
use mesh_lite_proto::wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use mesh_lite_test_support::certificates::{Authority, Credential};
use mesh_lite_test_support::eventually;
use spiffe::TrustDomain;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Request, Status};

/// What the server has, and what clients made of it.
pub(crate) struct SecretServer {
    secrets: watch::Sender<Arc<Kept>>,
    seen: Arc<Mutex<Seen>>,
    socket: PathBuf,
    /// Dropped last: the server runs in it.
    _runtime: Runtime,
}

/// All secrets at one time.
#[derive(Default)]
struct Kept {
    svids: BTreeMap<String, VersionedSecret>,
    /// The first one is of our own trust domain.
    bundles: Vec<TrustBundle>,
}

/// What clients told.
#[derive(Debug, Default)]
struct Seen {
    /// Over all streams.
    requests: usize,
    /// Acknowledgements by version.
    accepted: BTreeMap<String, usize>,
    rejected: Vec<String>,
    unknown: Vec<String>,
}

impl SecretServer {
    pub(crate) fn start(directory: &Path) -> Self {
        let socket = directory.join("secrets.sock");
        let (secrets, kept) = watch::channel(Arc::default());
        let seen = Arc::<Mutex<Seen>>::default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _in_runtime = runtime.enter();
            UnixListener::bind(&socket).unwrap()
        };
        let service = SecretService::new(Sources {
            kept,
            seen: Arc::clone(&seen),
        });
        runtime.spawn(
            Server::builder()
                .add_service(service.secret_discovery())
                .add_service(service.aggregated_discovery())
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self {
            secrets,
            seen,
            socket,
            _runtime: runtime,
        }
    }

    pub(crate) fn socket(&self) -> &str {
        self.socket.to_str().unwrap()
    }

    /// From now on `name` is this SVID; its version.
    pub(crate) fn set_svid(&self, name: &str, credential: &Credential) -> String {
        self.set_pair(name, &credential.chain_pem, &credential.key_pem())
    }

    /// A certificate with the key of another one, which no server should send.
    pub(crate) fn set_mismatched(&self, name: &str, chain: &Credential, key: &Credential) {
        self.set_pair(name, &chain.chain_pem, &key.key_pem());
    }

    fn set_pair(&self, name: &str, chain_pem: &str, key_pem: &str) -> String {
        let secret = svid_secret(name, chain_pem, &key_pem.to_owned().into());
        let version = secret.version.clone();
        self.change(|kept| {
            kept.svids.insert(name.to_owned(), secret);
        });
        version
    }

    /// From now on these roots are trusted, per trust domain, ours first.
    pub(crate) fn set_bundles(&self, bundles: &[(&str, &[&Authority])]) {
        let bundles = bundles.iter().map(|(domain, roots)| {
            let roots = roots.iter().map(|root| root.certificate.clone());
            TrustBundle::new(TrustDomain::new(domain).unwrap(), roots.collect()).unwrap()
        });
        let bundles = bundles.collect();
        self.change(|kept| kept.bundles = bundles);
    }

    fn change(&self, change: impl FnOnce(&mut Kept)) {
        self.secrets.send_modify(|kept| {
            let mut next = Kept {
                svids: kept.svids.clone(),
                bundles: kept.bundles.clone(),
            };
            change(&mut next);
            *kept = Arc::new(next);
        });
    }

    /// The version under which a client has a bundle that it asked for in this form.
    pub(crate) fn bundle_version(&self, name: &str, form: BundleForm) -> String {
        self.secrets.borrow().secret(name, form).unwrap().version
    }

    /// Waits until a version was acknowledged on this many streams.
    pub(crate) fn wait_accepted(&self, version: &str, streams: usize) {
        eventually(&format!("{streams} streams took {version}"), || {
            let seen = self.seen.lock().unwrap();
            match seen.accepted.get(version) {
                Some(taken) if *taken >= streams => Ok(()),
                _ => Err(format!("{seen:?}")),
            }
        });
    }

    pub(crate) fn wait_unknown(&self, name: &str) {
        eventually(&format!("somebody asks for {name}"), || {
            let unknown = self.seen.lock().unwrap().unknown.clone();
            if unknown.iter().any(|asked| asked == name) {
                Ok(())
            } else {
                Err(unknown)
            }
        });
    }

    /// How often clients have asked or answered.
    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().requests
    }

    /// What clients refused, in their words.
    pub(crate) fn rejections(&self) -> Vec<String> {
        self.seen.lock().unwrap().rejected.clone()
    }
}

impl Secrets for Kept {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        if let Some(svid) = self.svids.get(name) {
            return Some(svid.clone());
        }
        let asked: Vec<&TrustBundle> = match name {
            OWN_BUNDLE => self.bundles.iter().take(1).collect(),
            ALL_BUNDLES => self.bundles.iter().collect(),
            _ => {
                let named = self
                    .bundles
                    .iter()
                    .filter(|bundle| name.strip_prefix("spiffe://") == Some(domain_of(bundle)));
                named.collect()
            }
        };
        (!asked.is_empty()).then(|| VersionedSecret::new(bundle_secret(name, &asked, form)))
    }
}

fn domain_of(bundle: &TrustBundle) -> &str {
    bundle.trust_domain().as_ref()
}

struct Sources {
    kept: watch::Receiver<Arc<Kept>>,
    seen: Arc<Mutex<Seen>>,
}

/// One stream's view of the same secrets.
struct Source {
    kept: watch::Receiver<Arc<Kept>>,
    seen: Arc<Mutex<Seen>>,
}

impl SecretSources for Sources {
    type Source = Source;

    async fn open(&self, _opening: Request<()>) -> Result<Source, Status> {
        Ok(Source {
            kept: self.kept.clone(),
            seen: Arc::clone(&self.seen),
        })
    }

    async fn fetch(&self, request: Request<DiscoveryRequest>) -> Result<DiscoveryResponse, Status> {
        let kept = Arc::clone(&self.kept.borrow());
        answer_once(&*kept, request.get_ref()).ok_or_else(|| Status::not_found("no such secret"))
    }
}

impl Secrets for Source {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        self.kept.borrow().secret(name, form)
    }
}

impl SecretSource for Source {
    fn wanted(&mut self, _names: &[&str]) {
        self.seen.lock().unwrap().requests += 1;
    }

    fn check(&mut self) -> Result<(), Status> {
        Ok(())
    }

    async fn changed(&mut self) {
        if self.kept.changed().await.is_err() {
            std::future::pending().await
        }
    }

    fn observe(&mut self, event: SecretEvent<'_>) {
        let mut seen = self.seen.lock().unwrap();
        match event {
            SecretEvent::Accepted(secrets) => {
                for secret in secrets {
                    *seen.accepted.entry(secret.version.clone()).or_default() += 1;
                }
            }
            SecretEvent::Rejected { rejection, .. } => {
                seen.rejected.push(rejection.message.clone());
            }
            SecretEvent::Unknown(name) => seen.unknown.push(name.to_owned()),
        }
    }
}
