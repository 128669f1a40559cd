//! The runs of a sidecar that a log holds lines of: which connections no line tells of, and which
//! ended with their run.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use super::ConnectionId;

/// Longer than a sidecar takes to decide: twice 10 s to connect and 11 s for an answer, and what
/// else it waits for. The line of a connection comes that much later than the connection.
const DECIDING: Duration = Duration::from_secs(60);
/// So many connections may be waiting for their decision when a log ends: as many as one address
/// may have in their handshakes at once. More of them are rather a piece that was lost.
const MAX_DECIDING: u64 = 64;

/// By number.
#[derive(Debug, Default)]
pub(super) struct Runs(HashMap<u64, Run>);

#[derive(Debug)]
struct Run {
    /// How many runs the log had named before.
    place: usize,
    first_line: SystemTime,
    last_line: SystemTime,
    begins_here: bool,
    seen: Vec<Seen>,
}

/// A connection that a line names.
#[derive(Debug, Clone, Copy)]
struct Seen {
    id: u64,
    /// Of the line.
    at: SystemTime,
    /// It says what was decided, and so is little later than the connection.
    is_decision: bool,
}

impl Runs {
    /// A line says what was decided on a connection.
    pub(super) fn decided(&mut self, id: ConnectionId, at: SystemTime) {
        let run = self.line(id, at);
        run.begins_here |= id.is_first_of_run();
        run.see(id, at, true);
    }

    /// A line says that a connection has ended.
    pub(super) fn closed(&mut self, id: ConnectionId, at: SystemTime) {
        self.line(id, at);
    }

    /// The same, and no line says how that connection began.
    pub(super) fn closed_only(&mut self, id: ConnectionId, at: SystemTime) {
        self.line(id, at).see(id, at, false);
    }

    fn line(&mut self, id: ConnectionId, at: SystemTime) -> &mut Run {
        let place = self.0.len();
        let run = self.0.entry(id.run()).or_insert_with(|| Run {
            place,
            first_line: at,
            last_line: at,
            begins_here: false,
            seen: Vec::new(),
        });
        run.first_line = run.first_line.min(at);
        run.last_line = run.last_line.max(at);
        run
    }

    /// Whether there are any, and the first connection of each is here.
    pub(super) fn begin_here(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|run| run.begins_here)
    }

    /// The runs that have ended, and when at the latest: when the next one began behind all of
    /// it. Two that overlap are rather of two sidecars, and both may go on.
    pub(super) fn ended(&self) -> HashMap<u64, SystemTime> {
        let mut runs: Vec<_> = self.0.iter().collect();
        runs.sort_unstable_by_key(|(_, run)| run.place);
        let nexts = runs.iter().skip(1);
        runs.iter()
            .zip(nexts)
            .filter(|((_, run), (_, next))| next.first_line >= run.last_line)
            .map(|((number, _), (_, next))| (**number, next.first_line))
            .collect()
    }

    /// How many connections no line tells of, though lines tell of earlier and of later ones: a
    /// sidecar counts its connections up by one, and has a line for each that it decided on.
    pub(super) fn missing(self) -> u64 {
        let missing = self.0.into_values().map(Run::missing);
        missing.fold(0, u64::saturating_add)
    }
}

impl Run {
    fn see(&mut self, id: ConnectionId, at: SystemTime, is_decision: bool) {
        self.seen.push(Seen {
            id: id.as_u64(),
            at,
            is_decision,
        });
    }

    fn missing(mut self) -> u64 {
        self.seen.sort_unstable_by_key(|seen| seen.id);
        // what came before the log began is not lost in it
        let begin = self.seen.iter().position(|seen| seen.is_decision);
        self.seen.drain(..begin.unwrap_or(self.seen.len()));
        let recent = self.last_line.checked_sub(DECIDING);
        let is_recent = |at: SystemTime| recent.is_none_or(|recent| at >= recent);
        // of each connection, the earliest line among it and those that came after it
        let mut later = self.last_line;
        let mut earliest: Vec<_> = self
            .seen
            .iter()
            .rev()
            .map(|seen| {
                later = later.min(seen.at);
                later
            })
            .collect();
        earliest.reverse();
        let mut latest = None;
        let (mut lost, mut deciding) = (0_u64, 0_u64);
        let next = self.seen.iter().zip(&earliest).skip(1);
        for (seen, (next, by)) in self.seen.iter().zip(next) {
            if seen.is_decision {
                latest = latest.max(Some(seen.at));
            }
            let hole = next.id.saturating_sub(seen.id).saturating_sub(1);
            // came no earlier than the one before it, and no later than the one after it
            if is_recent(*by) && latest.is_some_and(is_recent) {
                deciding = deciding.saturating_add(hole);
            } else {
                lost = lost.saturating_add(hole);
            }
        }
        if deciding > MAX_DECIDING {
            lost = lost.saturating_add(deciding);
        }
        lost
    }
}
