//! What tells decisions apart: borrowed of a connection, so that a known one is found without
//! an allocation, and owned where it is kept.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    mem::size_of,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_lite_proto::{
    authorization::{Decision, SourceRef, Step},
    decision_record,
    identity::WorkloadId,
    tunnel::{DecidedBy, Status},
};

use super::Seen;
use crate::{
    access_log::Outcome,
    metrics::{Direction, Plaintext, Refusal},
};

/// An identity beside its text: the parsed form, which holds the text again, and its parts'
/// lengths.
const PER_IDENTITY: usize = 128;

/// Nothing of it changes from connection to connection of the same caller: no port of a source,
/// no serial, no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key<'a> {
    direction: Direction,
    source: IpAddr,
    caller: Option<&'a str>,
    destination: Option<SocketAddr>,
    callee: Option<&'a str>,
    outcome: decision_record::Outcome,
    decided_by_peer: bool,
    step: Option<Step>,
    policy: Option<Place<'a>>,
    rule: Option<usize>,
    refusal: Option<Refusal>,
    plaintext: Option<Plaintext>,
}

/// Where the policy that decided is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place<'a> {
    document: &'a str,
    file: &'a str,
    line: u32,
}

impl<'a> Key<'a> {
    pub(super) fn of(seen: &Seen<'a>) -> Self {
        let text = |id: &'a Option<WorkloadId>| id.as_ref().map(WorkloadId::as_str);
        let key = Self {
            direction: seen.direction,
            source: seen.source.address.ip(),
            caller: text(&seen.source.identity),
            destination: seen.destination.map(|it| it.address),
            callee: seen.destination.and_then(|it| text(&it.identity)),
            outcome: decision_record::Outcome::Unanswered,
            decided_by_peer: false,
            step: None,
            policy: None,
            rule: None,
            refusal: None,
            plaintext: None,
        };
        key.with(seen.outcome)
    }

    fn with(self, outcome: &'a Outcome) -> Self {
        use decision_record::Outcome::{Pass, Refuse, Unanswered};
        match outcome {
            Outcome::Decided(decision) => self.decided(decision),
            Outcome::DecidedPlaintext(decision, reason) => Self {
                plaintext: Some(*reason),
                ..self.decided(decision)
            },
            Outcome::Refused(refusal, _) => Self {
                outcome: Refuse,
                refusal: Some(*refusal),
                ..self
            },
            Outcome::Answered(status, decided_by) => self.answered(*status, decided_by.as_deref()),
            Outcome::Unanswered(_) => Self {
                outcome: Unanswered,
                ..self
            },
            Outcome::PassedPlaintext(reason) => Self {
                outcome: Pass,
                plaintext: Some(*reason),
                ..self
            },
        }
    }

    fn decided(self, decision: &'a Decision) -> Self {
        Self {
            outcome: if decision.is_allowed() {
                decision_record::Outcome::Allow
            } else {
                decision_record::Outcome::Deny
            },
            step: Some(decision.step),
            policy: decision.policy.as_ref().map(|policy| Place {
                document: &policy.document,
                file: &policy.file,
                line: policy.line,
            }),
            rule: decision.rule,
            ..self
        }
    }

    fn answered(self, status: Status, decided_by: Option<&'a str>) -> Self {
        let named = decided_by.and_then(|text| DecidedBy::new(text).ok());
        Self {
            outcome: match status {
                Status::Ok => decision_record::Outcome::Allow,
                Status::Denied => decision_record::Outcome::Deny,
                _ => decision_record::Outcome::Refuse,
            },
            decided_by_peer: true,
            policy: named.map(|named| {
                let source = named.source();
                let (file, line) = source
                    .rsplit_once(':')
                    .and_then(|(file, line)| Some((file, line.parse().ok()?)))
                    .unwrap_or((source, 0));
                Place {
                    document: named.policy(),
                    file,
                    line,
                }
            }),
            ..self
        }
    }
}

/// Whatever has a key: one borrowed of a connection, or one that is kept.
pub(super) trait HasKey {
    fn key(&self) -> Key<'_>;
}

impl HasKey for Key<'_> {
    fn key(&self) -> Key<'_> {
        *self
    }
}

impl PartialEq for dyn HasKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for dyn HasKey + '_ {}

impl Hash for dyn HasKey + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// A key that is kept. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Kept(Arc<Parts>);

/// Identities and names are shared with whoever else holds them.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) direction: Direction,
    pub(super) source: IpAddr,
    pub(super) caller: Option<WorkloadId>,
    pub(super) destination: Option<SocketAddr>,
    pub(super) callee: Option<WorkloadId>,
    pub(super) outcome: decision_record::Outcome,
    pub(super) decided_by_peer: bool,
    pub(super) step: Option<Step>,
    pub(super) policy: Option<SourceRef>,
    pub(super) rule: Option<usize>,
    pub(super) refusal: Option<Refusal>,
    pub(super) plaintext: Option<Plaintext>,
}

impl Kept {
    /// `own`, if it is equal, stands for the workload's own identity: one for all records.
    pub(super) fn new(seen: &Seen<'_>, own: Option<&WorkloadId>) -> Self {
        let key = Key::of(seen);
        let shared = |id: &WorkloadId| own.filter(|own| *own == id).unwrap_or(id).clone();
        let policy = match seen.outcome {
            Outcome::Decided(decision) | Outcome::DecidedPlaintext(decision, _) => {
                decision.policy.clone()
            }
            _ => key.policy.map(|place| SourceRef {
                document: place.document.into(),
                file: place.file.into(),
                line: place.line,
            }),
        };
        Self(Arc::new(Parts {
            direction: key.direction,
            source: key.source,
            caller: seen.source.identity.as_ref().map(shared),
            destination: key.destination,
            callee: seen
                .destination
                .and_then(|it| it.identity.as_ref())
                .map(shared),
            outcome: key.outcome,
            decided_by_peer: key.decided_by_peer,
            step: key.step,
            policy,
            rule: key.rule,
            refusal: key.refusal,
            plaintext: key.plaintext,
        }))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// What it takes, but for the workload's own identity.
    pub(super) fn bytes(&self) -> usize {
        let parts = &*self.0;
        let other = match parts.direction {
            Direction::Inbound => &parts.caller,
            Direction::Outbound => &parts.callee,
        };
        let identity = |id: &WorkloadId| 2 * id.as_str().len() + PER_IDENTITY;
        let policy = |source: &SourceRef| source.document.len() + source.file.len() + 32;
        size_of::<Parts>()
            + other.as_ref().map_or(0, identity)
            + parts.policy.as_ref().map_or(0, policy)
    }
}

impl HasKey for Kept {
    fn key(&self) -> Key<'_> {
        let parts = &*self.0;
        Key {
            direction: parts.direction,
            source: parts.source,
            caller: parts.caller.as_ref().map(WorkloadId::as_str),
            destination: parts.destination,
            callee: parts.callee.as_ref().map(WorkloadId::as_str),
            outcome: parts.outcome,
            decided_by_peer: parts.decided_by_peer,
            step: parts.step,
            policy: parts.policy.as_ref().map(|policy| Place {
                document: &policy.document,
                file: &policy.file,
                line: policy.line,
            }),
            rule: parts.rule,
            refusal: parts.refusal,
            plaintext: parts.plaintext,
        }
    }
}

impl<'a> Borrow<dyn HasKey + 'a> for Kept {
    fn borrow(&self) -> &(dyn HasKey + 'a) {
        self
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Kept {}

/// As the borrowed one: a lookup by either finds the same.
impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
