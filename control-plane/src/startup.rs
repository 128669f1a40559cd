//! Puts the parts together, serves until told to end, and ends in order.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::SystemTime};

use rustls::crypto::aws_lc_rs;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{self, Duration},
};

use crate::{
    admin::Admin,
    certificate_authority::{
        CertificateAuthority,
        authority::AuthorityFacts,
        authority_watch,
        key_store::{DataDirectory, KeyStoreError},
        rotation::{Rotation, RotationError, Trust},
    },
    clock::{self, readable},
    condition::{Conditions, Part},
    grpc::{self, Sources, connection::Ending, listener::Listener},
    issuance::Issuance,
    metrics::{CertificateKind, Metrics},
    policy_index::{PolicyIndex, ShippedDefaults},
    serving_identity::{ServingError, ServingIdentity},
    settings::{Checked, InvalidSettings, Settings},
    source::directory_of_files::{DirectoryError, DirectoryOfFiles, Published},
    workload_attestation::join_token::JoinTokens,
    workload_index::WorkloadIndex,
};

/// How often gauges that time alone changes are set anew.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

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
    let Checked { settings, own_id, warnings } = settings.check()?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let clock = clock::now;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let metrics = Metrics::new();
    let conditions = Conditions::new();
    let data = DataDirectory::new(settings.data_dir.clone());
    let _lock = data.lock()?;
    data.create()?;

    let found = authority_watch::read(&data, &settings.trust_domain).map_err(not_initialised)?;
    let rotation = Rotation::start(found, settings.leaf_lifetime, clock())?;
    let (trust, trust_seen) = watch::channel(rotation.trust());
    let authority = CertificateAuthority::new(trust_seen.clone(), settings.leaf_lifetime);

    let facts = Facts::new(&settings, clock());
    let published = Published {
        workloads: facts.workloads,
        policies: facts.policies,
        conditions: conditions.clone(),
    };
    let (workloads, policies) = (published.workloads.subscribe(), published.policies.subscribe());
    let mut directory = DirectoryOfFiles::new(
        settings.config_dir.clone(),
        settings.trust_domain.clone(),
        published,
    );
    directory.read()?;

    let identity = ServingIdentity {
        id: own_id,
        authority: authority.clone(),
        provider,
        metrics: metrics.clone(),
        clock,
    };
    let served = identity.make(&rotation.trust())?;
    let (tls, tls_seen) = watch::channel(Arc::clone(&served.config));
    let tokens = JoinTokens::new(data.join_tokens());
    let issuance =
        Issuance::new(authority.clone(), tokens, workloads.clone(), policies.clone());
    let sources = Sources {
        authority,
        issuance: Arc::new(issuance),
        workloads: workloads.clone(),
        policies,
        outbound: Arc::new(settings.outbound.clone()),
        metrics: metrics.clone(),
        clock,
    };
    let routes = grpc::routes(sources).await?;

    let socket = listen(settings.listen, "--listen").await?;
    let admin_socket = listen(settings.admin_listen, "--admin-listen").await?;
    let addresses = Bound {
        grpc: address(&socket, "--listen")?,
        admin: address(&admin_socket, "--admin-listen")?,
    };
    let (end, ending) = watch::channel(Ending::NotYet);
    announce(&settings, addresses, &rotation.trust(), &workloads.borrow());

    let mut tasks = JoinSet::new();
    tasks.spawn(authority_watch::run(
        data,
        settings.trust_domain.clone(),
        rotation,
        trust,
        conditions.clone(),
        clock,
    ));
    tasks.spawn(directory.follow());
    tasks.spawn(identity.keep(served, tls));
    tasks.spawn(keep_gauges(metrics.clone(), conditions.clone(), trust_seen, workloads));
    let admin = Admin { metrics: metrics.clone(), conditions, ending: ending.clone() };
    tasks.spawn(admin.run(admin_socket));
    let listener = Listener { socket, tls: tls_seen, routes, metrics, ending };
    let mut serving = tokio::spawn(listener.run());
    bound(addresses);

    tokio::select! {
        () = shutdown => {}
        ended = &mut serving => return Err(RunError::ListenerEnded(ended.err())),
        ended = tasks.join_next() => return Err(RunError::TaskEnded(ended.and_then(Result::err))),
    }
    tracing::info!("ending: streams are told to come back elsewhere");
    end.send_replace(Ending::Now);
    serving.await.map_err(|error| RunError::ListenerEnded(Some(error)))?;
    Ok(())
}

/// The facts before the first document was read.
struct Facts {
    workloads: watch::Sender<Arc<WorkloadIndex>>,
    policies: watch::Sender<PolicyIndex>,
}

impl Facts {
    fn new(settings: &Settings, now: SystemTime) -> Self {
        let workloads = WorkloadIndex::beginning_at(clock::unix_millis(now));
        let policies = PolicyIndex::new(
            settings.trust_domain.clone(),
            &settings.mesh_namespace,
            ShippedDefaults::STRICT,
        );
        Self {
            workloads: watch::Sender::new(Arc::new(workloads)),
            policies: watch::Sender::new(policies),
        }
    }
}

fn not_initialised(error: KeyStoreError) -> RunError {
    if error.is_not_found() { RunError::NoMesh(error) } else { RunError::Store(error) }
}

async fn listen(address: SocketAddr, flag: &'static str) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| RunError::Listen { flag, address: address.to_string(), error })
}

fn address(socket: &TcpListener, flag: &'static str) -> Result<SocketAddr, RunError> {
    let fail = |error| RunError::Listen { flag, address: "its own address".to_owned(), error };
    socket.local_addr().map_err(fail)
}

fn announce(settings: &Settings, bound: Bound, trust: &Trust, workloads: &WorkloadIndex) {
    let facts = trust.authority.facts();
    tracing::info!(
        trust_domain = %settings.trust_domain,
        issuing_ca = facts.key_id,
        issuing_ca_until = %readable(facts.not_after),
        roots = trust.bundle.authorities().len(),
        root_until = root_facts(trust).map(|root| readable(root.not_after)),
        leaf_lifetime = ?settings.leaf_lifetime,
        "certificates"
    );
    tracing::info!(
        grpc = %bound.grpc,
        admin = %bound.admin,
        config_dir = %settings.config_dir.display(),
        data_dir = %settings.data_dir.display(),
        workloads = workloads.workloads().count(),
        "control plane serves"
    );
}

fn root_facts(trust: &Trust) -> Option<AuthorityFacts> {
    let root = trust.authority.root_in(&trust.bundle).ok()?;
    AuthorityFacts::read(root).ok()
}

async fn keep_gauges(
    metrics: Metrics,
    conditions: Conditions,
    trust: watch::Receiver<Arc<Trust>>,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
) {
    let mut tick = time::interval(GAUGES_EVERY);
    loop {
        tick.tick().await;
        let trust = Arc::clone(&trust.borrow());
        metrics.expiry(CertificateKind::IssuingAuthority, trust.authority.facts().not_after);
        if let Some(root) = root_facts(&trust) {
            metrics.expiry(CertificateKind::Root, root.not_after);
        }
        for part in Part::ALL {
            metrics.problems(part.name(), conditions.of(part).len());
        }
        let workloads = Arc::clone(&workloads.borrow());
        metrics.facts("workloads", workloads.workloads().count());
        metrics.facts("address_conflicts", workloads.conflicts().len());
    }
}

/// Why the control plane did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(transparent)]
    Settings(#[from] InvalidSettings),
    #[error("there is no issuing CA or trust bundle yet ({0}): run `mesh-lite root init` with the same --data-dir")]
    NoMesh(KeyStoreError),
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error("the issuing CA can't be used: {0}")]
    Authority(#[from] RotationError),
    #[error(transparent)]
    Documents(#[from] DirectoryError),
    #[error(transparent)]
    Serving(#[from] ServingError),
    #[error("gRPC reflection can't be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("can't listen on {flag} {address}: {error}")]
    Listen { flag: &'static str, address: String, error: io::Error },
    #[error("the listener ended by itself: {0:?}")]
    ListenerEnded(Option<tokio::task::JoinError>),
    #[error("a part of the control plane ended by itself: {0:?}")]
    TaskEnded(Option<tokio::task::JoinError>),
}
