//! Puts the parts together, serves until told to end, and ends in order.

use std::{fs::File, future::Future, io, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc};

use mesh_lite_proto::document::Dialect;
use rustls::crypto::aws_lc_rs;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinSet},
};
use tonic::service::Routes;

use crate::{
    admin::Admin,
    certificate_authority::{
        CertificateAuthority, authority_watch,
        expiry_warnings::root_facts,
        key_store::{DataDirectory, KeyStoreError},
        rotation::{Rotation, RotationError, Trust},
    },
    clock::{self, Clock, readable},
    cluster::{self, ClusterError},
    condition::Conditions,
    gauges::keep_gauges,
    grpc::{self, Sources, connection::Ending, listener::Listener},
    issuance::Issuance,
    listening::listen,
    metrics::Metrics,
    open_files,
    outbound_rules::OutboundRules,
    policy_index::PolicyIndex,
    serving_identity::{Served, ServingError, ServingIdentity},
    settings::{Checked, DocumentSource, InvalidSettings, Settings},
    source::{
        claimable_addresses::ClaimableAddresses,
        directory_of_files::{DirectoryError, DirectoryOfFiles, Published},
    },
    workload_attestation::{Attestation, join_token::JoinTokens},
    workload_index::WorkloadIndex,
};

mod in_cluster;

use in_cluster::{Facts, InCluster};

/// Where the control plane listens, known once it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub grpc: SocketAddr,
    pub admin: SocketAddr,
}

/// Runs the control plane until `shutdown` completes: then GOAWAY, streams end, and it returns.
/// `bound` is called once both listeners are open.
///
/// # Errors
/// If it can't start, in words that say what to do.
pub async fn run(
    settings: Settings,
    shutdown: impl Future<Output = ()>,
    bound: impl FnOnce(Bound),
) -> Result<(), RunError> {
    run_by_clock(settings, clock::now, shutdown, bound).await
}

/// As [`run`], by another clock than the one on the wall.
///
/// # Errors
/// As [`run`].
pub async fn run_by_clock(
    settings: Settings,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
    bound: impl FnOnce(Bound),
) -> Result<(), RunError> {
    let checked = settings.check()?;
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    let data = DataDirectory::new(checked.settings.data_dir.clone());
    // held to the end: two control planes on one directory could redeem one token twice
    let _lock: Option<File> = match &checked.settings.documents {
        DocumentSource::Directory(_) => Some(own(&data)?),
        // read only, and what replicas share is in the API server
        DocumentSource::Kubernetes { .. } => None,
    };
    let parts = Parts::load(checked, data, clock).await?;
    let settings = parts.settings.clone();
    let (admin, admin_address) = listen(settings.admin_listen)
        .await
        .map_err(RunError::listen("--admin-listen", settings.admin_listen))?;

    let (end, ending) = watch::channel(Ending::NotYet);
    let serves = watch::Sender::new(false);
    // dropped, it ends its tasks
    let mut tasks = JoinSet::new();
    let mut started = parts.start(&mut tasks, admin, &serves, ending);
    let mut shutdown = pin!(shutdown);
    tokio::select! {
        () = &mut shutdown => return Ok(()),
        ended = tasks.join_next() => return Err(RunError::ended("a background task", ended)),
        // its sender gone is a task that ended
        Ok(_) = started.known.wait_for(|known| *known) => {}
    }
    let routes = grpc::routes(started.sources.clone()).await?;
    let (grpc, grpc_address) = listen(settings.listen)
        .await
        .map_err(RunError::listen("--listen", settings.listen))?;
    let addresses = Bound {
        grpc: grpc_address,
        admin: admin_address,
    };
    started.announce(&settings, addresses);
    let mut serving = JoinSet::new();
    serving.spawn(started.listener(grpc, routes).run());
    serves.send_replace(true);
    bound(addresses);
    tokio::select! {
        () = shutdown => {}
        ended = serving.join_next() => return Err(RunError::ended("the listener", ended)),
        ended = tasks.join_next() => return Err(RunError::ended("a background task", ended)),
    }
    tracing::info!("ending: streams are told to come back elsewhere");
    end.send_replace(Ending::Now);
    match serving.join_next().await {
        Some(Err(error)) => Err(RunError::ended("the listener", Some(Err(error)))),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Makes the directory ours, for as long as the answer is held.
fn own(data: &DataDirectory) -> Result<File, KeyStoreError> {
    let lock = data.lock()?;
    data.create()?;
    Ok(lock)
}

/// All that is read and made before a listener opens.
struct Parts {
    settings: Settings,
    data: DataDirectory,
    rotation: Rotation,
    trust: watch::Sender<Arc<Trust>>,
    documents: Documents,
    identity: ServingIdentity,
    served: Served,
    sources: Sources,
    conditions: Conditions,
}

/// Where workloads, services and policy come from.
enum Documents {
    Directory(Box<DirectoryOfFiles>),
    Kubernetes(Box<InCluster>),
}

impl Documents {
    /// And what else depends on where they come from: the rules for what leaves the mesh, and by
    /// what workloads are attested.
    async fn open(
        settings: &Settings,
        published: Published,
        facts: Facts,
        clock: Clock,
    ) -> Result<(Self, watch::Receiver<Arc<OutboundRules>>, Attestation), RunError> {
        match &settings.documents {
            DocumentSource::Directory(directory) => {
                let directory = read_directory(directory.clone(), settings, published)?;
                let outbound = watch::Sender::new(Arc::new(settings.outbound.clone())).subscribe();
                let documents = Self::Directory(Box::new(directory));
                Ok((documents, outbound, Attestation::JoinTokens))
            }
            DocumentSource::Kubernetes { kubeconfig } => {
                let client = cluster::connect(kubeconfig.as_deref()).await?;
                let parts = InCluster::new(client, settings, published, facts, clock);
                let (outbound, attestation) = (parts.outbound(), parts.attestation());
                Ok((Self::Kubernetes(Box::new(parts)), outbound, attestation))
            }
        }
    }
}

impl Parts {
    async fn load(checked: Checked, data: DataDirectory, clock: Clock) -> Result<Self, RunError> {
        let (settings, own_id) = (checked.settings, checked.own_id);
        let (metrics, conditions) = (Metrics::new(), Conditions::new());
        let found = authority_watch::read(&data, &settings.trust_domain)?;
        let rotation = Rotation::start(found, settings.leaf_lifetime, clock())?;
        let (trust, trust_seen) = watch::channel(rotation.trust());
        let authority = CertificateAuthority::new(trust_seen.clone(), settings.leaf_lifetime);

        let published = nothing_yet(&settings, &conditions, clock);
        let workloads = published.workloads.subscribe();
        let policies = published.policies.subscribe();
        let facts = Facts {
            workloads: workloads.clone(),
            policies: policies.clone(),
            trust: trust_seen,
            authority: authority.clone(),
            metrics: metrics.clone(),
            conditions: conditions.clone(),
        };
        let (documents, outbound, attestation) =
            Documents::open(&settings, published, facts, clock).await?;

        let identity = ServingIdentity {
            id: own_id,
            authority: authority.clone(),
            provider: Arc::new(aws_lc_rs::default_provider()),
            metrics: metrics.clone(),
            clock,
        };
        let served = identity.make(&rotation.trust())?;
        let issuance = Issuance::new(
            authority.clone(),
            JoinTokens::new(data.join_tokens()),
            workloads.clone(),
            policies.clone(),
        );
        let sources = Sources {
            attestation,
            authority,
            issuance: Arc::new(issuance),
            workloads,
            policies,
            outbound,
            allow_remote_keys: settings.allow_remote_keys,
            metrics,
            clock,
        };
        Ok(Self {
            settings,
            data,
            rotation,
            trust,
            documents,
            identity,
            served,
            sources,
            conditions,
        })
    }

    /// Starts everything but the gRPC listener, which opens once there is something to say.
    fn start(
        self,
        tasks: &mut JoinSet<()>,
        admin: TcpListener,
        serves: &watch::Sender<bool>,
        ending: watch::Receiver<Ending>,
    ) -> Started {
        let (metrics, conditions) = (self.sources.metrics.clone(), self.conditions);
        let (tls, tls_seen) = watch::channel(Arc::clone(&self.served.config));
        tasks.spawn(keep_gauges(
            metrics.clone(),
            conditions.clone(),
            self.sources.clock,
            self.sources.authority.watch(),
            self.sources.workloads.clone(),
        ));
        tasks.spawn(authority_watch::run(
            self.data,
            self.settings.trust_domain,
            self.rotation,
            self.trust,
            conditions.clone(),
            self.sources.clock,
        ));
        let known = match self.documents {
            Documents::Directory(directory) => {
                tasks.spawn(directory.follow());
                watch::Sender::new(true).subscribe()
            }
            Documents::Kubernetes(parts) => parts.start(tasks),
        };
        tasks.spawn(self.identity.keep(self.served, tls));
        let serve_admin = Admin {
            metrics,
            conditions,
            serves: serves.subscribe(),
            ending: ending.clone(),
        };
        tasks.spawn(serve_admin.run(admin));
        Started {
            sources: self.sources,
            tls: tls_seen,
            known,
            ending,
        }
    }
}

/// What the gRPC listener is made of.
struct Started {
    sources: Sources,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// True once there is something to say.
    known: watch::Receiver<bool>,
    ending: watch::Receiver<Ending>,
}

impl Started {
    fn announce(&self, settings: &Settings, bound: Bound) {
        let trust = self.sources.authority.trust();
        let facts = trust.authority.facts();
        tracing::info!(
            trust_domain = %settings.trust_domain,
            issuing_ca = facts.key_id,
            issuing_ca_until = %readable(facts.not_after),
            roots = trust.bundle.authorities().len(),
            root = root_facts(&trust).map(|root| root.key_id),
            root_until = root_facts(&trust).map(|root| readable(root.not_after)),
            leaf_lifetime = ?settings.leaf_lifetime,
            "certificates"
        );
        authority_watch::warn_of_unusual(&trust);
        let config_dir = match &settings.documents {
            DocumentSource::Directory(directory) => Some(directory.display()),
            DocumentSource::Kubernetes { .. } => None,
        };
        tracing::info!(
            grpc = %bound.grpc,
            admin = %bound.admin,
            config_dir = config_dir.map(tracing::field::display),
            data_dir = %settings.data_dir.display(),
            workloads = self.sources.workloads.borrow().workloads().count(),
            "control plane serves"
        );
    }

    fn listener(self, socket: TcpListener, routes: Routes) -> Listener {
        Listener {
            socket,
            tls: self.tls,
            trust: self.sources.authority.watch(),
            clock: self.sources.clock,
            routes,
            metrics: self.sources.metrics,
            ending: self.ending,
            max_connections: open_files::max_connections(open_files::raise()),
        }
    }
}

fn read_directory(
    directory: PathBuf,
    settings: &Settings,
    published: Published,
) -> Result<DirectoryOfFiles, DirectoryError> {
    let claimable = ClaimableAddresses::new(&settings.mesh_namespace, &settings.outbound);
    let dialect = Dialect::of_setting(settings.istio_root_namespace.as_deref());
    let trust_domain = settings.trust_domain.clone();
    let mut directory =
        DirectoryOfFiles::new(directory, trust_domain, dialect, claimable, published);
    directory.read()?;
    Ok(directory)
}

/// The facts before the first document was read. Revisions begin at the time, so that they also
/// grow over a restart.
fn nothing_yet(settings: &Settings, conditions: &Conditions, clock: Clock) -> Published {
    let workloads = WorkloadIndex::beginning_at(clock::unix_millis(clock()));
    let policies = PolicyIndex::new(
        settings.trust_domain.clone(),
        &settings.mesh_namespace,
        settings.shipped,
    );
    Published {
        workloads: watch::Sender::new(Arc::new(workloads)),
        policies: watch::Sender::new(policies),
        conditions: conditions.clone(),
    }
}

/// Why the control plane did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    #[error(
        "there is no issuing CA or trust bundle yet ({0}): run `mesh-lite root init` with the same --data-dir"
    )]
    NoMesh(KeyStoreError),
    #[error(transparent)]
    Store(KeyStoreError),
    #[error("the issuing CA can't be used: {0}")]
    Authority(#[from] RotationError),
    #[error(transparent)]
    Documents(#[from] DirectoryError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error("gRPC reflection can't be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("can't listen on {flag} {address}: {error}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
    #[error("{what} ended by itself: {error:?}")]
    Ended {
        what: &'static str,
        error: Option<JoinError>,
    },
}

impl From<KeyStoreError> for RunError {
    fn from(error: KeyStoreError) -> Self {
        if error.is_not_found() {
            Self::NoMesh(error)
        } else {
            Self::Store(error)
        }
    }
}

impl RunError {
    fn listen(flag: &'static str, address: SocketAddr) -> impl Fn(io::Error) -> Self {
        move |error| Self::Listen {
            flag,
            address,
            error,
        }
    }

    fn ended(what: &'static str, ended: Option<Result<(), JoinError>>) -> Self {
        Self::Ended {
            what,
            error: ended.and_then(Result::err),
        }
    }
}
