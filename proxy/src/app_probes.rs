//! Probes of the application, asked for on the health port and passed on to where the application
//! listens: at the pod's own address, as the kubelet would without us.
//!
//! Whoever reaches the health port may ask, so that asking costs little: requests for the same
//! probe share one try, tries are [`MIN_INTERVAL`] apart, and nothing of the application's answer
//! but its status is passed on.
//!
//! Hooks change something in the application: they are run for the kubelet. The pod's node and the
//! default gateways of the pod may ask without the directory's word, so that a hook runs also while
//! the control plane is away. Of everybody else the directory is asked: another node may, and
//! nobody else. An address that it does not know is refused: it may be that of a pod in its first
//! moments, and a hook can end the application.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use http::StatusCode;
use mesh_lite_proto::{
    app_probes::{AppProbe, AppProbes, ProbeAction, ProbeName, ProbePort},
    workload_directory::{Answer, Name},
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    dial::{DialError, Dialled, OwnConnections, dial},
    directory::{Directory, DirectoryUnavailable},
    socket::end_cleanly,
};

mod default_gateways;
mod grpc;
mod hook_callers;
mod http_get;
mod tls;

pub use hook_callers::NodeAddresses;

/// Between the beginnings of two tries of one probe. The kubelet's are a second or more apart; a
/// stranger gets five dials a second out of a probe, however often it asks.
pub const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Addresses of the pod at which one probe is asked for at a time: a pod has one or two, and
/// somebody inside it has all of 127.0.0.0/8.
const MAX_ADDRESSES: usize = 8;
/// Of the line that says what happened.
const MAX_WORDS: usize = 300;

/// Where the application listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listening {
    /// At the address at which the probe came.
    OnThePod,
    /// On 127.0.0.1 (explicit capture).
    OnLoopback,
}

/// Whom a request came from, and at which address of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub at: SocketAddr,
    pub by: SocketAddr,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub status: StatusCode,
    /// What happened, in one line.
    pub words: String,
}

/// Why a request for a probe has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAsked {
    #[error("the application has no such probe")]
    Unknown,
    #[error("{0} is {1}, and not this pod's node: hooks are the kubelet's to ask for")]
    NotThePodsNode(SocketAddr, String),
    #[error("it is asked for at too many addresses")]
    Busy,
    /// Nothing else than an end of the connection tells the kubelet that a hook has failed: it
    /// takes every answer as a success.
    #[error("{0}")]
    HookFailed(String),
}

type Trying = Shared<BoxFuture<'static, Arc<Outcome>>>;

/// The probes of this pod's application.
pub struct AppProber {
    probes: BTreeMap<ProbeName, Slot>,
    listening: Listening,
    /// These may have hooks run.
    node: NodeAddresses,
    /// Asked about everybody else.
    directory: Directory,
}

struct Slot {
    probe: Arc<Probe>,
    tries: Mutex<HashMap<SocketAddr, Try>>,
}

struct Probe {
    name: ProbeName,
    action: ProbeAction,
    timeout: Duration,
    /// What came of the last try: only changes are worth a line in the log.
    last: Mutex<Option<StatusCode>>,
}

/// The latest try at one address.
struct Try {
    /// It begins then, or has begun.
    begins: Instant,
    /// Gone when everybody who waited for it is.
    trying: WeakShared<BoxFuture<'static, Arc<Outcome>>>,
}

impl AppProber {
    /// `node`: who may have hooks run, whatever `directory` says.
    pub fn new(
        probes: &AppProbes,
        listening: Listening,
        node: NodeAddresses,
        directory: Directory,
    ) -> Self {
        let slot = |(name, probe): (&ProbeName, &AppProbe)| {
            let probe = Probe {
                name: name.clone(),
                action: probe.action.clone(),
                timeout: Duration::from_secs(probe.timeout.get().into()),
                last: Mutex::default(),
            };
            let slot = Slot {
                probe: Arc::new(probe),
                tries: Mutex::default(),
            };
            (name.clone(), slot)
        };
        Self {
            probes: probes.iter().map(slot).collect(),
            listening,
            node,
            directory,
        }
    }

    /// How long an answer may take, at most.
    pub fn longest(&self) -> Duration {
        let timeouts = self.probes.values().map(|slot| slot.probe.timeout);
        timeouts.max().unwrap_or_default() + MIN_INTERVAL
    }

    /// Asks the application, or waits for what somebody else asked just now.
    ///
    /// # Errors
    /// If it is not asked, or if a hook failed.
    pub async fn ask(&self, path: &str, asked: Asked) -> Result<Outcome, NotAsked> {
        let name: ProbeName = path.parse().map_err(|_| NotAsked::Unknown)?;
        let slot = self.probes.get(&name).ok_or(NotAsked::Unknown)?;
        if name.kind.is_hook() {
            self.may_ask_for_hooks(asked.by).await?;
        }
        let target = match self.listening {
            Listening::OnThePod => SocketAddr::new(asked.at.ip().to_canonical(), port(slot)),
            Listening::OnLoopback => (Ipv4Addr::LOCALHOST, port(slot)).into(),
        };
        let outcome = slot.joined(target).ok_or(NotAsked::Busy)?.await;
        if name.kind.is_hook() && outcome.status.is_server_error() {
            return Err(NotAsked::HookFailed(outcome.words.clone()));
        }
        Ok(Outcome::clone(&outcome))
    }

    async fn may_ask_for_hooks(&self, by: SocketAddr) -> Result<(), NotAsked> {
        if self.node.contains(by.ip()) {
            return Ok(());
        }
        let answer = self
            .directory
            .resolve(&Name::Address(by.ip().to_canonical()))
            .await
            .map_err(|unavailable: DirectoryUnavailable| {
                NotAsked::HookFailed(format!("who {by} is can't be told: {unavailable}"))
            })?;
        match &*answer {
            Answer::Endpoint(endpoint) if endpoint.is_node() => Ok(()),
            Answer::Endpoint(pod) => {
                let pod = format!("{}/{}", pod.namespace, pod.name);
                Err(NotAsked::NotThePodsNode(by, pod))
            }
            Answer::Service(service) => Err(NotAsked::NotThePodsNode(by, service.name.to_string())),
            // a pod that is so new that nobody knows it yet is nobody, too, and could end the
            // application with a hook
            Answer::Outside | Answer::Unknown { .. } => {
                let nobody = "nobody that the directory knows".to_owned();
                Err(NotAsked::NotThePodsNode(by, nobody))
            }
        }
    }
}

impl std::fmt::Debug for AppProber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.probes.keys()).finish()
    }
}

fn port(slot: &Slot) -> u16 {
    let port: ProbePort = match &slot.probe.action {
        ProbeAction::Http(http) => http.port(),
        ProbeAction::Tcp(port) => *port,
        ProbeAction::Grpc(grpc) => grpc.port(),
    };
    port.get()
}

impl Slot {
    /// The try that is under way at `target`, or a new one. None if there are too many.
    fn joined(&self, target: SocketAddr) -> Option<Trying> {
        let now = Instant::now();
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let before = tries.get(&target);
        if let Some(trying) = before.and_then(|before| before.trying.upgrade())
            && trying.peek().is_none()
        {
            return Some(trying);
        }
        let begins = before.map_or(now, |before| next(before.begins, now));
        if before.is_none() && tries.len() >= MAX_ADDRESSES {
            tries
                .retain(|_, old| old.trying.upgrade().is_some() || old.begins + MIN_INTERVAL > now);
            if tries.len() >= MAX_ADDRESSES {
                return None;
            }
        }
        let probe = Arc::clone(&self.probe);
        let trying = async move {
            sleep_until(begins).await;
            Arc::new(probe.attempt(target).await)
        };
        let trying = trying.boxed().shared();
        let latest = Try {
            begins,
            trying: trying.downgrade()?,
        };
        tries.insert(target, latest);
        Some(trying)
    }
}

/// When the next try may begin. One that was to begin later and that nobody waited for gives its
/// turn away: else whoever comes and goes could put it off for ever.
fn next(before: Instant, now: Instant) -> Instant {
    if before > now {
        before
    } else {
        now.max(before + MIN_INTERVAL)
    }
}

impl Probe {
    async fn attempt(&self, target: SocketAddr) -> Outcome {
        let deadline = Instant::now() + self.timeout;
        let asking = async {
            match &self.action {
                ProbeAction::Http(http) => {
                    http_get::ask(http, target, self.name.kind.is_hook(), deadline).await
                }
                ProbeAction::Tcp(_) => {
                    connect(target, deadline).await?;
                    Ok(good(format!("{target} accepts connections")))
                }
                ProbeAction::Grpc(grpc) => grpc::check(grpc, target, deadline).await,
            }
        };
        let outcome = match timeout_at(deadline, asking).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Failure::Timeout)) | Err(_) => Outcome {
                status: StatusCode::GATEWAY_TIMEOUT,
                words: format!("{target} did not answer within {:?}", self.timeout),
            },
            Ok(Err(Failure::Said(words))) => Outcome {
                status: StatusCode::BAD_GATEWAY,
                words: one_line(&words),
            },
        };
        self.logged(outcome)
    }

    fn logged(&self, outcome: Outcome) -> Outcome {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(outcome.status) != Some(outcome.status) {
            let Outcome { status, words } = &outcome;
            tracing::info!(probe = %self.name, status = status.as_u16(), "the application: {words}");
        }
        outcome
    }
}

/// Why the application gave no answer.
enum Failure {
    Timeout,
    Said(String),
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Timeout(_) => Self::Timeout,
            other => Self::Said(other.to_string()),
        }
    }
}

fn good(words: String) -> Outcome {
    Outcome {
        status: StatusCode::OK,
        words,
    }
}

/// A connection that ends as one of the kubelet's does, not by a reset.
async fn connect(target: SocketAddr, deadline: Instant) -> Result<Dialled, DialError> {
    let dialled = dial(target, deadline, &OwnConnections::default()).await?;
    end_cleanly(&dialled.socket);
    Ok(dialled)
}

/// What an application says is not ours to trust: one line of bounded length.
fn one_line(words: &str) -> String {
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect()
}

#[cfg(test)]
mod tests;
