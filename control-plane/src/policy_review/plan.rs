//! What documents would close and open among the connections that are live.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{Caller, Facts},
    decision_record::DecisionRecord,
    identity::WorkloadId,
};

use super::{
    Caveat, Documents, Flip, Recorded, caveats::caveats_of_live, flips::judge_again,
    recorded::judged_facts,
};
use crate::WorkloadName;

/// What a change does at the moment it is made, and to whom who comes later.
#[derive(Debug)]
pub struct Plan<'a> {
    /// Connections that were open when the recordings were made, and are judged by policy.
    pub live: u64,
    /// Live connections that would be cut.
    pub closes: Vec<Flip<'a>>,
    /// Callers that were denied the last time they came, and would not be.
    pub opens: Vec<Flip<'a>>,
    /// Callers that were let through the last time they came, have nothing open, and would be
    /// denied if they came again.
    pub denies_later: Vec<Flip<'a>>,
    /// Connections that the other shipped default would judge otherwise.
    pub by_shipped_default: u64,
    /// What the answer leaves out.
    pub caveats: Vec<Caveat>,
}

impl Plan<'_> {
    /// No live connection would be cut, no caller that came and went would be denied, and nothing
    /// that would tell otherwise is missing.
    #[must_use]
    pub fn denies_nobody(&self) -> bool {
        self.closes.is_empty() && self.denies_later.is_empty() && self.caveats.is_empty()
    }

    /// Live connections that would be cut.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.closes
            .iter()
            .fold(0, |sum: u64, flip| sum.saturating_add(flip.open))
    }

    /// Callers that would get in, each port of a workload by itself.
    #[must_use]
    pub fn opened_to(&self) -> usize {
        callers(&self.opens)
    }

    /// Callers with nothing live that would be denied, each port of a workload by itself.
    #[must_use]
    pub fn denied_later(&self) -> usize {
        callers(&self.denies_later)
    }
}

/// Judges live connections by the documents, and callers without one by how they fared last.
#[must_use]
pub fn plan<'a>(documents: &Documents, recorded: &[Recorded<'a>], now: SystemTime) -> Plan<'a> {
    let latest = Latest::of(recorded);
    let is_live = |record: &DecisionRecord| record.is_let_through() && record.open > 0;
    let live = judge_again(documents, recorded, now, |_, record| is_live(record));
    let mut rest = judge_again(documents, recorded, now, |one, record| {
        !is_live(record) && latest.is(one, record)
    });
    rest.leaves_out_too(&live);
    let caveats = caveats_of_live(recorded, &rest);
    let cut: BTreeSet<_> = live.flips.iter().map(who).collect();
    let (opens, later): (Vec<_>, Vec<_>) = rest.flips.into_iter().partition(|flip| !flip.closes());
    Plan {
        live: live.open,
        denies_later: later
            .into_iter()
            .filter(|flip| !cut.contains(&who(flip)))
            .collect(),
        closes: live.flips,
        opens,
        by_shipped_default: rest.by_shipped_default,
        caveats,
    }
}

fn callers(flips: &[Flip<'_>]) -> usize {
    let callers: BTreeSet<_> = flips
        .iter()
        .map(|flip| {
            // of plaintext, its only name
            let address = flip.sources.first().filter(|_| flip.caller.is_none());
            (who(flip), address)
        })
        .collect();
    callers.len()
}

fn who<'a>(flip: &Flip<'a>) -> (&'a WorkloadName, Option<&'a WorkloadId>, u16) {
    (&flip.workload.name, flip.caller, flip.destination.port())
}

/// How each caller fared last: a policy that changed while it was recorded leaves records of
/// before, which say nothing of what holds.
#[derive(Debug)]
pub(super) struct Latest<'a>(HashMap<Asked<'a>, (SystemTime, bool)>);

/// All that a decision rests on.
type Asked<'a> = (&'a WorkloadName, Option<&'a WorkloadId>, IpAddr, u16);

impl<'a> Latest<'a> {
    pub(super) fn of(recorded: &[Recorded<'a>]) -> Self {
        let mut latest = HashMap::<_, (SystemTime, bool)>::new();
        for one in recorded {
            for record in &one.recording.records {
                let Some(asked) = asked(one, record) else {
                    continue;
                };
                let this = (record.last, !record.is_let_through());
                let known = latest.entry(asked).or_insert(this);
                // of two in one millisecond the denial counts
                *known = (*known).max(this);
            }
        }
        Self(latest)
    }

    /// Whether this is how its caller fared last. Of what policy never judged: yes.
    pub(super) fn is(&self, one: &Recorded<'a>, record: &'a DecisionRecord) -> bool {
        let Some(asked) = asked(one, record) else {
            return true;
        };
        self.0
            .get(&asked)
            .is_none_or(|(_, denied)| *denied != record.is_let_through())
    }
}

fn asked<'a>(one: &Recorded<'a>, record: &'a DecisionRecord) -> Option<Asked<'a>> {
    let Facts {
        caller,
        source,
        port,
    } = judged_facts(record)?;
    let caller = match caller {
        Caller::Authenticated(id) => Some(id),
        Caller::Plaintext => None,
    };
    Some((&one.workload.name, caller, source.to_canonical(), port))
}

#[cfg(test)]
mod tests;
