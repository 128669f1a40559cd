//! Who must answer at an address: asked on demand, remembered while used, kept up to date.
//!
//! The data path reads one published snapshot and takes no lock. One task writes it. While the
//! control plane is away the last answers stay; what can't be understood never widens anything.

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use mesh_lite_proto::{
    sidecar::{DIRECTORY_WAIT, MAX_DIRECTORY_NAMES, MAX_NEW_NAMES_PER_SECOND},
    workload_directory::{Answer, MeshSettings, Name},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

pub mod pick;
mod saved;
mod table;
pub(crate) mod watch_stream;

pub(crate) use watch_stream::{DirectoryChanges, DirectoryWatch};

/// Questions on their way to the task that asks the control plane. It takes them faster than
/// connections come; a full queue means it is stuck.
const QUEUED_QUESTIONS: usize = 1024;

/// Handle of the data path. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
    questions: mpsc::Sender<Question>,
}

/// What the task publishes and the data path reads.
struct Shared {
    answers: ArcSwap<Answers>,
    settings: ArcSwap<MeshSettings>,
    /// Uses of names are counted in milliseconds since then.
    started: Instant,
    /// Tells the state file that something changed.
    revision: watch::Sender<u64>,
}

type Answers = HashMap<Arc<Name>, Arc<Known>>;

struct Known {
    answer: Arc<Answer>,
    last_used: Arc<AtomicU64>,
}

struct Question {
    name: Name,
    reply: oneshot::Sender<Result<Arc<Answer>, DirectoryUnavailable>>,
}

impl Shared {
    fn new(settings: MeshSettings) -> Arc<Self> {
        Arc::new(Self {
            answers: ArcSwap::default(),
            settings: ArcSwap::from_pointee(settings),
            started: Instant::now(),
            revision: watch::Sender::new(0),
        })
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Directory {
    /// The answer, if there is one already. Counts as a use of the name. Takes no lock.
    pub fn known(&self, name: &Name) -> Option<Arc<Answer>> {
        let answers = self.shared.answers.load();
        let known = answers.get(canonical(name).as_ref())?;
        known
            .last_used
            .store(self.shared.milliseconds(), Ordering::Relaxed);
        Some(Arc::clone(&known.answer))
    }

    /// The answer; asks the control plane for it if need be, and waits at most 2 s.
    ///
    /// # Errors
    /// If there is no answer and none comes in time. That is never a licence to pass anything.
    pub async fn resolve(&self, name: &Name) -> Result<Arc<Answer>, DirectoryUnavailable> {
        if let Some(answer) = self.known(name) {
            return Ok(answer);
        }
        let (reply, answer) = oneshot::channel();
        self.questions
            .try_send(Question {
                name: canonical(name).into_owned(),
                reply,
            })
            .map_err(|_| DirectoryUnavailable::Busy)?;
        match tokio::time::timeout(DIRECTORY_WAIT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(DirectoryUnavailable::Busy),
            Err(_) => Err(DirectoryUnavailable::NoAnswer { name: name.clone() }),
        }
    }

    /// What holds for every name; refuses everything until the control plane said more.
    pub fn settings(&self) -> Arc<MeshSettings> {
        self.shared.settings.load_full()
    }

    /// How many names have an answer.
    pub fn names(&self) -> usize {
        self.shared.answers.load().len()
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory")
            .field("names", &self.names())
            .finish_non_exhaustive()
    }
}

/// An IPv4 address in IPv6's clothes, as sockets for both families show it, is the same name.
fn canonical(name: &Name) -> Cow<'_, Name> {
    match name {
        Name::Address(address @ IpAddr::V6(_)) => Cow::Owned(Name::Address(address.to_canonical())),
        _ => Cow::Borrowed(name),
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryUnavailable {
    #[error("the control plane did not say within {DIRECTORY_WAIT:?} who must answer at {name}")]
    NoAnswer { name: Name },
    #[error("more than {MAX_DIRECTORY_NAMES} names are in use: {name} is not asked for")]
    TooManyNames { name: Name },
    #[error("more than {MAX_NEW_NAMES_PER_SECOND} new names a second: {name} is not asked for")]
    TooFast { name: Name },
    #[error("too many questions wait for the directory")]
    Busy,
}
