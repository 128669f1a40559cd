//! What a sidecar remembers of its decisions, so that a change of policy can be tried on what
//! really happened before it is made.
//!
//! ```text
//!   /decisions of a sidecar ──┐
//!                             ├─ Recording ── DecisionRecord ── facts ── authorization::decide
//!   access log ───────────────┘
//! ```
//!
//! A record stands for all connections that had the same facts and the same outcome: it says how
//! many they were, when the first and the last came, and how many of them are open.

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc, time::SystemTime};

pub use self::{
    logged::{Ending, LoggedConnection, MAX_CLAIMS},
    recording::{InvalidRecording, MAX_LINE, MAX_RECORDING, MAX_RECORDS, Recording},
    utc::Utc,
};
use crate::{
    authorization::{Caller, Facts, Recorded, SourceRef, Step},
    identity::WorkloadId,
};

mod diagnostics;
mod dry_runs;
mod line;
mod logged;
mod reading;
mod recording;
mod runs;
mod utc;

/// Ids that a record keeps, the latest ones.
pub const MAX_CONNECTIONS_NAMED: usize = 16;
/// Bytes of a record's reason or error; what is longer is cut.
pub const MAX_REASON: usize = 512;
/// Why plaintext to a STRICT port is refused, as records and the access log name it.
pub const PLAINTEXT_TO_STRICT: &str = "plaintext_to_strict";

/// Connections that had the same facts and the same outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRecord {
    /// When the first of them was decided.
    pub first: SystemTime,
    /// When the latest of them was decided.
    pub last: SystemTime,
    pub direction: Direction,
    /// Who dialled. The port is the latest one's.
    pub source: Endpoint,
    /// `None`: it never became known.
    pub destination: Option<Endpoint>,
    pub outcome: Outcome,
    /// The other side's sidecar decided, and this one only heard of it.
    pub decided_by_peer: bool,
    /// `None`: no policy of this workload decided, or nothing but the open connections is known.
    pub step: Option<Step>,
    /// The document that decided; its line is the deciding rule's, if a rule decided.
    pub policy: Option<SourceRef>,
    /// Index of the rule that matched.
    pub rule: Option<usize>,
    /// The decision in words, or the name of the refusal; of the latest of them.
    pub reason: Option<Box<str>>,
    /// The name under which plaintext was let through; `None`: it was not plaintext, or not let
    /// through.
    pub plaintext: Option<Box<str>>,
    /// What more is to be said of a refusal; of the latest of them.
    pub error: Option<Box<str>>,
    /// What dry runs and AUDIT policies said of the latest of them, the first of those.
    pub recorded: Arc<[Recorded]>,
    /// How many more there are.
    pub recorded_more: usize,
    /// How many connections they were: at least one.
    pub count: u64,
    /// How many of them are open.
    pub open: u64,
    /// When the latest end of one of them was, no earlier than it was; `None`: none has ended, or
    /// ends are not noted.
    pub ended: Option<SystemTime>,
    /// Of the latest of them, the latest last: at most [`MAX_CONNECTIONS_NAMED`].
    pub connections: Vec<ConnectionId>,
}

impl DecisionRecord {
    /// What policy decides on, of an inbound connection that policy decided on or that was
    /// refused as plaintext to a STRICT port. Of everything else nobody knows what policy would
    /// have said: it never came that far, or policy of another workload decides on it.
    #[must_use]
    pub fn facts(&self) -> Option<Facts<'_>> {
        let judged = match self.outcome {
            Outcome::Allow | Outcome::Deny => !self.decided_by_peer,
            Outcome::Refuse => self.is_plaintext_to_strict(),
            Outcome::Pass | Outcome::Unanswered => false,
        };
        if self.direction != Direction::Inbound || !judged {
            return None;
        }
        Some(Facts {
            caller: match &self.source.identity {
                Some(id) => Caller::Authenticated(id),
                None => Caller::Plaintext,
            },
            source: self.source.address.ip(),
            port: self.destination.as_ref()?.address.port(),
        })
    }

    /// The latest moment at which one of them is known to have been in use.
    #[must_use]
    pub fn last_use(&self) -> SystemTime {
        self.ended.map_or(self.last, |ended| ended.max(self.last))
    }

    /// Whether bytes were forwarded: allowed, or passed in plaintext.
    #[must_use]
    pub fn is_let_through(&self) -> bool {
        self.outcome.is_let_through()
    }

    /// Plaintext came to a port that takes mutual TLS only.
    #[must_use]
    pub fn is_plaintext_to_strict(&self) -> bool {
        self.outcome == Outcome::Refuse && self.reason.as_deref() == Some(PLAINTEXT_TO_STRICT)
    }

    /// Whether two records stand for connections with the same facts and the same outcome.
    fn distinct(&self) -> Distinct<'_> {
        let refusal = match self.outcome {
            Outcome::Refuse => self.reason.as_deref(),
            _ => None,
        };
        Distinct {
            direction: self.direction,
            source: self.source.address.ip(),
            caller: self.source.identity.as_ref(),
            destination: self.destination.as_ref(),
            outcome: self.outcome,
            decided_by_peer: self.decided_by_peer,
            step: self.step,
            policy: self.policy.as_ref(),
            rule: self.rule,
            refusal,
            plaintext: self.plaintext.as_deref(),
        }
    }

    /// Takes in a record of the same kind.
    fn merge(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.count = self.count.saturating_add(other.count);
        self.open = self.open.saturating_add(other.open);
        self.ended = self.ended.max(other.ended);
        if other.last >= self.last {
            self.last = other.last;
            self.source = other.source;
            self.reason = other.reason;
            self.error = other.error;
            self.recorded = other.recorded;
            self.recorded_more = other.recorded_more;
        }
        self.connections.extend(other.connections);
        let extra = self.connections.len().saturating_sub(MAX_CONNECTIONS_NAMED);
        self.connections.drain(..extra);
    }
}

/// What tells records apart.
#[derive(PartialEq, Eq, Hash)]
struct Distinct<'a> {
    direction: Direction,
    source: std::net::IpAddr,
    caller: Option<&'a WorkloadId>,
    destination: Option<&'a Endpoint>,
    outcome: Outcome,
    decided_by_peer: bool,
    step: Option<Step>,
    policy: Option<&'a SourceRef>,
    rule: Option<usize>,
    refusal: Option<&'a str>,
    plaintext: Option<&'a str>,
}

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Of a destination: the port dialled in the pod, not the tunnel's.
    pub address: SocketAddr,
    /// What it proved, or what we are; `None`: nothing was proved.
    pub identity: Option<WorkloadId>,
}

/// Seen from the workload that the sidecar serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// As the access log names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What became of a new connection, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Policy allowed it; of an outbound connection, the other side's.
    Allow,
    /// Policy denied it; of an outbound connection, the other side's.
    Deny,
    /// Refused without a decision of policy.
    Refuse,
    /// Went out in plaintext, where nobody decides.
    Pass,
    /// Went out, and no answer of the other sidecar is known.
    Unanswered,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Allow,
        Self::Deny,
        Self::Refuse,
        Self::Pass,
        Self::Unanswered,
    ];

    /// As the access log names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Refuse => "refuse",
            Self::Pass => "pass",
            Self::Unanswered => "unanswered",
        }
    }

    /// Whether bytes were forwarded.
    #[must_use]
    pub const fn is_let_through(self) -> bool {
        matches!(self, Self::Allow | Self::Pass)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one connection of one sidecar, in its log, its records and its answers to peers. Shown
/// as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Bits that count the connections of one run of a sidecar: 68 thousand million. The other 28
    /// tell runs apart, of this sidecar and of others.
    const COUNTER: u32 = 36;

    /// The first id of a run of a sidecar, of a random number: ids of a restarted sidecar are
    /// apart from those that its log already holds, and from those of the sidecars that started
    /// with it.
    #[must_use]
    pub const fn first_of_run(random: u64) -> Self {
        Self(random << Self::COUNTER)
    }

    #[must_use]
    pub const fn from_u64(id: u64) -> Self {
        Self(id)
    }

    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The run of a sidecar that gave this id: a number without an order.
    #[must_use]
    pub const fn run(self) -> u64 {
        self.0 >> Self::COUNTER
    }

    /// Whether its run began with it.
    #[must_use]
    pub const fn is_first_of_run(self) -> bool {
        self.0.trailing_zeros() >= Self::COUNTER
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ConnectionId {
    type Err = InvalidConnectionId;

    /// 16 lower-case hex digits, as it is shown.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidConnectionId(text.chars().take(32).collect());
        let id = u64::from_str_radix(text, 16).map_err(|_| invalid())?;
        if Self(id).to_string() == text {
            Ok(Self(id))
        } else {
            Err(invalid())
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a connection's id: it has 16 digits of 0-9 and a-f, as conn_id in the access log"
)]
pub struct InvalidConnectionId(String);

/// The step of that name.
fn step_named(name: &str) -> Option<Step> {
    [
        Step::StrictPort,
        Step::BrokenDocument,
        Step::DenyRule,
        Step::AllowRule,
        Step::NoAllowRule,
        Step::DefaultAction,
        Step::MutualTlsMode,
    ]
    .into_iter()
    .find(|step| step.as_str() == name)
}

#[cfg(test)]
mod tests;
