//! What one sidecar recorded: read from a saved page `/decisions` or from an access log.

use std::{
    collections::HashMap,
    collections::hash_map::{DefaultHasher, Entry},
    fmt,
    hash::{Hash, Hasher},
    io::{self, BufRead, Read},
    time::SystemTime,
};

use super::{
    ConnectionId, DecisionRecord, Direction, LoggedConnection, MAX_CLAIMS, Utc,
    diagnostics::is_diagnostic,
    line::{self, Closed, Decided, Dropped, Header, Line, SKEW, Wrong},
    runs::Runs,
};
use crate::identity::WorkloadId;

/// Bytes of one line and its end. The longest that a sidecar writes has two identities of 2 KiB, four more
/// texts of about 1 KiB, and what dry runs recorded.
pub const MAX_LINE: usize = 64 * 1024;
/// Bytes of one recording: the access log of half a million connections.
pub const MAX_RECORDING: u64 = 256 * 1024 * 1024;
/// Distinct records of one recording: about 200 MB of memory.
pub const MAX_RECORDS: usize = 256 * 1024;
/// Bytes of a workload's `namespace/name`: twice a name of Kubernetes, and the slash.
const MAX_WORKLOAD: usize = 2 * 253 + 1;

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
        let mut reading = Reading {
            asked_for: connection.map(|id| (id, id.to_string())),
            ..Reading::default()
        };
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

/// What a source gives instead of a line.
enum Unreadable {
    /// It may be a part of one.
    NotALine(Wrong),
    /// It is one, which says what can't be.
    Wrong(Wrong),
}

impl From<Wrong> for Unreadable {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

fn wrong(words: &str) -> Unreadable {
    Unreadable::Wrong(words.to_owned())
}

/// A recording in the making.
#[derive(Default)]
struct Reading {
    /// The connection whose lines are kept as they are, and how a caller claims it.
    asked_for: Option<(ConnectionId, String)>,
    /// Those lines, and the place of the record of each.
    told: Vec<(LoggedConnection, usize)>,
    /// Of a saved page, whose first line it is.
    header: Option<Header>,
    /// Lines of the sidecar's own log stand between those of the access log.
    is_of_container: bool,
    /// Lines of a page after its header.
    listed: u64,
    /// Times of the first and the latest line of a log.
    span: Option<(SystemTime, SystemTime)>,
    identity: Option<WorkloadId>,
    dropped: u64,
    records: Vec<DecisionRecord>,
    /// By hash of what tells records apart.
    places: HashMap<u64, Vec<usize>>,
    /// Connections of a log that no line has closed yet, and the record of each.
    open: HashMap<ConnectionId, usize>,
    runs: Runs,
    /// Connections that have ended, of which no line tells how they began: of several logs put
    /// into one file, it may come later.
    ends_alone: HashMap<ConnectionId, SystemTime>,
}

impl Reading {
    fn is_page(&self) -> bool {
        self.header.is_some()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Unreadable::NotALine("it is not UTF-8".to_owned()))?;
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        let line = match Line::read(text) {
            Ok(line) => line,
            Err(_) if is_diagnostic(text) => return self.diagnostic(),
            Err(why) => return Err(Unreadable::NotALine(why)),
        };
        let is_first = self.header.is_none() && self.span.is_none() && !self.is_of_container;
        match (line, self.is_page()) {
            (Line::Recording(header), _) if is_first => self.header = Some(header),
            (Line::Recording(_), _) => {
                return Err(wrong("a recording begins here: give each its own file"));
            }
            (Line::Decision(decided), true) => {
                self.listed += 1;
                let record = decided.into_record()?;
                self.is_within(&record)?;
                self.add(record)?;
            }
            (Line::Decision(_), false) => {
                return Err(wrong(
                    "a record of a saved page, whose first line is missing: save the whole page",
                ));
            }
            (_, true) => return Err(wrong("a line of an access log in a saved page")),
            (Line::Open(decided), false) => self.opened(decided)?,
            (Line::Close(closed), false) => self.closed(closed)?,
            (Line::Dropped(dropped), false) => self.dropped(&dropped)?,
        }
        Ok(())
    }

    /// It says nothing of connections. A page is one answer of a sidecar: what else stands in its
    /// file was put there.
    fn diagnostic(&mut self) -> Result<(), Unreadable> {
        if self.is_page() {
            return Err(wrong("a line of the sidecar's own log in a saved page"));
        }
        self.is_of_container = true;
        Ok(())
    }

    fn opened(&mut self, decided: Decided) -> Result<(), Wrong> {
        let (claimed, original_destination) = decided.claims();
        let is_claimed = self.is_asked_for_as(claimed);
        let (id, record) = decided.into_connection()?;
        let is_it = self.asked_for.as_ref().is_some_and(|(it, _)| *it == id);
        self.at(record.last);
        self.is_of(own_identity(&record))?;
        self.runs.decided(id, record.last);
        let is_open = record.is_let_through();
        let place = if is_it || is_claimed {
            let told = LoggedConnection {
                id,
                is_claimed: !is_it,
                record: record.clone(),
                original_destination,
                ending: None,
            };
            let place = self.push(record)?;
            self.told.push((told, place));
            place
        } else {
            self.add(record)?
        };
        match self.ends_alone.remove(&id) {
            Some(time) => self.ended(place, time),
            None if is_open => {
                self.open.insert(id, place);
            }
            None => {}
        }
        Ok(())
    }

    /// Not more of them than anybody reads: the rest is of no more interest than others.
    fn is_asked_for_as(&self, claimed: Option<&str>) -> bool {
        let asked_for = self.asked_for.as_ref();
        asked_for.is_some_and(|(_, text)| claimed == Some(text)) && self.told.len() <= MAX_CLAIMS
    }

    fn closed(&mut self, closed: Closed) -> Result<(), Wrong> {
        let time = line::time("time", &closed.time)?;
        self.at(time);
        let id = line::connection(&closed.conn_id)?;
        self.runs.closed(id, time);
        if let Some((told, _)) = self.told.iter_mut().find(|(told, _)| told.id == id) {
            told.ending = Some(closed.into_ending(time));
        }
        match self.open.remove(&id) {
            Some(place) => self.ended(place, time),
            None => {
                self.ends_alone.insert(id, time);
            }
        }
        Ok(())
    }

    fn dropped(&mut self, dropped: &Dropped) -> Result<(), Wrong> {
        self.at(line::time("time", &dropped.time)?);
        self.dropped = self.dropped.saturating_add(dropped.lines);
        Ok(())
    }

    fn at(&mut self, time: SystemTime) {
        let (since, until) = self.span.get_or_insert((time, time));
        *since = (*since).min(time);
        *until = (*until).max(time);
    }

    /// A log tells of one workload: which policies select it could not be known otherwise.
    fn is_of(&mut self, identity: Option<WorkloadId>) -> Result<(), Wrong> {
        match (&self.identity, identity) {
            (Some(known), Some(other)) if *known != other => Err(format!(
                "this is {other}'s log, and what comes before is {known}'s: give each sidecar's \
                 log its own file"
            )),
            (None, Some(identity)) => {
                self.identity = Some(identity);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ended(&mut self, place: usize, time: SystemTime) {
        if let Some(record) = self.records.get_mut(place) {
            record.ended = record.ended.max(Some(time));
        }
    }

    fn is_open(&mut self, place: usize) {
        if let Some(record) = self.records.get_mut(place) {
            record.open = record.open.saturating_add(1);
        }
    }

    /// Records of a page are of the time that its header names.
    fn is_within(&self, record: &DecisionRecord) -> Result<(), Wrong> {
        let Some(header) = &self.header else {
            return Ok(());
        };
        let since = line::time("since", &header.since)?;
        let until = line::time("until", &header.until)?;
        if record.first + SKEW < since || record.last_use() > until + SKEW {
            return Err(format!(
                "a record of {} to {} in a page of {} to {}",
                Utc(record.first),
                Utc(record.last_use()),
                Utc(since),
                Utc(until)
            ));
        }
        Ok(())
    }

    /// Adds a record to its like, and tells where it is.
    fn add(&mut self, record: DecisionRecord) -> Result<usize, Wrong> {
        let mut hasher = DefaultHasher::new();
        record.distinct().hash(&mut hasher);
        let places = match self.places.entry(hasher.finish()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Vec::new()),
        };
        for place in &*places {
            if let Some(like) = self.records.get_mut(*place)
                && like.distinct() == record.distinct()
            {
                like.merge(record);
                return Ok(*place);
            }
        }
        let place = self.records.len();
        places.push(place);
        self.push(record)
    }

    fn push(&mut self, record: DecisionRecord) -> Result<usize, Wrong> {
        let place = self.records.len();
        if place >= MAX_RECORDS {
            return Err(format!(
                "a recording has at most {MAX_RECORDS} different records: split it by time"
            ));
        }
        self.records.push(record);
        Ok(place)
    }

    fn finish(mut self) -> Result<(Recording, Vec<LoggedConnection>), Wrong> {
        // connections of an earlier run ended with it, without a line
        let ended = self.runs.ended();
        for (id, place) in std::mem::take(&mut self.open) {
            match ended.get(&id.run()) {
                Some(time) => self.ended(place, *time),
                None => self.is_open(place),
            }
        }
        let told = std::mem::take(&mut self.told).into_iter();
        let told = told.filter_map(|(told, place)| {
            let record = self.records.get(place)?.clone();
            Some(LoggedConnection { record, ..told })
        });
        let told = told.collect();
        if let Some(header) = self.header.take() {
            return Ok((self.of_page(header)?, told));
        }
        let (since, until) = self.span.ok_or_else(|| {
            if self.is_of_container {
                "only the sidecar's own log is here, and no line of the access log: has it no \
                 connection yet, or does it write them elsewhere (--access-log)?"
            } else {
                "nothing is recorded here: this is neither a saved page /decisions nor an access log"
            }
            .to_owned()
        })?;
        let begins_late = !self.runs.begin_here();
        let ends_alone = self.ends_alone.len() as u64;
        for (id, time) in self.ends_alone {
            self.runs.closed_only(id, time);
        }
        // of each connection whose beginning nobody tells, at least one line is lost
        let lost = self
            .dropped
            .max(self.runs.missing().saturating_add(ends_alone));
        let recording = Recording {
            workload: None,
            identity: self.identity,
            since,
            until,
            forgotten: lost,
            // a lost line may have been any line
            forgotten_let_through: lost,
            begins_late,
            ends_noted: true,
            records: self.records,
        };
        Ok((recording, told))
    }

    fn of_page(self, header: Header) -> Result<Recording, Wrong> {
        if self.listed != header.records {
            return Err(format!(
                "the page says that {} records follow, and {} are here: save the whole page",
                header.records, self.listed
            ));
        }
        if header.forgotten_let_through > header.forgotten {
            return Err("forgotten_let_through is more than forgotten".to_owned());
        }
        if let Some(workload) = &header.workload
            && !is_workload(workload)
        {
            return Err(format!("workload is {workload:?}, not namespace/name"));
        }
        let since = line::time("since", &header.since)?;
        let until = line::time("until", &header.until)?;
        if since > until {
            return Err("until is before since".to_owned());
        }
        Ok(Recording {
            identity: line::identity("identity", header.identity.as_deref())?,
            workload: header.workload,
            since,
            until,
            forgotten: header.forgotten,
            forgotten_let_through: header.forgotten_let_through,
            begins_late: false,
            ends_noted: header.ends_noted,
            records: self.records,
        })
    }
}

/// What the workload itself is: the called side of what comes in, the calling one of what goes
/// out.
fn own_identity(record: &DecisionRecord) -> Option<WorkloadId> {
    match record.direction {
        Direction::Inbound => record.destination.as_ref()?.identity.clone(),
        Direction::Outbound => record.source.identity.clone(),
    }
}

fn is_workload(text: &str) -> bool {
    let part = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        !part.is_empty() && part.chars().all(known)
    };
    text.len() <= MAX_WORKLOAD
        && text
            .split_once('/')
            .is_some_and(|(namespace, name)| part(namespace) && part(name))
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
