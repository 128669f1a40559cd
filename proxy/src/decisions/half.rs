//! Decisions that share a bound: the least recently seen make room for new ones.

use std::{collections::HashMap, mem::size_of, net::SocketAddr, time::SystemTime};

use mesh_lite_proto::{
    decision_record::{ConnectionId, DecisionRecord, Endpoint, MAX_CONNECTIONS_NAMED},
    identity::WorkloadId,
};

use super::{
    Seen,
    key::{HasKey, Kept, Key},
    last_end::LastEnd,
    words::Words,
};
use crate::{
    access_log::Peer,
    metrics::{Direction, Metrics},
};

/// A record's places in the table (which may be half empty), its counts of shares, its last end
/// and its share of the allocator's rounding.
const PER_RECORD: usize = 144;
/// This part of the records goes at a time, so that a flood of new ones does not look for the
/// oldest with each.
const FORGOTTEN_AT_A_TIME: usize = 16;

pub(super) struct Half {
    room: usize,
    bytes: usize,
    records: HashMap<Kept, Box<Counted>>,
    /// Turns so far: what was seen later has a greater one.
    turn: u64,
    forgotten: u64,
    /// The workload's own identity, one for all records.
    own: Option<WorkloadId>,
    metrics: Metrics,
}

/// How often a decision was made, and what is told of the latest time.
#[derive(Clone)]
struct Counted {
    turn: u64,
    first: SystemTime,
    last: SystemTime,
    source: SocketAddr,
    count: u64,
    /// The latest ones; the next one goes to `count % MAX_CONNECTIONS_NAMED`.
    connections: [u64; MAX_CONNECTIONS_NAMED],
    words: Words,
    /// Tells other words from these without making them.
    mark: u64,
    last_end: LastEnd,
}

/// A decision that is not known, or was made in other words: all of it that takes an allocation.
pub(super) struct New {
    kept: Kept,
    words: Words,
    mark: u64,
}

impl New {
    /// `own` as [`Kept::new`] has it.
    pub(super) fn of(seen: &Seen<'_>, mark: u64, own: Option<&WorkloadId>) -> Self {
        Self {
            kept: Kept::new(seen, own),
            words: Words::of(seen.outcome),
            mark,
        }
    }
}

/// Everything that is remembered at one moment, shared with it as far as it may be.
pub(super) struct Copied {
    all: Vec<(Kept, Counted)>,
    pub(super) forgotten: u64,
}

impl Copied {
    /// All records, the latest first, none of them open.
    pub(super) fn records(mut self) -> impl Iterator<Item = DecisionRecord> {
        self.all
            .sort_unstable_by_key(|(_, counted)| std::cmp::Reverse(counted.turn));
        let all = self.all.into_iter();
        all.map(|(kept, counted)| counted.record(&kept))
    }
}

impl Half {
    pub(super) fn new(room: usize, metrics: Metrics) -> Self {
        Self {
            room,
            bytes: 0,
            records: HashMap::new(),
            turn: 0,
            forgotten: 0,
            own: None,
            metrics,
        }
    }

    /// Counts a decision that is known, in the same words.
    pub(super) fn again(&mut self, seen: &Seen<'_>, key: &Key<'_>, mark: u64) -> Option<LastEnd> {
        let known = self.records.get_mut(key as &dyn HasKey)?;
        if known.mark != mark {
            return None;
        }
        self.turn += 1;
        known.again(seen, self.turn);
        Some(known.last_end.clone())
    }

    /// Counts any other.
    pub(super) fn add(&mut self, seen: &Seen<'_>, new: New) -> LastEnd {
        let known = self.records.get_mut(&new.kept as &dyn HasKey);
        let last_end = match known {
            Some(known) => {
                self.turn += 1;
                known.again(seen, self.turn);
                self.bytes -= known.words.bytes();
                known.words = new.words;
                known.mark = new.mark;
                self.bytes += known.words.bytes();
                known.last_end.clone()
            }
            None => self.insert(seen, new),
        };
        self.make_room();
        last_end
    }

    fn insert(&mut self, seen: &Seen<'_>, new: New) -> LastEnd {
        self.turn += 1;
        let mut counted = Counted {
            turn: self.turn,
            first: seen.at,
            last: seen.at,
            source: seen.source.address,
            count: 0,
            connections: [0; MAX_CONNECTIONS_NAMED],
            words: new.words,
            mark: new.mark,
            last_end: LastEnd::of(seen.outcome),
        };
        counted.again(seen, self.turn);
        let last_end = counted.last_end.clone();
        self.bytes += bytes(&new.kept, &counted);
        self.records.insert(new.kept, Box::new(counted));
        self.metrics.decision_recorded();
        last_end
    }

    /// The identity that is ours in this connection, as an earlier record has it.
    pub(super) fn own_identity(&mut self, seen: &Seen<'_>) -> Option<WorkloadId> {
        let of = |peer: &Peer| peer.identity.clone();
        let own = match seen.direction {
            Direction::Inbound => seen.destination.and_then(of),
            Direction::Outbound => of(seen.source),
        };
        if own.is_some() && self.own != own {
            self.own = own;
        }
        self.own.clone()
    }

    fn make_room(&mut self) {
        while self.bytes > self.room {
            let mut turns: Vec<_> = self.records.values().map(|it| it.turn).collect();
            let last_to_go = (turns.len() / FORGOTTEN_AT_A_TIME).min(turns.len().saturating_sub(1));
            if turns.is_empty() {
                return;
            }
            let (_, last_to_go, _) = turns.select_nth_unstable(last_to_go);
            let last_to_go = *last_to_go;
            self.forget_until(last_to_go);
        }
    }

    fn forget_until(&mut self, turn: u64) {
        let mut gone = 0;
        let bytes_left = &mut self.bytes;
        self.records.retain(|kept, counted| {
            let stays = counted.turn > turn;
            if !stays {
                gone += 1;
                *bytes_left = bytes_left.saturating_sub(bytes(kept, counted));
            }
            stays
        });
        self.forgotten += gone;
        self.metrics.decisions_forgotten(gone);
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[cfg(test)]
    pub(super) fn counted_again(&self) -> usize {
        self.records
            .iter()
            .map(|(kept, counted)| bytes(kept, counted))
            .sum()
    }

    /// Quick: connections wait for it.
    pub(super) fn copied(&self) -> Copied {
        let records = self.records.iter();
        Copied {
            all: records
                .map(|(kept, counted)| (kept.clone(), Counted::clone(counted)))
                .collect(),
            forgotten: self.forgotten,
        }
    }
}

fn bytes(kept: &Kept, counted: &Counted) -> usize {
    kept.bytes() + size_of::<Counted>() + counted.words.bytes() + PER_RECORD
}

impl Counted {
    fn again(&mut self, seen: &Seen<'_>, turn: u64) {
        let place = usize::try_from(self.count).unwrap_or_default() % MAX_CONNECTIONS_NAMED;
        if let Some(id) = self.connections.get_mut(place) {
            *id = seen.connection.as_u64();
        }
        self.count += 1;
        self.turn = turn;
        self.last = seen.at;
        self.source = seen.source.address;
    }

    /// The latest connections, the latest last.
    fn connections(&self) -> Vec<ConnectionId> {
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        let kept = count.min(MAX_CONNECTIONS_NAMED);
        let oldest = if count > kept { count % kept } else { 0 };
        let ids = self.connections.iter().take(kept).cycle();
        ids.skip(oldest)
            .take(kept)
            .map(|id| ConnectionId::from_u64(*id))
            .collect()
    }

    fn record(&self, kept: &Kept) -> DecisionRecord {
        let parts = kept.parts();
        let words = || self.words.text.as_deref().map(Box::from);
        let (recorded, recorded_more) = self.words.recorded();
        let (reason, error) = match (parts.step, parts.refusal) {
            (Some(_), _) => (words(), None),
            (None, Some(refusal)) => (Some(refusal.as_str().into()), words()),
            (None, None) => (None, words()),
        };
        DecisionRecord {
            first: self.first,
            last: self.last,
            direction: parts.direction,
            source: Endpoint {
                address: self.source,
                identity: parts.caller.clone(),
            },
            destination: parts.destination.map(|address| Endpoint {
                address,
                identity: parts.callee.clone(),
            }),
            outcome: parts.outcome,
            decided_by_peer: parts.decided_by_peer,
            step: parts.step,
            policy: parts.policy.clone(),
            rule: parts.rule,
            reason,
            plaintext: parts.plaintext.map(|reason| reason.as_str().into()),
            error,
            recorded,
            recorded_more,
            count: self.count,
            open: 0,
            ended: self.last_end.at(),
            connections: self.connections(),
        }
    }
}
