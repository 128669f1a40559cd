//! Which records the open connections belong to.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    decision_record::{DecisionRecord, Endpoint, MAX_CONNECTIONS_NAMED, Outcome},
    identity::WorkloadId,
};

use crate::{
    live_connections::{Live, Subject},
    metrics::Direction,
};

const NO_RECORD: &str = "it is open, and no record is left, or made yet, of how it was decided";

/// What a record and an open connection have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Who {
    direction: Direction,
    /// The other end, as far as it proved itself.
    peer: Option<WorkloadId>,
    source: IpAddr,
    destination: (IpAddr, u16),
}

/// Counts the open connections in `records`, which were let through and come the latest first.
/// Those without a record get records of their own: nothing that is open goes unmentioned.
pub(super) fn count(
    records: &mut Vec<DecisionRecord>,
    live: &[Arc<Live>],
    since: SystemTime,
    now: SystemTime,
) {
    let mut unnamed = count_named(records, live);
    for record in &mut *records {
        let Some(alike) = Who::of_record(record).and_then(|who| unnamed.get_mut(&who)) else {
            continue;
        };
        // never more than were recorded: the rest was decided otherwise, long ago
        let room = usize::try_from(record.count - record.open).unwrap_or(usize::MAX);
        let left = alike.split_off(room.min(alike.len()));
        record.open += alike.len() as u64;
        *alike = left;
    }
    let alike = unnamed.into_values();
    records.extend(alike.filter_map(|alike| without_record(&alike, since, now)));
}

/// Counts those that a record names, and returns the others, the latest first.
fn count_named<'a>(
    records: &mut [DecisionRecord],
    live: &'a [Arc<Live>],
) -> HashMap<Who, Vec<&'a Live>> {
    let mut open: HashMap<_, _> = live.iter().map(|live| (live.id, &**live)).collect();
    for record in records {
        let ids = record.connections.iter();
        record.open = ids.filter_map(|id| open.remove(id)).count() as u64;
    }
    let mut unnamed = HashMap::<_, Vec<_>>::new();
    for live in open.into_values() {
        let alike = unnamed.entry(Who::of(&live.subject)).or_default();
        alike.push(live);
    }
    for alike in unnamed.values_mut() {
        alike.sort_unstable_by_key(|live| Reverse(live.id));
    }
    unnamed
}

/// A record of open connections with the same facts, of which nothing else is known.
fn without_record(alike: &[&Live], since: SystemTime, now: SystemTime) -> Option<DecisionRecord> {
    let subject = &alike.first()?.subject;
    let peer = subject.peer.as_ref().map(|peer| peer.id().clone());
    let (caller, callee, outcome) = match (subject.direction, &peer) {
        (Direction::Inbound, _) => (peer, None, Outcome::Allow),
        (Direction::Outbound, Some(_)) => (None, peer, Outcome::Unanswered),
        (Direction::Outbound, None) => (None, None, Outcome::Pass),
    };
    let named = alike.iter().take(MAX_CONNECTIONS_NAMED).rev();
    Some(DecisionRecord {
        first: since,
        last: now,
        direction: subject.direction,
        source: Endpoint {
            address: SocketAddr::new(subject.source, 0),
            identity: caller,
        },
        destination: Some(Endpoint {
            address: subject.destination,
            identity: callee,
        }),
        outcome,
        decided_by_peer: false,
        step: None,
        policy: None,
        rule: None,
        reason: None,
        plaintext: None,
        error: Some(NO_RECORD.into()),
        recorded: [].into(),
        recorded_more: 0,
        count: alike.len() as u64,
        open: alike.len() as u64,
        ended: None,
        connections: named.map(|live| live.id).collect(),
    })
}

impl Who {
    fn of(subject: &Subject) -> Self {
        let destination = subject.destination;
        Self {
            direction: subject.direction,
            peer: subject.peer.as_ref().map(|peer| peer.id().clone()),
            source: subject.source,
            destination: (destination.ip(), destination.port()),
        }
    }

    fn of_record(record: &DecisionRecord) -> Option<Self> {
        let destination = record.destination.as_ref()?;
        let peer = match record.direction {
            Direction::Inbound => &record.source.identity,
            Direction::Outbound => &destination.identity,
        };
        Some(Self {
            direction: record.direction,
            peer: peer.clone(),
            source: record.source.address.ip(),
            destination: (destination.address.ip(), destination.address.port()),
        })
    }
}
