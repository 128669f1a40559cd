//! What is known of a connection when it opens and when it ends, as it is handed to the log.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

pub use mesh_lite_proto::decision_record::ConnectionId;
use mesh_lite_proto::{
    authorization::Decision,
    identity::WorkloadId,
    svid::Serial,
    tunnel::{Status, TraceId},
};

use crate::metrics::{Direction, Plaintext, Refusal, Termination};

/// Gives every connection of this process an id. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionIds(Arc<AtomicU64>);

impl ConnectionIds {
    /// Ids of a run of their own, apart from those of an earlier run in the same log and of other
    /// sidecars.
    pub fn of_new_run() -> Self {
        // keys of hash tables are random numbers of the operating system
        let random = RandomState::new().build_hasher().finish();
        let first = ConnectionId::first_of_run(random);
        Self(Arc::new(AtomicU64::new(first.as_u64())))
    }

    pub fn next_id(&self) -> ConnectionId {
        ConnectionId::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub address: SocketAddr,
    /// What it proved, or what we are; `None`: nothing was proved.
    pub identity: Option<WorkloadId>,
    pub serial: Option<Serial>,
}

/// What the application had dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalDestination {
    /// The kernel says so.
    Known(SocketAddr),
    /// The other sidecar says so, and might lie.
    Claimed(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFacts {
    pub version: &'static str,
    /// Of the key exchange.
    pub group: &'static str,
}

/// What became of a new connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Policy allowed or denied it.
    Decided(Decision),
    /// Policy allowed it in plaintext, under this name.
    DecidedPlaintext(Decision, Plaintext),
    /// Refused without policy; the text is the error's, if there is more to say.
    Refused(Refusal, Option<Box<str>>),
    /// Went out, and the other sidecar let it through or did not; the text names the policy that
    /// decided, as the answer does, see [`mesh_lite_proto::tunnel::DecidedBy`].
    Answered(Status, Option<Box<str>>),
    /// Went out, and ended before the other sidecar had answered; the text says how.
    Unanswered(Option<Box<str>>),
    /// Went out in plaintext.
    PassedPlaintext(Plaintext),
}

impl Outcome {
    pub(crate) fn is_let_through(&self) -> bool {
        match self {
            Self::Decided(decision) | Self::DecidedPlaintext(decision, _) => decision.is_allowed(),
            Self::Answered(status, _) => *status == Status::Ok,
            Self::Refused(..) | Self::Unanswered(_) => false,
            Self::PassedPlaintext(_) => true,
        }
    }
}

/// A connection was decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRecord {
    pub at: SystemTime,
    pub connection: ConnectionId,
    pub direction: Direction,
    pub source: Peer,
    /// `None`: it never became known.
    pub destination: Option<Peer>,
    pub original_destination: Option<OriginalDestination>,
    pub tls: Option<TlsFacts>,
    pub outcome: Outcome,
    /// The dialler's claim.
    pub trace_id: TraceId,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum End {
    /// Both sides said that they are done.
    Complete,
    /// Who dialled us gave up.
    DownstreamReset,
    /// Whom we dialled gave up.
    UpstreamReset,
    /// TCP ended inside TLS without its end having been announced.
    Truncated,
    /// Half closed, and nothing came for an hour.
    IdleTimeout,
    /// No answer to keepalive probes.
    Unreachable,
    /// The sidecar ended.
    Drained,
    /// It was allowed once, and no longer is.
    Terminated(Termination),
    /// Anything else; the record's error says what.
    Failed,
}

impl End {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::DownstreamReset => "downstream_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Truncated => "truncated",
            Self::IdleTimeout => "idle_timeout",
            Self::Unreachable => "unreachable",
            Self::Drained => "drained",
            Self::Terminated(reason) => reason.as_str(),
            Self::Failed => "failed",
        }
    }
}

/// A connection that had been let through has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseRecord {
    pub at: SystemTime,
    pub connection: ConnectionId,
    pub direction: Direction,
    /// Came back to the caller.
    pub bytes_sent: u64,
    /// Came from the caller.
    pub bytes_received: u64,
    pub duration: Duration,
    pub end: End,
    /// What more is to be said: the error, or the decision that ended it.
    pub error: Option<Box<str>>,
}
