//! Recorded connections against other documents: which would flip, and by which rule.

use std::{fmt, time::SystemTime};

use mesh_lite_proto::authorization::SourceRef;

use super::{
    Documents, Flip, Recorded,
    flips::{JudgedAgain, judge_again},
};

/// What documents would do to connections that were recorded.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Connections that were judged again.
    pub connections: u64,
    /// Different records of them.
    pub distinct: usize,
    /// Inbound connections that had been refused before policy was asked: nobody knows what it
    /// would have said.
    pub not_asked: u64,
    /// What would be closed first, most connections first.
    pub flips: Vec<Flip<'a>>,
    /// What the answer leaves out.
    pub caveats: Vec<Caveat>,
}

impl Replay<'_> {
    /// Connections that flip.
    #[must_use]
    pub fn flipped(&self) -> u64 {
        self.flips
            .iter()
            .fold(0, |sum: u64, flip| sum.saturating_add(flip.count))
    }

    /// Different records that flip.
    #[must_use]
    pub fn flipped_distinct(&self) -> usize {
        self.flips.iter().map(|flip| flip.distinct).sum()
    }
}

/// Judges everything that was recorded by the documents.
#[must_use]
pub fn replay<'a>(documents: &Documents, recorded: &[Recorded<'a>], now: SystemTime) -> Replay<'a> {
    let again = judge_again(documents, recorded, now, |_, _| true);
    let caveats = caveats(recorded, &again);
    Replay {
        connections: again.connections,
        distinct: again.distinct,
        not_asked: again.not_asked,
        flips: again.flips,
        caveats,
    }
}

/// Something that an answer from records can't tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caveat {
    /// Of this recording, so many records are lost.
    Forgotten { recording: Box<str>, records: u64 },
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
                "{} is incomplete: {records} records of it were lost, and with them any caller \
                 that came once; record again, or give the access log",
                recording.escape_debug()
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
                "{connections} recorded connections went out to {workload}, whose own sidecar \
                 judges them: give its recording too"
            ),
        }
    }
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
    forgotten.chain(by_serial).chain(elsewhere).collect()
}

#[cfg(test)]
mod tests;
