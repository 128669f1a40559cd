//! Who called a workload, and how each fared the last time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{Caller, Step},
    decision_record::DecisionRecord,
    identity::WorkloadId,
};

use super::super::{Recorded, recorded::judged_facts};

/// All that policy may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked<'a> {
    /// `None`: plaintext.
    pub(super) caller: Option<&'a WorkloadId>,
    pub(super) port: u16,
    pub(super) source: IpAddr,
}

impl Asked<'_> {
    pub(super) fn name(&self) -> String {
        match self.caller {
            Some(id) => id.principal().to_owned(),
            None => format!("plaintext of {}", self.source),
        }
    }
}

/// How often, and when the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) count: u64,
    pub(super) last: Option<SystemTime>,
}

impl Seen {
    pub(super) fn add(&mut self, count: u64, last: Option<SystemTime>) {
        self.count = self.count.saturating_add(count);
        self.last = self.last.max(last);
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fared {
    pub(super) let_through: Seen,
    pub(super) denied: Seen,
    /// Of those that were let through, open ones.
    pub(super) open: u64,
    /// Of the latest denial.
    pub(super) reason: Box<str>,
}

impl Fared {
    /// The last time it came. Of two in one millisecond the denial counts.
    pub(super) fn was_let_through(&self) -> bool {
        self.let_through.last > self.denied.last
    }

    pub(super) fn connections(&self) -> u64 {
        self.let_through.count.saturating_add(self.denied.count)
    }

    fn take(&mut self, record: &DecisionRecord) {
        if record.is_let_through() {
            self.let_through.add(record.count, Some(record.last));
            self.open = self.open.saturating_add(record.open);
            return;
        }
        if Some(record.last) >= self.denied.last {
            self.reason = record.reason.clone().unwrap_or_default();
        }
        self.denied.add(record.count, Some(record.last));
    }
}

/// Everybody whom rules of policy, or the lack of one, let through or denied.
#[derive(Debug, Default)]
pub(super) struct Callers<'a> {
    fared: BTreeMap<Asked<'a>, Fared>,
    /// Connections that were denied for what is no intent.
    pub(super) unmeant: u64,
}

/// Callers that one rule can name together: those of the same ports, and the addresses from
/// which they were denied.
pub(super) type Rules<'a> =
    BTreeMap<(BTreeSet<u16>, BTreeSet<IpAddr>), BTreeMap<&'a WorkloadId, Seen>>;

impl<'a> Callers<'a> {
    pub(super) fn of(recorded: &[&Recorded<'a>]) -> Self {
        let mut callers = Self::default();
        for record in recorded.iter().flat_map(|one| &one.recording.records) {
            let Some(facts) = judged_facts(record) else {
                continue;
            };
            if is_unmeant(record) {
                callers.unmeant = callers.unmeant.saturating_add(record.count);
                continue;
            }
            let asked = Asked {
                caller: match facts.caller {
                    Caller::Authenticated(id) => Some(id),
                    Caller::Plaintext => None,
                },
                port: facts.port,
                source: facts.source.to_canonical(),
            };
            callers.fared.entry(asked).or_default().take(record);
        }
        callers
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Asked<'a>, &Fared)> {
        self.fared.iter()
    }

    /// Those with an identity that were let through the last time.
    pub(super) fn rules(&self) -> Rules<'a> {
        let mut ports: BTreeMap<(&WorkloadId, u16), (Seen, BTreeSet<IpAddr>)> = BTreeMap::new();
        for (asked, fared) in self.all() {
            let Some(caller) = asked.caller else { continue };
            let (seen, except) = ports.entry((caller, asked.port)).or_default();
            if fared.was_let_through() {
                seen.add(fared.let_through.count, fared.let_through.last);
            } else {
                except.insert(asked.source);
            }
        }
        ports.retain(|_, (seen, _)| seen.last.is_some());
        let mut callers = BTreeMap::<(_, BTreeSet<IpAddr>), (BTreeSet<u16>, Seen)>::new();
        for ((caller, port), (seen, except)) in ports {
            let (ports, sum) = callers.entry((caller, except)).or_default();
            ports.insert(port);
            sum.add(seen.count, seen.last);
        }
        let mut rules = Rules::new();
        for ((caller, except), (ports, seen)) in callers {
            rules
                .entry((ports, except))
                .or_default()
                .insert(caller, seen);
        }
        rules
    }

    /// Plaintext that was let through the last time, by port and address.
    pub(super) fn plaintext(&self) -> impl Iterator<Item = (&Asked<'a>, &Fared)> {
        self.all()
            .filter(|(asked, fared)| asked.caller.is_none() && fared.was_let_through())
    }

    /// Those that were denied the last time.
    pub(super) fn denied(&self) -> impl Iterator<Item = (&Asked<'a>, &Fared)> {
        self.all().filter(|(_, fared)| !fared.was_let_through())
    }
}

/// A document that could not be loaded denies everybody in its scope, and an eviction is about a
/// peer wherever it goes: neither says who may call this workload.
fn is_unmeant(record: &DecisionRecord) -> bool {
    let is_evicted = record.facts().is_none();
    !record.is_let_through() && (is_evicted || record.step == Some(Step::BrokenDocument))
}
