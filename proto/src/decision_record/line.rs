//! Lines of JSON, and what they stand for. A record's field names are those of the access log,
//! whose lines are read here too.

use std::{
    fmt::Write,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::{
    ConnectionId, DecisionRecord, Direction, Ending, Endpoint, MAX_CONNECTIONS_NAMED, MAX_REASON,
    Outcome, Utc,
    dry_runs::{self, DryRun},
    step_named, utc,
};
use crate::{authorization::SourceRef, identity::WorkloadId};

/// Clocks are put right by so much while they run: times of one page may contradict each other
/// that far.
pub(super) const SKEW: Duration = Duration::from_secs(2 * 60);

/// Stands where words were too many.
const ELLIPSIS: char = '…';

/// Every line that a saved page or an access log may hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Line {
    /// First of a saved page.
    Recording(Header),
    /// One record of a saved page.
    Decision(Decided),
    /// Of an access log: one connection was decided on.
    Open(Decided),
    /// Of an access log.
    Close(Closed),
    /// Of an access log: lines are missing before this one.
    Dropped(Dropped),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<Box<str>>,
    pub(super) since: Box<str>,
    pub(super) until: Box<str>,
    pub(super) forgotten: u64,
    pub(super) forgotten_let_through: u64,
    /// How many follow: a page that was saved in part is no recording.
    pub(super) records: u64,
    /// Records tell when connections ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ends_noted: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decided {
    time: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_id: Option<Box<str>>,
    direction: Box<str>,
    #[serde(rename = "src.addr")]
    source: Box<str>,
    #[serde(rename = "src.identity", skip_serializing_if = "Option::is_none")]
    caller: Option<Box<str>>,
    #[serde(rename = "dst.addr", skip_serializing_if = "Option::is_none")]
    destination: Option<Box<str>>,
    #[serde(rename = "dst.identity", skip_serializing_if = "Option::is_none")]
    callee: Option<Box<str>>,
    decision: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<DecidedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_source: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_ids: Option<Vec<Box<str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<Vec<DryRun>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_more: Option<usize>,
    // of one connection alone: a record does not say it
    #[serde(rename = "original_dst", skip_serializing)]
    original: Option<Box<str>>,
    #[serde(rename = "trace_id_claimed", skip_serializing)]
    trace_id: Option<Box<str>>,
    // what else a line of the access log says: read, and not used
    #[serde(rename = "src.serial", skip_serializing)]
    _source_serial: Option<IgnoredAny>,
    #[serde(rename = "dst.serial", skip_serializing)]
    _destination_serial: Option<IgnoredAny>,
    #[serde(rename = "original_dst_claimed", skip_serializing)]
    _claimed: Option<IgnoredAny>,
    #[serde(rename = "tls.version", skip_serializing)]
    _tls_version: Option<IgnoredAny>,
    #[serde(rename = "tls.group", skip_serializing)]
    _tls_group: Option<IgnoredAny>,
    #[serde(rename = "answer", skip_serializing)]
    _answer: Option<IgnoredAny>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DecidedBy {
    Peer,
}

/// Whatever else the line says of the end is not of interest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Closed {
    pub(super) time: Box<str>,
    pub(super) conn_id: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<str>>,
}

impl Closed {
    pub(super) fn into_ending(self, at: SystemTime) -> Ending {
        Ending {
            at,
            end: self.end.as_deref().map(cut),
            error: self.error.as_deref().map(cut),
        }
    }
}

/// What is kept of words that somebody else wrote.
fn cut(text: &str) -> Box<str> {
    if text.len() <= MAX_REASON {
        return text.into();
    }
    let end = text.floor_char_boundary(MAX_REASON - ELLIPSIS.len_utf8());
    format!("{}{ELLIPSIS}", text.get(..end).unwrap_or_default()).into()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dropped {
    pub(super) time: Box<str>,
    pub(super) lines: u64,
}

/// What is wrong with a line, in words.
pub(super) type Wrong = String;

impl Line {
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        serde_json::from_str(text).map_err(|error| {
            format!("it is no line that a sidecar of this version writes: {error}")
        })
    }

    /// Appends the line.
    pub(super) fn write(&self, out: &mut String) {
        // nothing in a line can fail to be JSON: no maps, no numbers but whole ones
        let plain = serde_json::to_string(self).unwrap_or_default();
        if plain.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            out.push_str(&plain);
            out.push('\n');
            return;
        }
        for c in plain.chars() {
            if steers_a_terminal(c) {
                // all of them lie below U+10000: one unit of UTF-16
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            } else {
                out.push(c);
            }
        }
        out.push('\n');
    }
}

/// Control characters, line ends and directions of Unicode: JSON escapes only the first 32.
pub(super) fn steers_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Decided {
    pub(super) fn of(record: &DecisionRecord) -> Self {
        let text = |at: SystemTime| boxed(Utc(at));
        Self {
            time: text(record.last),
            first: Some(text(record.first)),
            direction: record.direction.as_str().into(),
            source: boxed(record.source.address),
            caller: record.source.identity.as_ref().map(boxed),
            destination: record.destination.as_ref().map(|it| boxed(it.address)),
            callee: record
                .destination
                .as_ref()
                .and_then(|it| it.identity.as_ref())
                .map(boxed),
            decision: record.outcome.as_str().into(),
            decided_by: record.decided_by_peer.then_some(DecidedBy::Peer),
            step: record.step.map(|step| step.as_str().into()),
            policy: record.policy.as_ref().map(|it| boxed(&it.document)),
            policy_source: record.policy.as_ref().map(place),
            rule: record.rule,
            reason: record.reason.clone(),
            plaintext: record.plaintext.clone(),
            error: record.error.clone(),
            count: Some(record.count),
            open: Some(record.open),
            ended: record.ended.map(text),
            conn_ids: Some(record.connections.iter().map(boxed).collect()),
            recorded: dry_runs::dry_runs(&record.recorded),
            recorded_more: Some(record.recorded_more).filter(|more| *more > 0),
            ..Self::default()
        }
    }

    /// A line of a saved page.
    pub(super) fn into_record(self) -> Result<DecisionRecord, Wrong> {
        let (Some(first), Some(count), Some(open), Some(ids), None) = (
            &self.first,
            self.count,
            self.open,
            &self.conn_ids,
            &self.conn_id,
        ) else {
            return Err("a record has first, count, open and conn_ids, and no conn_id".to_owned());
        };
        if count == 0 || open > count {
            return Err(format!(
                "a record of {count} connections, {open} of them open, is none"
            ));
        }
        if ids.len() > MAX_CONNECTIONS_NAMED {
            return Err(format!(
                "conn_ids has {} entries, at most {MAX_CONNECTIONS_NAMED} are kept",
                ids.len()
            ));
        }
        let first = time("first", first)?;
        let ended = self.ended.as_deref().map(|text| time("ended", text));
        let ended = ended.transpose()?;
        let connections = ids.iter().map(|id| connection(id));
        let connections = connections.collect::<Result<_, _>>()?;
        let facts = self.into_facts()?;
        if first > facts.last + SKEW {
            return Err("first is later than time".to_owned());
        }
        Ok(DecisionRecord {
            // two connections that come at once may be recorded the other way round
            first: first.min(facts.last),
            last: facts.last.max(first),
            count,
            open,
            ended,
            connections,
            ..facts
        })
    }

    /// The id that the dialler says it has, and what its application dialled, of a line of an
    /// access log.
    pub(super) fn claims(&self) -> (Option<&str>, Option<SocketAddr>) {
        let original = self.original.as_deref().and_then(|text| text.parse().ok());
        (self.trace_id.as_deref(), original)
    }

    /// A line of an access log: one connection, and its id. Whether it is open the later lines
    /// tell.
    pub(super) fn into_connection(self) -> Result<(ConnectionId, DecisionRecord), Wrong> {
        let only_records = self.first.is_some()
            || self.count.is_some()
            || self.open.is_some()
            || self.ended.is_some()
            || self.conn_ids.is_some();
        let Some(id) = self.conn_id.as_ref().filter(|_| !only_records) else {
            return Err(
                "an open line has conn_id, and no first, count, open, ended or conn_ids".to_owned(),
            );
        };
        let id = connection(id)?;
        let record = DecisionRecord {
            connections: vec![id],
            ..self.into_facts()?
        };
        Ok((id, record))
    }

    /// What both kinds of line say: one closed connection, without its id.
    fn into_facts(self) -> Result<DecisionRecord, Wrong> {
        let last = time("time", &self.time)?;
        let source = Endpoint {
            address: address("src.addr", &self.source)?,
            identity: identity("src.identity", self.caller.as_deref())?,
        };
        let callee = identity("dst.identity", self.callee.as_deref())?;
        let destination = match (&self.destination, callee) {
            (Some(text), identity) => Some(Endpoint {
                address: address("dst.addr", text)?,
                identity,
            }),
            (None, None) => None,
            (None, Some(_)) => return Err("dst.identity without dst.addr".to_owned()),
        };
        let step = self.step.as_deref().map(|name| {
            step_named(name).ok_or_else(|| format!("{name:?} is no step of a decision"))
        });
        let direction = named("direction", &self.direction, &Direction::ALL, |it| {
            it.as_str()
        })?;
        let outcome = named("decision", &self.decision, &Outcome::ALL, |it| it.as_str())?;
        if direction == Direction::Inbound {
            if self.plaintext.is_some() && source.identity.is_some() {
                return Err("plaintext proves no identity, and src.identity is here".to_owned());
            }
            if outcome.is_let_through() && destination.is_none() {
                return Err("what was let in came to a dst.addr, and there is none".to_owned());
            }
        }
        Ok(DecisionRecord {
            first: last,
            last,
            direction,
            source,
            destination,
            outcome,
            decided_by_peer: self.decided_by.is_some(),
            step: step.transpose()?,
            policy: policy(self.policy, self.policy_source)?,
            rule: self.rule,
            reason: self.reason,
            plaintext: self.plaintext,
            error: self.error,
            recorded: dry_runs::recorded(self.recorded)?,
            recorded_more: self.recorded_more.unwrap_or_default(),
            count: 1,
            open: 0,
            ended: None,
            connections: Vec::new(),
        })
    }
}

fn boxed(value: impl ToString) -> Box<str> {
    value.to_string().into()
}

/// `file:line`
pub(super) fn place(source: &SourceRef) -> Box<str> {
    format!("{}:{}", source.file, source.line).into()
}

/// A place without a line, as another sidecar may name it, is in line 0, which is no line.
pub(super) fn policy(
    document: Option<Box<str>>,
    place: Option<Box<str>>,
) -> Result<Option<SourceRef>, Wrong> {
    let (document, place) = match (document, place) {
        (Some(document), Some(place)) => (document, place),
        (None, None) => return Ok(None),
        _ => return Err("policy and policy_source stand together".to_owned()),
    };
    let (file, line) = place
        .rsplit_once(':')
        .and_then(|(file, line)| Some((file, line.parse().ok()?)))
        .unwrap_or((&place, 0));
    Ok(Some(SourceRef {
        document: document.into(),
        file: file.into(),
        line,
    }))
}

pub(super) fn time(field: &str, text: &str) -> Result<SystemTime, Wrong> {
    utc::parse(text).ok_or_else(|| format!("{field} is {text:?}, which is no time of RFC 3339"))
}

pub(super) fn connection(text: &str) -> Result<ConnectionId, Wrong> {
    text.parse().map_err(|error| format!("{error}"))
}

pub(super) fn identity(field: &str, text: Option<&str>) -> Result<Option<WorkloadId>, Wrong> {
    text.map(str::parse)
        .transpose()
        .map_err(|error| format!("{field}: {error}"))
}

fn address(field: &str, text: &str) -> Result<SocketAddr, Wrong> {
    text.parse()
        .map_err(|_| format!("{field} is {text:?}, which is no address with a port"))
}

pub(super) fn named<T: Copy>(
    field: &str,
    text: &str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, Wrong> {
    let found = all.iter().copied().find(|one| name(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().copied().map(name).collect();
        format!("{field} is {text:?}, not one of {}", names.join(", "))
    })
}
