//! Which recorded connections other documents would judge otherwise.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{Caller, PolicySnapshot, SourceRef},
    decision_record::{DecisionRecord, Direction, Outcome},
    identity::WorkloadId,
};

use super::{
    Documents, Judgement, Recorded, ReviewedWorkload,
    recorded::{by_serial, judge, judge_peer, judged_facts},
};

/// Connections of one caller to one port that would be judged otherwise, for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip<'a> {
    /// Whose sidecar recorded it.
    pub workload: &'a ReviewedWorkload,
    pub direction: Direction,
    /// `None`: plaintext.
    pub caller: Option<&'a WorkloadId>,
    /// From where it came, each of them.
    pub sources: BTreeSet<IpAddr>,
    /// Of an outbound connection, whom it went to.
    pub peer: Option<&'a WorkloadId>,
    pub destination: SocketAddr,
    pub then: Then<'a>,
    pub now: Judgement,
    /// By what holds where no document says anything, and nothing else.
    pub by_shipped_default: bool,
    /// Records of it.
    pub distinct: usize,
    /// Connections of it.
    pub count: u64,
    /// Those of them that were open when the recording was made.
    pub open: u64,
    pub first: SystemTime,
    pub last: SystemTime,
}

/// What had become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Then<'a> {
    pub outcome: Outcome,
    pub policy: Option<&'a SourceRef>,
    pub reason: Option<&'a str>,
}

impl Flip<'_> {
    /// It was let through, and would not be.
    #[must_use]
    pub fn closes(&self) -> bool {
        !self.now.allowed
    }
}

/// Records that were judged again, and what came of it.
#[derive(Debug, Default)]
pub(super) struct JudgedAgain<'a> {
    /// Connections, and records of them, that could be judged.
    pub(super) connections: u64,
    pub(super) distinct: usize,
    /// Of them, open ones.
    pub(super) open: u64,
    /// Inbound connections that never came as far as policy.
    pub(super) not_asked: u64,
    /// Those that the other shipped default would judge otherwise.
    pub(super) by_shipped_default: u64,
    /// Outbound ones by workload at whose sidecar they are judged, if it has no recording here.
    pub(super) elsewhere: BTreeMap<String, u64>,
    pub(super) flips: Vec<Flip<'a>>,
    /// Documents that evict a certificate by its serial.
    pub(super) by_serial: BTreeSet<SourceRef>,
}

/// Judges every record for which `wanted` holds by the documents, as the sidecar that made it
/// would. What would be closed comes first, most connections first.
pub(super) fn judge_again<'a>(
    documents: &Documents,
    recorded: &[Recorded<'a>],
    now: SystemTime,
    wanted: impl Fn(&Recorded<'a>, &'a DecisionRecord) -> bool,
) -> JudgedAgain<'a> {
    let mut again = JudgedAgain::default();
    let mut groups = Groups::default();
    for one in recorded {
        let snapshot = documents.snapshot_for(one.workload, now);
        let snapshots = (
            &snapshot,
            &documents.snapshot_if_shipped_otherwise(one.workload, now),
        );
        again.by_serial.extend(by_serial(&snapshot, now).cloned());
        let records = one.recording.records.iter();
        for record in records.filter(|record| wanted(one, record)) {
            match record.direction {
                Direction::Inbound => again.inbound(one, record, snapshots, now, &mut groups),
                Direction::Outbound => {
                    again.outbound(
                        (documents, recorded),
                        one,
                        record,
                        &snapshot,
                        now,
                        &mut groups,
                    );
                }
            }
        }
    }
    again.flips = groups.into_flips();
    // what arrives at a workload that has a recording here is counted where it arrives
    let out = again.flips.iter().filter(|flip| {
        let there = documents.workload_at(flip.destination.ip());
        flip.direction == Direction::Outbound && !is_recorded(recorded, there)
    });
    for flip in out {
        again.connections = again.connections.saturating_add(flip.count);
        again.distinct += flip.distinct;
        again.open = again.open.saturating_add(flip.open);
    }
    again
}

fn is_recorded(recorded: &[Recorded<'_>], workload: Option<&ReviewedWorkload>) -> bool {
    workload.is_some_and(|workload| recorded.iter().any(|one| one.workload == workload))
}

impl<'a> JudgedAgain<'a> {
    /// Takes over what is not known of other records of the same recordings.
    pub(super) fn leaves_out_too(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        let by_default = self.by_shipped_default;
        self.by_shipped_default = by_default.saturating_add(other.by_shipped_default);
        self.by_serial.extend(other.by_serial.iter().cloned());
        for (workload, connections) in &other.elsewhere {
            let count = self.elsewhere.entry(workload.clone()).or_default();
            *count = count.saturating_add(*connections);
        }
    }

    fn inbound(
        &mut self,
        one: &Recorded<'a>,
        record: &'a DecisionRecord,
        (snapshot, otherwise): (&PolicySnapshot, &PolicySnapshot),
        now: SystemTime,
        groups: &mut Groups<'a>,
    ) {
        let (Some(facts), Some(destination)) = (judged_facts(record), &record.destination) else {
            self.not_asked = self.not_asked.saturating_add(record.count);
            return;
        };
        self.connections = self.connections.saturating_add(record.count);
        self.distinct += 1;
        self.open = self.open.saturating_add(record.open);
        let judgement = judge(snapshot, &facts, now);
        let by_default = judge(otherwise, &facts, now).allowed != judgement.allowed;
        if by_default {
            self.by_shipped_default = self.by_shipped_default.saturating_add(record.count);
        }
        if judgement.allowed != record.is_let_through() {
            let caller = match facts.caller {
                Caller::Authenticated(id) => Some(id),
                Caller::Plaintext => None,
            };
            let ends = (caller, destination.address, None);
            groups.add(one, record, ends, (judgement, by_default));
        }
    }

    /// Whether it may go out is decided here, by evictions alone; what it may do there is decided
    /// there.
    fn outbound(
        &mut self,
        (documents, recorded): (&Documents, &[Recorded<'a>]),
        one: &Recorded<'a>,
        record: &'a DecisionRecord,
        snapshot: &PolicySnapshot,
        now: SystemTime,
        groups: &mut Groups<'a>,
    ) {
        let Some(destination) = &record.destination else {
            return;
        };
        let Some(peer) = &destination.identity else {
            return;
        };
        if record.outcome == Outcome::Allow
            && let Some(judgement) = judge_peer(snapshot, peer, now)
        {
            let ends = (
                record.source.identity.as_ref(),
                destination.address,
                Some(peer),
            );
            groups.add(one, record, ends, (judgement, false));
        }
        let there = documents.workload_at(destination.address.ip());
        if !is_recorded(recorded, there) {
            let name = there.map_or_else(|| peer.to_string(), |there| there.name.to_string());
            let count = self.elsewhere.entry(name).or_default();
            *count = count.saturating_add(record.count);
        }
    }
}

type Ends<'a> = (Option<&'a WorkloadId>, SocketAddr, Option<&'a WorkloadId>);

/// What makes two records the same to a reader.
#[derive(PartialEq, Eq, Hash)]
struct Key<'a> {
    workload: &'a crate::WorkloadName,
    ends: Ends<'a>,
    /// Of plaintext, the only name that it has.
    source: Option<IpAddr>,
    then: Then<'a>,
    reason: String,
}

#[derive(Default)]
struct Groups<'a> {
    places: HashMap<Key<'a>, usize>,
    flips: Vec<Flip<'a>>,
}

impl<'a> Groups<'a> {
    fn add(
        &mut self,
        one: &Recorded<'a>,
        record: &'a DecisionRecord,
        ends: Ends<'a>,
        (now, by_shipped_default): (Judgement, bool),
    ) {
        let (caller, destination, peer) = ends;
        let source = record.source.address.ip();
        let then = Then {
            outcome: record.outcome,
            policy: record.policy.as_ref(),
            // of a decision the reason follows from the policy, and names what this caller has
            reason: record.reason.as_deref(),
        };
        let key = Key {
            workload: &one.workload.name,
            ends,
            source: caller.is_none().then_some(source),
            then,
            reason: now.reason.clone(),
        };
        let place = *self.places.entry(key).or_insert(self.flips.len());
        if place == self.flips.len() {
            self.flips.push(Flip {
                workload: one.workload,
                direction: record.direction,
                caller,
                sources: BTreeSet::new(),
                peer,
                destination,
                then,
                now,
                by_shipped_default,
                distinct: 0,
                count: 0,
                open: 0,
                first: record.first,
                last: record.last,
            });
        }
        if let Some(flip) = self.flips.get_mut(place) {
            flip.by_shipped_default |= by_shipped_default;
            flip.sources.insert(source);
            flip.distinct += 1;
            flip.count = flip.count.saturating_add(record.count);
            flip.open = flip.open.saturating_add(record.open);
            flip.first = flip.first.min(record.first);
            flip.last = flip.last.max(record.last);
        }
    }

    /// A connection that both of its ends would cut is one connection: told where it arrives.
    fn into_flips(self) -> Vec<Flip<'a>> {
        let arrivals: BTreeSet<_> = self
            .flips
            .iter()
            .filter(|flip| flip.direction == Direction::Inbound && flip.closes())
            .map(|flip| (flip.caller, flip.destination))
            .collect();
        let mut flips = self.flips;
        flips.retain(|flip| {
            flip.direction == Direction::Inbound
                || !arrivals.contains(&(flip.caller, flip.destination))
        });
        flips.sort_by(|one, other| {
            let order = |flip: &Flip<'a>| (flip.now.allowed, std::cmp::Reverse(flip.count));
            order(one)
                .cmp(&order(other))
                .then_with(|| one.workload.name.cmp(&other.workload.name))
                .then_with(|| (one.caller, one.destination).cmp(&(other.caller, other.destination)))
        });
        flips
    }
}
