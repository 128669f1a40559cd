//! What an answer from recordings leaves out.

use std::{collections::BTreeSet, fmt};

use mesh_lite_proto::{
    authorization::SourceRef,
    decision_record::{ConnectionId, Recording},
};

use super::{Recorded, flips::JudgedAgain};

/// Something that an answer from records can't tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// Of this recording, so many records are lost.
    Forgotten { recording: Box<str>, records: u64 },
    /// The same, where everything that is live is known nevertheless.
    ForgottenEnded { recording: Box<str>, records: u64 },
    /// A log that begins after its sidecar did: what was let through before may be live.
    BeginsLate { recording: Box<str> },
    /// Both tell of the same connections.
    Twice { one: Box<str>, other: Box<str> },
    /// No connection of any recording could be judged.
    NothingJudged,
    /// Records don't say with which certificate a caller came.
    BySerial(SourceRef),
    /// Connections went out to a workload whose sidecar judges them, and which has no recording
    /// here.
    Elsewhere { workload: String, connections: u64 },
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forgotten { recording, records } => write!(
                f,
                "{} is incomplete: {records} {} of it were lost, and with them any caller \
                 that came once; record again, or give the whole access log in one file",
                recording.escape_debug(),
                in_number(*records, "record")
            ),
            Self::ForgottenEnded { recording, records } => write!(
                f,
                "{} has all that is live, so what closes is whole; {records} {} of what is not \
                 live were lost, so what opens, and whom it denies later, is not",
                recording.escape_debug(),
                in_number(*records, "record")
            ),
            Self::BeginsLate { recording } => write!(
                f,
                "{} begins later than its sidecar, and what was let through before may be live; \
                 save the page /decisions and give that",
                recording.escape_debug()
            ),
            Self::Twice { one, other } => write!(
                f,
                "{} and {} tell of the same connections, which are counted twice: leave one out",
                one.escape_debug(),
                other.escape_debug()
            ),
            Self::NothingJudged => f.write_str(
                "no recorded connection came as far as policy, so nothing was judged: give \
                 recordings of the sidecars that are called",
            ),
            Self::BySerial(source) => write!(
                f,
                "{source} evicts one certificate by its serial, which records don't hold: whom it \
                 cuts is not said here"
            ),
            Self::Elsewhere {
                workload,
                connections,
            } => write!(
                f,
                "{connections} recorded {} went out to {workload}, whose own sidecar judges them: \
                 give its recording too",
                in_number(*connections, "connection")
            ),
        }
    }
}

fn in_number(count: u64, word: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{word}{end}")
}

pub(super) fn caveats(recorded: &[Recorded<'_>], again: &JudgedAgain<'_>) -> Vec<Caveat> {
    let forgotten = recorded
        .iter()
        .filter(|one| one.recording.forgotten > 0)
        .map(|one| Caveat::Forgotten {
            recording: one.name.into(),
            records: one.recording.forgotten,
        });
    let by_serial = again.by_serial.iter().cloned().map(Caveat::BySerial);
    let elsewhere = again
        .elsewhere
        .iter()
        .map(|(workload, &connections)| Caveat::Elsewhere {
            workload: workload.clone(),
            connections,
        });
    let is_nothing = again.connections == 0 && again.elsewhere.is_empty();
    let nothing = is_nothing.then_some(Caveat::NothingJudged);
    forgotten
        .chain(twice(recorded))
        .chain(nothing)
        .chain(by_serial)
        .chain(elsewhere)
        .collect()
}

/// As [`caveats`]; of a saved page everything live is known, of a log only if it is whole.
pub(super) fn caveats_of_live(recorded: &[Recorded<'_>], again: &JudgedAgain<'_>) -> Vec<Caveat> {
    let late = recorded.iter().filter(|one| one.recording.begins_late);
    let late = late.map(|one| Caveat::BeginsLate {
        recording: one.name.into(),
    });
    let is_page = |name: &str| {
        let mut named = recorded.iter().filter(|one| one.name == name);
        named.all(|one| is_page(one.recording))
    };
    let others = caveats(recorded, again).into_iter();
    let others = others.map(|caveat| match caveat {
        Caveat::Forgotten { recording, records } if is_page(&recording) => {
            Caveat::ForgottenEnded { recording, records }
        }
        other => other,
    });
    others.chain(late).collect()
}

/// Pages name their workload, logs never do.
fn is_page(recording: &Recording) -> bool {
    recording.workload.is_some()
}

fn twice(recorded: &[Recorded<'_>]) -> Vec<Caveat> {
    let mut twice = Vec::new();
    for (at, one) in recorded.iter().enumerate() {
        let earlier = recorded.iter().take(at);
        let of_it = earlier.filter(|other| other.workload == one.workload);
        for other in of_it.filter(|other| overlap(one.recording, other.recording)) {
            twice.push(Caveat::Twice {
                one: other.name.into(),
                other: one.name.into(),
            });
        }
    }
    twice
}

/// A page tells of all of its run; of two logs each may be a part.
fn overlap(one: &Recording, other: &Recording) -> bool {
    let ids = |recording: &Recording| -> BTreeSet<ConnectionId> {
        let records = recording.records.iter();
        records
            .flat_map(|record| record.connections.iter().copied())
            .collect()
    };
    let (one_ids, other_ids) = (ids(one), ids(other));
    if !is_page(one) && !is_page(other) {
        return !one_ids.is_disjoint(&other_ids);
    }
    let runs: BTreeSet<u64> = one_ids.iter().map(|id| id.run()).collect();
    other_ids.iter().any(|id| runs.contains(&id.run()))
}
