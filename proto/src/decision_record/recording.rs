//! What one sidecar recorded: read from a saved page `/decisions` or from an access log.

use std::{
    fmt,
    io::{self, BufRead, Read},
    time::SystemTime,
};

use super::{
    ConnectionId, DecisionRecord, LoggedConnection, Utc,
    line::{self, Decided, Header, Line, Wrong},
    reading::{Reading, Unreadable},
};
use crate::identity::WorkloadId;

/// Bytes of one line and its end. The longest that a sidecar writes has two identities of 2 KiB, four more
/// texts of about 1 KiB, and what dry runs recorded.
pub const MAX_LINE: usize = 64 * 1024;
/// Bytes of one recording: the access log of half a million connections.
pub const MAX_RECORDING: u64 = 256 * 1024 * 1024;
/// Distinct records of one recording: about 200 MB of memory.
pub const MAX_RECORDS: usize = 256 * 1024;

/// Everything that one sidecar remembers of its decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// `namespace/name`; an access log does not say it.
    pub workload: Option<Box<str>>,
    /// The workload's own; `None`: no line says it.
    pub identity: Option<WorkloadId>,
    /// Since when everything was recorded.
    pub since: SystemTime,
    pub until: SystemTime,
    /// Records, or lines of a log, that were lost. What they held nobody knows: a tool that must
    /// not overlook anything refuses to vouch if there are any.
    pub forgotten: u64,
    /// Those of them that may have stood for something that was let through.
    pub forgotten_let_through: u64,
    /// A log that begins after its sidecar did: what had been let through before may be open
    /// still, and nothing here says so.
    pub begins_late: bool,
    /// Records tell when connections ended; else one that came early may have ended just now.
    pub ends_noted: bool,
    pub records: Vec<DecisionRecord>,
}

impl Recording {
    /// Reads a saved page `/decisions`, or an access log. Of a log that is being written, the
    /// last line may be there in part.
    ///
    /// # Errors
    /// Names file and line of the first line that is not one a sidecar writes: nothing is passed
    /// over, as a tool would then vouch for what it has not read.
    pub fn read(name: &str, input: impl BufRead) -> Result<Self, InvalidRecording> {
        let (recording, _) = Self::read_for(None, name, input)?;
        Ok(recording)
    }

    /// The same, and what the lines of a log tell of `connection`: the one that has this id, and
    /// those whose callers claim it. They become records of their own: those like them, of which a
    /// record names but the latest, may have other words.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_for(
        connection: Option<ConnectionId>,
        name: &str,
        input: impl BufRead,
    ) -> Result<(Self, Vec<LoggedConnection>), InvalidRecording> {
        let mut reading = Reading::asking_for(connection);
        let mut input = input.take(MAX_RECORDING + 1);
        let mut bytes = Vec::new();
        let mut number = 0_u64;
        let mut size = 0_u64;
        loop {
            number += 1;
            let invalid = |reason: Wrong| InvalidRecording::new(name, number, reason);
            bytes.clear();
            let mut line = input.by_ref().take(MAX_LINE as u64 + 1);
            let read = line
                .read_until(b'\n', &mut bytes)
                .map_err(|error| invalid(cant_be_read(&error)))?;
            if read == 0 {
                break;
            }
            size += read as u64;
            if size > MAX_RECORDING {
                return Err(invalid(format!(
                    "a recording has at most {} MiB: split it by time",
                    MAX_RECORDING >> 20
                )));
            }
            let is_whole = bytes.ends_with(b"\n");
            if bytes.len() > MAX_LINE {
                return Err(invalid(format!(
                    "a line has at most {} KiB, which is more than a sidecar writes: is this its \
                     page /decisions or access log? If it is, leave the line out and count on nothing \
                     that depends on it",
                    MAX_LINE >> 10
                )));
            }
            match (reading.take(&bytes), is_whole) {
                (Ok(()), _) => {}
                // being written
                (Err(Unreadable::NotALine(_)), false) if !reading.is_page() => {}
                (Err(Unreadable::NotALine(wrong) | Unreadable::Wrong(wrong)), _) => {
                    return Err(invalid(wrong));
                }
            }
        }
        reading
            .finish()
            .map_err(|wrong| InvalidRecording::new(name, number, wrong))
    }

    /// As the page `/decisions` shows it, and as [`Self::read`] reads it.
    #[must_use]
    pub fn to_lines(&self) -> String {
        let mut lines = String::new();
        let header = Header {
            workload: self.workload.clone(),
            identity: self.identity.as_ref().map(|id| id.as_str().into()),
            since: Utc(self.since).to_string().into(),
            until: Utc(self.until).to_string().into(),
            forgotten: self.forgotten,
            forgotten_let_through: self.forgotten_let_through,
            records: self.records.len() as u64,
            ends_noted: self.ends_noted,
        };
        Line::Recording(header).write(&mut lines);
        for record in &self.records {
            Line::Decision(Decided::of(record)).write(&mut lines);
        }
        lines
    }

    /// The record that names this connection.
    #[must_use]
    pub fn of_connection(&self, id: ConnectionId) -> Option<&DecisionRecord> {
        self.records
            .iter()
            .find(|record| record.connections.contains(&id))
    }
}

fn cant_be_read(error: &io::Error) -> Wrong {
    format!("it can't be read: {error}")
}

/// Why a file is no recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct InvalidRecording {
    /// Of the file, as it was given.
    pub name: Box<str>,
    /// Counted from 1.
    pub line: u64,
    /// In words, without control characters.
    pub reason: Box<str>,
}

impl InvalidRecording {
    fn new(name: &str, number: u64, reason: Wrong) -> Self {
        Self {
            name: name.into(),
            line: number,
            reason: reason
                .chars()
                .map(|c| if line::steers_a_terminal(c) { ' ' } else { c })
                .collect(),
        }
    }
}

impl fmt::Display for InvalidRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, line, reason } = self;
        write!(f, "{}:{line}: {reason}", name.escape_debug())
    }
}
