//! A recording in the making, line by line.

use std::{
    collections::HashMap,
    collections::hash_map::{DefaultHasher, Entry},
    hash::{Hash, Hasher},
    time::SystemTime,
};

use super::{
    ConnectionId, DecisionRecord, Direction, LoggedConnection, MAX_CLAIMS, MAX_RECORDS, Recording,
    Utc,
    diagnostics::is_diagnostic,
    line::{self, Closed, Decided, Dropped, Header, Line, SKEW, Wrong},
    runs::Runs,
};
use crate::identity::WorkloadId;

/// Bytes of a workload's `namespace/name`: twice a name of Kubernetes, and the slash.
const MAX_WORKLOAD: usize = 2 * 253 + 1;

/// What a source gives instead of a line.
pub(super) enum Unreadable {
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
pub(super) struct Reading {
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
    /// Of a log, what its lines tell of this connection is kept apart.
    pub(super) fn asking_for(connection: Option<ConnectionId>) -> Self {
        Self {
            asked_for: connection.map(|id| (id, id.to_string())),
            ..Self::default()
        }
    }

    pub(super) fn is_page(&self) -> bool {
        self.header.is_some()
    }

    /// Takes in the next line.
    ///
    /// # Errors
    /// If it is not one that may stand here.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
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

    /// After the last line.
    ///
    /// # Errors
    /// If what was read is no recording, or not all of one.
    pub(super) fn finish(mut self) -> Result<(Recording, Vec<LoggedConnection>), Wrong> {
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
