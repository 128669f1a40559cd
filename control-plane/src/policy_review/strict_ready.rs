//! Who still speaks plaintext to whom, and whether STRICT would cut anybody.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    authorization::{Caller, MutualTls, MutualTlsMode, PolicySnapshot},
    decision_record::{DecisionRecord, Direction, Outcome},
};

use self::gaps::Period;
pub use self::{
    gaps::{Flaw, Gap},
    next_step::NextStep,
};
use super::{
    Documents, Judgement, Recorded, ReviewedWorkload,
    recorded::{end_unknown, judge, judged_facts, may_be_in_use},
};

mod gaps;
mod next_step;

/// What was recorded of plaintext, and everything that is not known.
#[derive(Debug)]
pub struct StrictReadiness<'a> {
    /// Of it and of what is still open, everything is looked at.
    pub from: SystemTime,
    /// Meshed workloads that STRICT would be for.
    pub workloads: usize,
    /// Plaintext that came in and was let through: STRICT would cut it.
    pub plaintext: Vec<Plaintext<'a>>,
    /// Mesh callers that were let through, and that no policy allows: STRICT would deny them.
    pub permissive_only: Vec<PermissiveOnly<'a>>,
    /// Plaintext that came in and was refused or denied: STRICT changes nothing for it.
    pub refused: Vec<Plaintext<'a>>,
    /// Plaintext that went out to workloads without a sidecar: STRICT is not about it.
    pub outbound: Vec<Plaintext<'a>>,
    /// Why nobody can say that STRICT would cut nobody, beside the callers above.
    pub gaps: Vec<Gap<'a>>,
    /// Only if it is ready.
    pub next_step: Option<NextStep>,
}

impl StrictReadiness<'_> {
    /// STRICT would cut nobody, and everything that this rests on is known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.plaintext.is_empty() && self.permissive_only.is_empty() && self.gaps.is_empty()
    }
}

/// Plaintext of one address to one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plaintext<'a> {
    /// The workload whose sidecar recorded it.
    pub workload: &'a ReviewedWorkload,
    /// The other side.
    pub peer: IpAddr,
    /// The one workload with that address, if the documents know it.
    pub known: Option<&'a ReviewedWorkload>,
    /// That was dialled: on this workload, or on the other side.
    pub port: u16,
    pub first: SystemTime,
    pub last: SystemTime,
    pub count: u64,
    pub open: u64,
    /// Some of them may have been in use later than `last`: nobody noted when they ended.
    pub end_unknown: bool,
}

/// A caller with an identity that was let through, and that STRICT would deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissiveOnly<'a> {
    pub workload: &'a ReviewedWorkload,
    pub caller: String,
    pub port: u16,
    pub last: SystemTime,
    pub count: u64,
    /// What STRICT would say.
    pub strict: Judgement,
}

/// Looks at everything that was recorded within `window` before `now`, or is open still.
#[must_use]
pub fn strict_readiness<'a>(
    documents: &'a Documents,
    recorded: &[Recorded<'a>],
    namespace: Option<&'a str>,
    window: Duration,
    now: SystemTime,
) -> StrictReadiness<'a> {
    let from = now.checked_sub(window).unwrap_or(SystemTime::UNIX_EPOCH);
    let of_namespace = |workload: &ReviewedWorkload| {
        namespace.is_none_or(|namespace| workload.name.namespace == namespace)
    };
    let mut found = Found::default();
    for one in recorded.iter().filter(|one| of_namespace(one.workload)) {
        let present = documents.snapshot_for(one.workload, now);
        let strict = PolicySnapshot {
            mutual_tls: MutualTls {
                mode: MutualTlsMode::Strict,
                ports: BTreeMap::new(),
            },
            ..present.clone()
        };
        let records = one.recording.records.iter();
        for record in records.filter(|record| may_be_in_use(one, record, from)) {
            found.look_at(documents, one, record, (&present, &strict), now);
        }
    }
    let meshed = documents.workloads().iter();
    let meshed: Vec<_> = meshed
        .filter(|workload| workload.meshed && of_namespace(workload))
        .collect();
    let mut gaps = Vec::new();
    if !documents.errors().is_empty() {
        gaps.push(Gap::Documents(documents.errors().len()));
    }
    if meshed.is_empty() {
        gaps.push(Gap::NoWorkload(namespace));
    }
    let period = Period { from, window, now };
    for workload in &meshed {
        gaps.extend(period.gap(workload, recorded));
    }
    gaps.append(&mut found.gaps);
    let mut readiness = StrictReadiness {
        from,
        workloads: meshed.len(),
        plaintext: sorted(found.plaintext),
        permissive_only: found.permissive_only.into_values().collect(),
        refused: sorted(found.refused),
        outbound: sorted(found.outbound),
        gaps,
        next_step: None,
    };
    if readiness.is_ready() {
        readiness.next_step = next_step::next_step(documents, namespace, &meshed);
    }
    readiness
}

/// By workload, other side and port.
type Calls<'a> = BTreeMap<(String, IpAddr, u16), Plaintext<'a>>;

#[derive(Default)]
struct Found<'a> {
    plaintext: Calls<'a>,
    refused: Calls<'a>,
    outbound: Calls<'a>,
    permissive_only: BTreeMap<(String, String, u16), PermissiveOnly<'a>>,
    gaps: Vec<Gap<'a>>,
}

impl<'a> Found<'a> {
    fn look_at(
        &mut self,
        documents: &'a Documents,
        one: &Recorded<'a>,
        record: &DecisionRecord,
        (present, strict): (&PolicySnapshot, &PolicySnapshot),
        now: SystemTime,
    ) {
        let Some(destination) = &record.destination else {
            if record.direction == Direction::Inbound && record.is_let_through() {
                self.gap(Gap::of(one, Flaw::Unclear));
            }
            return;
        };
        let (source, to) = (record.source.address, destination.address);
        match record.direction {
            Direction::Outbound if record.outcome == Outcome::Pass => {
                let there = documents.workload_at(to.ip());
                // what leaves the mesh for a name server or the internet is not meant
                let unmeshed = record.plaintext.as_deref() == Some("outbound_unmeshed");
                if there.is_some() || unmeshed {
                    add(&mut self.outbound, there, one, to, to.port(), record);
                }
            }
            Direction::Outbound => {}
            Direction::Inbound if record.source.identity.is_none() => {
                let there = documents.workload_at(source.ip());
                let judged = record.is_let_through() || judged_facts(record).is_some();
                let calls = if record.is_let_through() {
                    &mut self.plaintext
                } else {
                    &mut self.refused
                };
                if judged {
                    add(calls, there, one, source, to.port(), record);
                }
            }
            Direction::Inbound if record.is_let_through() => {
                self.caller(one, record, (present, strict), now);
            }
            Direction::Inbound => {}
        }
    }

    /// Each is told once, however many records lead to it.
    fn gap(&mut self, gap: Gap<'a>) {
        if !self.gaps.contains(&gap) {
            self.gaps.push(gap);
        }
    }

    /// A mesh caller: STRICT also changes what happens to whom no rule names. What the sidecar did
    /// counts, whatever the documents say of it.
    fn caller(
        &mut self,
        one: &Recorded<'a>,
        record: &DecisionRecord,
        (present, strict): (&PolicySnapshot, &PolicySnapshot),
        now: SystemTime,
    ) {
        let Some(facts) = judged_facts(record) else {
            return self.gap(Gap::of(one, Flaw::Unclear));
        };
        let Caller::Authenticated(id) = facts.caller else {
            return self.gap(Gap::of(one, Flaw::Unclear));
        };
        let under_strict = judge(strict, &facts, now);
        if under_strict.allowed {
            return;
        }
        if !judge(present, &facts, now).allowed {
            self.gap(Gap::of(one, Flaw::Contradicted));
        }
        let key = (one.workload.name.to_string(), id.to_string(), facts.port);
        let caller = self
            .permissive_only
            .entry(key)
            .or_insert_with(|| PermissiveOnly {
                workload: one.workload,
                caller: id.to_string(),
                port: facts.port,
                last: record.last_use(),
                count: 0,
                strict: under_strict,
            });
        caller.count = caller.count.saturating_add(record.count);
        caller.last = caller.last.max(record.last_use());
    }
}

fn add<'a>(
    calls: &mut Calls<'a>,
    known: Option<&'a ReviewedWorkload>,
    one: &Recorded<'a>,
    peer: SocketAddr,
    port: u16,
    record: &DecisionRecord,
) {
    let peer = peer.ip().to_canonical();
    let key = (one.workload.name.to_string(), peer, port);
    let call = calls.entry(key).or_insert_with(|| Plaintext {
        workload: one.workload,
        peer,
        known,
        port,
        first: record.first,
        last: record.last_use(),
        count: 0,
        open: 0,
        end_unknown: false,
    });
    call.first = call.first.min(record.first);
    call.last = call.last.max(record.last_use());
    call.end_unknown |= end_unknown(one, record) && record.open == 0;
    call.count = call.count.saturating_add(record.count);
    call.open = call.open.saturating_add(record.open);
}

/// Who came last comes first.
fn sorted(calls: Calls<'_>) -> Vec<Plaintext<'_>> {
    let mut calls: Vec<_> = calls.into_values().collect();
    calls.sort_by_key(|call| std::cmp::Reverse(call.last));
    calls
}

#[cfg(test)]
mod tests;
