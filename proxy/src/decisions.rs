//! What this sidecar remembers of its decisions: each distinct one, with how often it was made.
//!
//! Distinct ones, and not the last so many connections: whoever asks whether anybody still speaks
//! plaintext must be told of the one caller that comes once a day, however many others came since.
//!
//! A connection pays for a lookup. The page `/decisions` is made when somebody asks for it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use mesh_lite_proto::{decision_record::Recording, svid::LeafFacts};

pub use self::last_end::LastEnd;
use self::{
    half::{Half, New},
    key::Key,
    words::mark,
};
use crate::{
    access_log::{ConnectionId, Outcome, Peer},
    live_connections::LiveConnections,
    metrics::{Direction, Metrics},
};

mod half;
mod key;
mod last_end;
mod open;
mod words;

/// Bytes for everything remembered, however much memory there is: 580 records of callers that were
/// let through, which is more than most workloads have, and 970 of strangers. Measured, the
/// allocator's share included, full it is 1.6 MiB resident.
const MAX_ROOM: usize = 1024 * 1024;
/// Of a small memory limit, this part.
const PART_OF_MEMORY: u64 = 64;

/// Bytes that may be remembered in a process with this memory limit.
pub fn room(memory_limit: Option<u64>) -> usize {
    let part = memory_limit.map_or(u64::MAX, |limit| limit / PART_OF_MEMORY);
    usize::try_from(part).map_or(MAX_ROOM, |part| part.min(MAX_ROOM))
}

/// One connection, as far as it was decided on.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub at: SystemTime,
    pub connection: ConnectionId,
    pub direction: Direction,
    pub source: &'a Peer,
    pub destination: Option<&'a Peer>,
    pub outcome: &'a Outcome,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Decisions(Arc<Remembered>);

struct Remembered {
    since: SystemTime,
    // what was let through, and the rest: a flood of strangers never pushes out what was allowed
    let_through: Mutex<Half>,
    rest: Mutex<Half>,
}

impl Decisions {
    /// Remembers from `since` on, in at most `room` bytes.
    pub fn new(room: usize, since: SystemTime, metrics: &Metrics) -> Self {
        let half = || Mutex::new(Half::new(room / 2, metrics.clone()));
        Self(Arc::new(Remembered {
            since,
            let_through: half(),
            rest: half(),
        }))
    }

    /// Whoever lets the connection through notes its end.
    pub fn record(&self, seen: &Seen<'_>) -> LastEnd {
        let half = if seen.outcome.is_let_through() {
            &self.0.let_through
        } else {
            &self.0.rest
        };
        let (key, mark) = (Key::of(seen), mark(seen.outcome));
        let own = {
            let mut half = locked(half);
            if let Some(known) = half.again(seen, &key, mark) {
                return known;
            }
            half.own_identity(seen)
        };
        // names and words are made while others are recorded
        let new = New::of(seen, mark, own.as_ref());
        locked(half).add(seen, new)
    }

    /// All that is remembered, of the workload of this certificate, and how much of it is open.
    pub fn recording(
        &self,
        own: Option<&LeafFacts>,
        live: &LiveConnections,
        now: SystemTime,
    ) -> Recording {
        // whoever is recorded after this look is not among the open ones either
        let live = live.all();
        let let_through = locked(&self.0.let_through).copied();
        let rest = locked(&self.0.rest).copied();
        let forgotten_let_through = let_through.forgotten;
        let forgotten = forgotten_let_through.saturating_add(rest.forgotten);
        let mut records = let_through.records().collect();
        open::count(&mut records, &live, self.0.since, now);
        records.extend(rest.records());
        Recording {
            workload: own.and_then(workload),
            identity: own.map(|leaf| leaf.id.clone()),
            since: self.0.since,
            until: now,
            forgotten,
            forgotten_let_through,
            begins_late: false,
            ends_noted: true,
            records,
        }
    }
}

/// `namespace/name`, if the certificate says both.
fn workload(leaf: &LeafFacts) -> Option<Box<str>> {
    let (namespace, name) = (leaf.id.namespace()?, leaf.common_name.as_ref()?);
    Some(format!("{namespace}/{name}").into())
}

fn locked(half: &Mutex<Half>) -> MutexGuard<'_, Half> {
    half.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
