//! Why nobody can say that STRICT would cut nobody.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::decision_record::{Recording, Utc};

use super::super::{Recorded, ReviewedWorkload};

/// A recording that ends earlier than this says nothing of what is going on now. Enough to save
/// the pages of a few hundred sidecars one after the other.
const STALE: Duration = Duration::from_secs(10 * 60);
/// The last line of a log is as old as the last connection, while a page ends when it is asked
/// for.
const LAST_LINE: Duration = Duration::from_secs(2 * 60);

/// Something that nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap<'a> {
    /// So many errors: a document that can't be read may be of a workload.
    Documents(usize),
    /// There is no meshed workload to be ready.
    NoWorkload(Option<&'a str>),
    NotRecorded(&'a ReviewedWorkload),
    /// What is recorded of the workload does not say all.
    Flawed {
        workload: &'a ReviewedWorkload,
        recording: &'a str,
        flaw: Flaw,
    },
}

/// Why a recording does not say all of its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    Begins {
        since: SystemTime,
        from: SystemTime,
    },
    Ends {
        until: SystemTime,
    },
    /// So many records of what was let through.
    Forgotten(u64),
    /// A log that is not from its sidecar's start on.
    BeginsLate,
    /// The sidecar let somebody in whom the documents deny.
    Contradicted,
    /// Something was let in, and it is not clear to whom or for whom.
    Unclear,
}

impl<'a> Gap<'a> {
    pub(super) fn of(one: &Recorded<'a>, flaw: Flaw) -> Self {
        Self::Flawed {
            workload: one.workload,
            recording: one.name,
            flaw,
        }
    }
}

impl fmt::Display for Gap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Documents(errors) => write!(
                f,
                "{errors} {} in the documents: what can't be read may be a workload; see mesh-lite \
                 policy lint",
                if *errors == 1 { "error" } else { "errors" }
            ),
            Self::NoWorkload(Some(namespace)) => write!(
                f,
                "the documents have no meshed workload in namespace {}; name its documents by \
                 --config-dir",
                namespace.escape_debug()
            ),
            Self::NoWorkload(None) => f.write_str(
                "the documents have no meshed workload; name their directory by --config-dir",
            ),
            Self::NotRecorded(workload) => write!(
                f,
                "{}: nothing is recorded of it; give the page /decisions of its sidecar",
                workload.name
            ),
            Self::Flawed {
                workload,
                recording,
                flaw,
            } => write!(f, "{}: {} {flaw}", workload.name, recording.escape_debug()),
        }
    }
}

impl fmt::Display for Flaw {
    /// What the recording does or is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins { since, from } => write!(
                f,
                "begins at {}, and {} is asked for; wait, or ask for less by --since",
                Utc(*since),
                Utc(*from)
            ),
            Self::Ends { until } => write!(
                f,
                "ends at {}, and nothing is known of what came after; save the sidecar's page \
                 /decisions now",
                Utc(*until)
            ),
            Self::Forgotten(records) => write!(
                f,
                "has lost {records} {} of what was let through; give its whole access log, \
                 rotated files and all in one file, or start the sidecar again and record anew",
                if *records == 1 { "record" } else { "records" }
            ),
            Self::BeginsLate => f.write_str(
                "begins later than its sidecar: what was let through before may be open still; \
                 put the older logs before it into one file, or save the page /decisions",
            ),
            Self::Contradicted => f.write_str(
                "let callers in whom the documents deny: is --config-dir what is in force there, \
                 and is --shipped right?",
            ),
            Self::Unclear => f.write_str(
                "holds a connection that was let in, and does not say for whom or to which port",
            ),
        }
    }
}

/// The time that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Period {
    pub(super) from: SystemTime,
    pub(super) window: Duration,
    pub(super) now: SystemTime,
}

impl Period {
    /// Why the recordings of this workload don't cover the whole period. A recording with a gap
    /// hides nothing if another one of the same run of the same sidecar has none.
    pub(super) fn gap<'a>(
        self,
        workload: &'a ReviewedWorkload,
        recorded: &[Recorded<'a>],
    ) -> Option<Gap<'a>> {
        let own: Vec<_> = recorded
            .iter()
            .filter(|one| one.workload == workload)
            .map(|one| (one, self.gap_of(one)))
            .collect();
        if own.is_empty() {
            return Some(Gap::NotRecorded(workload));
        }
        let whole: Vec<_> = own
            .iter()
            .filter(|(_, gap)| gap.is_none())
            .map(|(one, _)| one.recording)
            .collect();
        own.iter()
            .filter(|(one, _)| !whole.iter().any(|whole| covers(whole, one.recording)))
            .find_map(|(_, gap)| gap.clone())
    }

    fn gap_of<'a>(self, one: &Recorded<'a>) -> Option<Gap<'a>> {
        Some(Gap::of(one, self.flaw(one.recording)?))
    }

    fn flaw(self, recording: &Recording) -> Option<Flaw> {
        let (since, until) = (recording.since, recording.until);
        if recording.begins_late {
            return Some(Flaw::BeginsLate);
        }
        if recording.forgotten_let_through > 0 {
            return Some(Flaw::Forgotten(recording.forgotten_let_through));
        }
        if since > self.from {
            let from = self.from;
            return Some(Flaw::Begins { since, from });
        }
        // of a short period all of it would lie after the recording
        let stale = self.now.checked_sub(STALE.min(self.window));
        let is_stale = stale.is_none_or(|stale| until < stale);
        is_stale.then_some(Flaw::Ends { until })
    }
}

/// Whether everything that a recording could tell of is in another one, which lost nothing.
fn covers(whole: &Recording, other: &Recording) -> bool {
    let (runs, others) = (runs(whole), runs(other));
    let same_page = whole.since == other.since && runs.is_superset(&others);
    let same_runs = !others.is_empty() && runs.is_superset(&others);
    (same_page || same_runs) && whole.until + LAST_LINE >= other.until
}

fn runs(recording: &Recording) -> BTreeSet<u64> {
    let records = recording.records.iter();
    let ids = records.flat_map(|record| &record.connections);
    ids.map(|id| id.run()).collect()
}
