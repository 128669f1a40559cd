//! What is told of one connection: to the metrics, to the access log, and to the records of
//! decisions.

use std::{io::ErrorKind, net::SocketAddr, sync::OnceLock};

use mesh_lite_proto::{
    authorization::Decision,
    tunnel::{Answer, Status, TraceId},
};
use tokio::time::Instant;

use crate::{
    access_log::{
        AccessLog, CloseRecord, ConnectionId, End, OpenRecord, OriginalDestination, Outcome, Peer,
        TlsFacts,
    },
    authorization::enforcement::Denial,
    clock::Clock,
    decisions::{Decisions, LastEnd, Seen},
    forward::Broken,
    live_connections::CutReason,
    metrics::{
        ConnectionLabels, ConnectionMeter, Direction, Metrics, Plaintext, Refusal, Termination,
    },
};

/// Why a connection does not come about.
#[derive(Debug)]
pub enum Refused {
    /// For a reason that is not policy's, in the error's own words if there are any.
    For(Refusal, Option<Box<str>>),
    /// Policy says no.
    Denied(Box<Decision>),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::For(refusal, None)
    }
}

impl Refused {
    pub fn because(refusal: Refusal, error: impl ToString) -> Self {
        Self::For(refusal, Some(error.to_string().into()))
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        let refusal = match denial {
            Denial::Policy(decision) => return Self::Denied(decision),
            Denial::NoPolicy => Refusal::NotReady,
            Denial::Evicted(_) => Refusal::Evicted,
            Denial::Untrusted => Refusal::Untrusted,
            Denial::PlaintextToStrict(_) => Refusal::PlaintextToStrict,
        };
        Self::because(refusal, denial)
    }
}

/// Gathers what becomes known of a connection, stage by stage.
pub struct Account {
    pub id: ConnectionId,
    pub direction: Direction,
    pub source: Peer,
    pub destination: Option<Peer>,
    pub original_destination: Option<OriginalDestination>,
    pub tls: Option<TlsFacts>,
    pub trace_id: TraceId,
    started: Instant,
    metrics: Metrics,
    log: AccessLog,
    decisions: Decisions,
    /// Of its record, once it is let through.
    last_end: OnceLock<LastEnd>,
    clock: Clock,
}

impl Account {
    pub(crate) fn open(
        id: ConnectionId,
        direction: Direction,
        source: SocketAddr,
        (metrics, log, decisions, clock): (&Metrics, &AccessLog, &Decisions, Clock),
    ) -> Self {
        Self {
            id,
            direction,
            source: Peer {
                address: source,
                identity: None,
                serial: None,
            },
            destination: None,
            original_destination: None,
            tls: None,
            trace_id: TraceId::NONE,
            started: Instant::now(),
            metrics: metrics.clone(),
            log: log.clone(),
            decisions: decisions.clone(),
            last_end: OnceLock::new(),
            clock,
        }
    }

    pub fn refused(&self, refused: Refused) {
        self.opened(match refused {
            Refused::Denied(decision) => Outcome::Decided(*decision),
            Refused::For(refusal, text) => {
                self.metrics.refused(refusal);
                Outcome::Refused(refusal, text)
            }
        });
    }

    /// Plaintext is let through: counted by the name under which it was allowed.
    pub fn plaintext(&self, reason: Plaintext) {
        self.metrics.plaintext(reason);
    }

    /// It is to go there as it is. Nobody proves anything, whatever was said to the sidecar of
    /// another endpoint that was tried before.
    pub fn goes_in_plaintext_to(&mut self, address: SocketAddr) {
        self.source.identity = None;
        self.source.serial = None;
        self.tls = None;
        self.destination = Some(Peer {
            address,
            identity: None,
            serial: None,
        });
    }

    /// The connection is let through: from here on it has a meter.
    pub fn let_through(&self, outcome: Outcome) -> ConnectionMeter {
        self.opened(outcome);
        self.meter()
    }

    /// Counts the connection from here on; of one whose peer has still to answer nothing is
    /// logged yet.
    pub fn meter(&self) -> ConnectionMeter {
        self.metrics.connection(&ConnectionLabels {
            direction: self.direction,
            source: self.source.identity.clone(),
            destination: self
                .destination
                .as_ref()
                .and_then(|peer| peer.identity.clone()),
            mutual_tls: self.tls.is_some(),
        })
    }

    /// What the other side's policy decided: its open line, in our log and records.
    pub fn answered(&self, answer: Answer<'_>) {
        let decided_by = answer.decided_by.map(|named| named.as_str().into());
        self.opened(Outcome::Answered(answer.status, decided_by));
    }

    /// The other side did not let the connection through, or it ended before there was an
    /// answer (`None`).
    pub fn not_let_through(&self, answer: Option<Status>, result: &Result<(), Broken>) {
        match (answer, result) {
            (Some(Status::Denied), _) => self.metrics.refused(Refusal::DeniedByPeer),
            (Some(_), _) | (None, Err(Broken::InvalidAnswer(_) | Broken::NoAnswer)) => {
                self.metrics.refused(Refusal::RefusedByPeer);
            }
            (None, _) => {}
        }
        if answer.is_none() {
            let error = result.as_ref().err().map(words_for);
            self.opened(Outcome::Unanswered(error));
        }
    }

    fn opened(&self, outcome: Outcome) {
        let at = (self.clock)();
        let last_end = self.decisions.record(&Seen {
            at,
            connection: self.id,
            direction: self.direction,
            source: &self.source,
            destination: self.destination.as_ref(),
            outcome: &outcome,
        });
        if outcome.is_let_through() {
            // once in its life
            let _ = self.last_end.set(last_end);
        }
        if !self.log.is_on() {
            return;
        }
        self.log.opened(OpenRecord {
            at,
            connection: self.id,
            direction: self.direction,
            source: self.source.clone(),
            destination: self.destination.clone(),
            original_destination: self.original_destination,
            tls: self.tls,
            outcome,
            trace_id: self.trace_id,
        });
    }

    /// What was let through has ended. Comes before it leaves the live connections: on the page
    /// of decisions it is open, or has ended.
    pub fn closed(&self, meter: &ConnectionMeter, result: Result<(), Broken>) {
        let at = (self.clock)();
        if let Some(last_end) = self.last_end.get() {
            last_end.note(at);
        }
        if !self.log.is_on() {
            return;
        }
        let (end, error) = match result {
            Ok(()) => (End::Complete, None),
            Err(broken) => (self.end_of(&broken), Some(words_for(&broken))),
        };
        self.log.closed(CloseRecord {
            at,
            connection: self.id,
            direction: self.direction,
            bytes_sent: meter.bytes_sent(),
            bytes_received: meter.bytes_received(),
            duration: self.started.elapsed(),
            end,
            error,
        });
    }

    fn end_of(&self, broken: &Broken) -> End {
        match (broken, self.direction) {
            (Broken::Application(error) | Broken::Far(error), _)
                if error.kind() == ErrorKind::TimedOut =>
            {
                End::Unreachable
            }
            (Broken::Application(_), Direction::Outbound)
            | (Broken::Far(_), Direction::Inbound) => End::DownstreamReset,
            (Broken::Application(_), Direction::Inbound)
            | (Broken::Far(_), Direction::Outbound) => End::UpstreamReset,
            (Broken::Truncated, _) => End::Truncated,
            (Broken::HalfClosedIdle, _) => End::IdleTimeout,
            (Broken::Cut(reason), _) => match reason {
                CutReason::Policy(_) | CutReason::PlaintextToStrict => {
                    End::Terminated(Termination::PolicyChanged)
                }
                CutReason::Evicted(_) => End::Terminated(Termination::Evicted),
                CutReason::TrustChanged => End::Terminated(Termination::TrustChanged),
                CutReason::Draining => End::Drained,
            },
            _ => End::Failed,
        }
    }
}

fn words_for(broken: &Broken) -> Box<str> {
    match broken {
        Broken::Cut(CutReason::Policy(decision)) => decision.reason().into(),
        Broken::Cut(CutReason::Evicted(document)) => format!("evicted by {document}").into(),
        Broken::Cut(CutReason::PlaintextToStrict) => {
            "policy changed: this port takes mutual TLS only now (STRICT), and this is plaintext"
                .into()
        }
        Broken::Cut(CutReason::TrustChanged) => {
            "the root that the peer was proved by is no longer in the trust bundle".into()
        }
        Broken::Cut(CutReason::Draining) => "the sidecar ends".into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests;
