//! The whole sidecar: two runtimes, so that no load on the data path starves health, metrics or
//! a renewal.
//!
//! ```text
//! data runtime      accept loops, one task per connection          --workers threads
//! control runtime   control plane, TLS material, enforcement, admin, signals    one thread
//! ```

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_lite_proto::{app_probes::AppProbes, authorization::PolicySnapshot};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    access_log::{AccessLog, AccessLogError, ConnectionIds, Target},
    admin::{AdminServer, BindError},
    app_probes::{AppProber, Listening, NodeAddresses},
    authorization::enforcement::Enforcement,
    clock,
    control::{self, ControlConfig},
    control_plane_client::InvalidControlPlane,
    data_directory::{DataDirectory, DataDirectoryError},
    data_path::DataPath,
    decisions::{self, Decisions},
    dial::OwnConnections,
    drain::{Drain, Patience, Phase},
    limits::Limits,
    listener::ListenError,
    live_connections::LiveConnections,
    memory_limit,
    metrics::{Metrics, MetricsPrefix},
    outbound::Upstream,
    readiness::{Part, Readiness},
    tls::context::TlsContext,
    workload_socket::{WorkloadSocket, WorkloadSocketConfig, WorkloadSocketError},
};

mod capture_watch;
mod listeners;
mod pages;
mod tls_publisher;

pub use listeners::{Addresses, Listen};

/// Label sets per family of metrics; more become one series, "other".
const MAX_LABEL_SETS: usize = 1000;
/// Turns of connections between two looks at the sockets.
const EVENT_INTERVAL: u32 = 16;
/// At the end: how long the access log may take to write what it was given.
const FLUSH: Duration = Duration::from_millis(1500);

pub struct SidecarConfig {
    pub control: ControlConfig,
    pub capture: Capture,
    /// Of the application, asked for on the health port.
    pub app_probes: AppProbes,
    /// Of the node that the pod is on: its kubelet asks for the application's hooks.
    pub node_addresses: NodeAddresses,
    pub addresses: Addresses,
    pub access_log: Target,
    pub metrics_prefix: MetricsPrefix,
    /// Threads of the data path.
    pub workers: usize,
    pub max_connections: usize,
    pub patience: Patience,
    /// SDS for the workload's own clients; none unless asked for.
    pub workload_socket: Option<WorkloadSocketConfig>,
}

/// How connections get here.
#[derive(Debug, Clone)]
pub enum Capture {
    /// The kernel redirects them; `redirect` left its record in this directory.
    Transparent { state_dir: std::path::PathBuf },
    /// The application dials named upstreams on local ports, and listens on loopback only.
    Explicit {
        upstreams: Vec<(SocketAddr, Upstream)>,
        inbound_ports: Vec<u16>,
    },
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    #[error(transparent)]
    ControlPlane(#[from] InvalidControlPlane),
    #[error(transparent)]
    DataDirectory(#[from] DataDirectoryError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Admin(#[from] BindError),
    #[error(transparent)]
    WorkloadSocket(#[from] WorkloadSocketError),
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    #[error("enforcement has ended by a bug of ours: nothing would hold connections to policy")]
    EnforcementEnded,
    #[error("the system refuses threads or signals: {0}")]
    System(#[from] io::Error),
}

/// Runs until `stop` resolves and the connections have ended; a second `stop` ends the wait.
///
/// # Errors
/// If the sidecar can't be started as configured.
pub fn run<Stop>(
    config: SidecarConfig,
    stop: impl FnOnce() -> io::Result<Stop>,
) -> Result<(), SidecarError>
where
    Stop: Signals,
{
    // before a join token is redeemed whose certificate could not be kept
    let _data_directory = DataDirectory::claim(&config.control.data_dir)?;
    let data = Builder::new_multi_thread()
        .worker_threads(config.workers)
        // a turn of a bulk connection is long: the sockets of others are looked at more often
        .event_interval(EVENT_INTERVAL)
        .thread_name("data-path")
        .enable_all()
        .build()?;
    let control = Builder::new_current_thread().enable_all().build()?;
    let log = control.block_on(async { serve(config, &data, stop()?).await })?;
    data.shutdown_background();
    log.flush(FLUSH);
    Ok(())
}

/// Somebody asks the process to end: once, or twice to hurry.
pub trait Signals {
    fn next(&mut self) -> impl Future<Output = ()>;
}

async fn serve(
    config: SidecarConfig,
    data: &Runtime,
    mut signals: impl Signals,
) -> Result<AccessLog, SidecarError> {
    let metrics = Metrics::new(&config.metrics_prefix, MAX_LABEL_SETS);
    let readiness = Readiness::new();
    let log = AccessLog::start(&config.access_log, &metrics)?;
    let mut handles = control::spawn(config.control, &metrics, clock::now)?;
    handles.detach();
    let tls = tls_publisher::spawn(&handles, &readiness);
    spawn_policy_readiness(handles.policy.clone(), &readiness);

    let drain = Drain::default();
    let live = LiveConnections::default();
    let room = decisions::room(memory_limit::read());
    let decisions = Decisions::new(room, clock::now(), &metrics);
    let limits = Limits::new(config.max_connections);
    let path = DataPath {
        tls: tls.clone(),
        enforcement: enforcement(&handles, &tls, &live, &metrics),
        limits: limits.clone(),
        own: OwnConnections::default(),
        metrics: metrics.clone(),
        log: log.clone(),
        decisions: decisions.clone(),
        ids: ConnectionIds::of_new_run(),
        phase: drain.watch(),
        clock: clock::now,
    };
    let holding = tokio::spawn(path.enforcement.clone().hold());
    spawn_drain_readiness(drain.watch(), &readiness);
    let shown = pages::Shown::of(&handles, &readiness, &metrics, &tls, (&live, &decisions));
    let SidecarConfig {
        addresses,
        capture,
        app_probes,
        node_addresses,
        patience,
        workload_socket,
        ..
    } = config;
    let prober = app_prober(&app_probes, node_addresses, &capture, &handles);
    serve_admin(&addresses, &shown, prober.as_ref()).await?;
    let workload_socket =
        open_workload_socket(workload_socket.as_ref(), &handles, &path.metrics).await?;
    listeners::open(&addresses, &capture, &path, &handles, data, &readiness)?;
    capture_watch::spawn(capture, addresses, path, &handles, data, &readiness);

    until_told_to_end(&mut signals, holding).await?;
    tracing::info!("asked to end: draining");
    let open = || limits.open_connections();
    drain.run(&live, open, patience, signals.next()).await;
    if let Some(socket) = workload_socket {
        socket.close().await;
    }
    tracing::info!("drained");
    Ok(log)
}

async fn until_told_to_end(
    signals: &mut impl Signals,
    holding: JoinHandle<()>,
) -> Result<(), SidecarError> {
    tokio::select! {
        () = signals.next() => Ok(()),
        // connections would live on whatever policy says from now on
        _ = holding => Err(SidecarError::EnforcementEnded),
    }
}

fn enforcement(
    handles: &control::ControlHandles,
    tls: &watch::Receiver<Option<Arc<TlsContext>>>,
    live: &LiveConnections,
    metrics: &Metrics,
) -> Enforcement {
    Enforcement::new(
        handles.policy.clone(),
        tls.clone(),
        live.clone(),
        metrics.clone(),
        clock::now,
    )
}

async fn open_workload_socket(
    config: Option<&WorkloadSocketConfig>,
    handles: &control::ControlHandles,
    metrics: &Metrics,
) -> Result<Option<WorkloadSocket>, WorkloadSocketError> {
    let Some(config) = config else {
        return Ok(None);
    };
    let identities = handles.identity.clone();
    WorkloadSocket::open(config, identities, metrics, clock::now)
        .await
        .map(Some)
}

fn app_prober(
    probes: &AppProbes,
    node: NodeAddresses,
    capture: &Capture,
    handles: &control::ControlHandles,
) -> Option<Arc<AppProber>> {
    let listening = match capture {
        Capture::Transparent { .. } => Listening::OnThePod,
        Capture::Explicit { .. } => Listening::OnLoopback,
    };
    let prober = || {
        let node = node.with_default_gateways();
        AppProber::new(probes, listening, node, handles.directory.clone())
    };
    (!probes.is_empty()).then(prober).map(Arc::new)
}

async fn serve_admin(
    addresses: &Addresses,
    shown: &pages::Shown,
    prober: Option<&Arc<AppProber>>,
) -> Result<(), SidecarError> {
    let metrics = &shown.metrics;
    let mut servers =
        vec![AdminServer::bind_loopback(addresses.admin, shown.admin_pages(), metrics).await?];
    for address in addresses.metrics.resolved() {
        servers.push(AdminServer::bind(address, shown.metrics_pages(), metrics).await?);
    }
    for address in addresses.health.resolved() {
        let server = AdminServer::bind(address, shown.health_pages(), metrics).await?;
        servers.push(match prober {
            Some(prober) => server.with_app_probes(prober),
            None => server,
        });
    }
    for server in servers {
        tokio::spawn(server.serve());
    }
    Ok(())
}

fn spawn_policy_readiness(
    mut policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
    readiness: &Readiness,
) {
    let guard = readiness.block(Part::Policy);
    tokio::spawn(async move {
        if policy.wait_for(Option::is_some).await.is_ok() {
            guard.ready();
        }
    });
}

fn spawn_drain_readiness(mut phase: watch::Receiver<Phase>, readiness: &Readiness) {
    let guard = readiness.block(Part::Drain);
    guard.ready();
    tokio::spawn(async move {
        if phase
            .wait_for(|phase| *phase != Phase::Serving)
            .await
            .is_ok()
        {
            guard.not_ready("this sidecar is about to end");
            // held until the process ends
            std::future::pending::<()>().await;
        }
    });
}
