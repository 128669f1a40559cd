//! One connection of an access log, as its own lines tell of it.

use std::{net::SocketAddr, time::SystemTime};

use super::{ConnectionId, DecisionRecord};

/// Connections that are told of by themselves because their caller claims the same id: it may
/// claim one for all of its connections.
pub const MAX_CLAIMS: usize = 16;

/// A connection that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedConnection {
    /// In this log.
    pub id: ConnectionId,
    /// The id that was asked for is the one that the caller's sidecar says it has there. A caller
    /// may say so of any connection.
    pub is_claimed: bool,
    /// Of this connection alone.
    pub record: DecisionRecord,
    /// What the application dialled, as the kernel says.
    pub original_destination: Option<SocketAddr>,
    /// `None`: no line says that it has ended.
    pub ending: Option<Ending>,
}

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub at: SystemTime,
    /// One word, as the access log has it: `complete`, `policy_changed`.
    pub end: Option<Box<str>>,
    /// What more is to be said: the error, or the decision that ended it. At most
    /// [`super::MAX_REASON`] bytes of it.
    pub error: Option<Box<str>>,
}

impl Ending {
    /// The sidecar ended it: it was allowed once, and no longer is.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        matches!(
            self.end.as_deref(),
            Some("policy_changed" | "evicted" | "trust_changed")
        )
    }
}
