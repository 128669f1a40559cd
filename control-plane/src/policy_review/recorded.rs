//! Which workload a recording is of, and what policy says today to what it holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    authorization::{
        Caller, Eviction, EvictionSubject, Facts, PolicySnapshot, SourceRef, Step, decide,
    },
    decision_record::{DecisionRecord, Direction, Outcome, Recording, Utc},
    identity::WorkloadId,
};

use super::{Documents, ReviewedWorkload};

/// As records name the refusal of a peer whose trust was ended.
const EVICTED: &str = "evicted";

/// Clocks of two machines differ by less, or nothing that is recorded can be told by its time.
const MAX_SKEW: Duration = Duration::from_secs(2 * 60);

/// What one sidecar recorded, and the name under which messages show it.
#[derive(Debug, Clone, Copy)]
pub struct NamedRecording<'a> {
    pub name: &'a str,
    pub recording: &'a Recording,
}

/// A recording, and the workload whose sidecar it is of.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    pub name: &'a str,
    pub recording: &'a Recording,
    pub workload: &'a ReviewedWorkload,
}

/// Finds the workload of each recording: the one that the recording names, else the one with
/// the addresses at which it was called or from which it called, else the one with its SPIFFE ID.
///
/// # Errors
/// Every recording of which there is no such document, or more than one: it can't be left out,
/// as whoever asks would take the answer to be about it too. And every one whose identity is not
/// its document's, or that ends later than `now`.
pub fn workloads_of<'a>(
    documents: &'a Documents,
    recordings: &[NamedRecording<'a>],
    now: SystemTime,
) -> Result<Vec<Recorded<'a>>, NoWorkload> {
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for NamedRecording { name, recording } in recordings {
        let workload = workload_of(documents, recording);
        match workload.and_then(|workload| agreed(workload, recording, now)) {
            Ok(workload) => found.push(Recorded {
                name,
                recording,
                workload,
            }),
            Err(why) => lost.push(((*name).into(), why)),
        }
    }
    if lost.is_empty() {
        Ok(found)
    } else {
        Err(NoWorkload(lost))
    }
}

fn workload_of<'a>(
    documents: &'a Documents,
    recording: &Recording,
) -> Result<&'a ReviewedWorkload, Lost> {
    if let Some(name) = &recording.workload {
        let parsed = name.parse().map_err(|_| Lost::NoName(name.clone()))?;
        let document = documents.workload(&parsed);
        return document.ok_or_else(|| Lost::NotInDocuments(name.clone()));
    }
    let at = |direction| workloads_at(documents, own_addresses(recording, direction));
    for found in [at(Direction::Inbound), at(Direction::Outbound)] {
        match *found {
            [] => {}
            [only] => return Ok(only),
            _ => return Err(Lost::several(&found)),
        }
    }
    let Some(id) = &recording.identity else {
        return Err(Lost::Nameless);
    };
    let with_id = documents.workloads().iter().filter(|one| one.id == *id);
    let with_id: Vec<_> = with_id.collect();
    match *with_id {
        [] => Err(Lost::NoIdentity(id.clone())),
        [only] => Ok(only),
        _ => Err(Lost::several(&with_id)),
    }
}

/// What a recording says of itself and what the documents say of its workload go together.
fn agreed<'a>(
    workload: &'a ReviewedWorkload,
    recording: &Recording,
    now: SystemTime,
) -> Result<&'a ReviewedWorkload, Lost> {
    if let Some(id) = &recording.identity
        && *id != workload.id
    {
        return Err(Lost::OtherIdentity {
            workload: workload.name.to_string(),
            recorded: id.clone(),
            document: workload.id.clone(),
        });
    }
    if recording.until > now + MAX_SKEW {
        return Err(Lost::InTheFuture(recording.until));
    }
    Ok(workload)
}

fn own_addresses(recording: &Recording, direction: Direction) -> BTreeSet<IpAddr> {
    let records = recording.records.iter();
    records
        .filter(|record| record.direction == direction)
        .filter_map(|record| match direction {
            Direction::Inbound => record.destination.as_ref(),
            Direction::Outbound => Some(&record.source),
        })
        .map(|own| own.address.ip().to_canonical())
        .collect()
}

fn workloads_at(documents: &Documents, addresses: BTreeSet<IpAddr>) -> Vec<&ReviewedWorkload> {
    let found: BTreeMap<_, _> = addresses
        .into_iter()
        .filter_map(|address| documents.workload_at(address))
        .map(|workload| (&workload.name, workload))
        .collect();
    found.into_values().collect()
}

/// Recordings of which nobody can say which policy decides there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct NoWorkload(Vec<(Box<str>, Lost)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lost {
    NotInDocuments(Box<str>),
    NoIdentity(WorkloadId),
    Several(Vec<String>),
    Nameless,
    NoName(Box<str>),
    OtherIdentity {
        workload: String,
        recorded: WorkloadId,
        document: WorkloadId,
    },
    InTheFuture(SystemTime),
}

impl NoWorkload {
    pub(super) fn nameless(recordings: Vec<Box<str>>) -> Self {
        let lost = recordings.into_iter();
        Self(lost.map(|name| (name, Lost::Nameless)).collect())
    }
}

impl Lost {
    fn several(workloads: &[&ReviewedWorkload]) -> Self {
        Self::Several(workloads.iter().map(|one| one.name.to_string()).collect())
    }
}

impl fmt::Display for NoWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, why)) in self.0.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{}: {why}", name.escape_debug())?;
        }
        Ok(())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInDocuments(name) => write!(
                f,
                "this was recorded by {}, and the documents have no such Workload; name every \
                 directory of documents by --config-dir, or leave the recording out",
                name.escape_debug()
            ),
            Self::NoIdentity(id) => write!(
                f,
                "this was recorded by {id}, and the documents have no Workload with its address \
                 or that SPIFFE ID; name every directory of documents by --config-dir, or leave \
                 the recording out"
            ),
            Self::Several(names) => write!(
                f,
                "this may have been recorded by any of {}; save the sidecar's page /decisions, \
                 which names its workload, and give that instead",
                names.join(", ")
            ),
            Self::NoName(name) => write!(
                f,
                "its first line says workload {:?}, which is no namespace/name of a Workload; save \
                 the sidecar's page /decisions again",
                name
            ),
            Self::OtherIdentity {
                workload,
                recorded,
                document,
            } => write!(
                f,
                "this was recorded by {recorded}, and in the documents {workload} is {document}; \
                 is it another workload's, or was it recorded before its Workload was changed? \
                 Leave it out, or correct --config-dir"
            ),
            Self::InTheFuture(until) => write!(
                f,
                "it ends at {}, which is later than now; put the clocks of this machine and the \
                 sidecar's right, and save it again",
                Utc(*until)
            ),
            Self::Nameless => f.write_str(
                "nothing in it says which workload it is of; save the sidecar's page /decisions, \
                 which names its workload, and give that instead",
            ),
        }
    }
}

/// Whether any of these connections was in use since `from`, as far as anybody knows.
pub(super) fn may_be_in_use(one: &Recorded<'_>, record: &DecisionRecord, from: SystemTime) -> bool {
    record.last_use() >= from || record.open > 0 || end_unknown(one, record)
}

pub(super) fn end_unknown(one: &Recorded<'_>, record: &DecisionRecord) -> bool {
    record.is_let_through() && !one.recording.ends_noted
}

/// What policy says to a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    pub allowed: bool,
    /// One sentence, as the access log would have it.
    pub reason: String,
    pub step: JudgedBy,
    /// The document that decides; the line is the deciding rule's, if a rule decides.
    pub policy: Option<SourceRef>,
    pub rule: Option<usize>,
}

/// Where a verdict comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgedBy {
    /// Trust in the peer was ended, before policy is asked.
    Eviction,
    Policy(Step),
}

impl JudgedBy {
    /// A name for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eviction => "evicted",
            Self::Policy(step) => step.as_str(),
        }
    }
}

/// The facts of an inbound connection that came as far as policy, or would have if its caller
/// had not been evicted. Of all others nobody knows what policy would have said.
pub(super) fn judged_facts(record: &DecisionRecord) -> Option<Facts<'_>> {
    record.facts().or_else(|| {
        let evicted =
            record.outcome == Outcome::Refuse && record.reason.as_deref() == Some(EVICTED);
        if record.direction != Direction::Inbound || !evicted {
            return None;
        }
        Some(Facts {
            caller: Caller::Authenticated(record.source.identity.as_ref()?),
            source: record.source.address.ip(),
            port: record.destination.as_ref()?.address.port(),
        })
    })
}

/// In the order in which a sidecar looks: evictions, then STRICT, then policy.
pub(super) fn judge(snapshot: &PolicySnapshot, facts: &Facts<'_>, now: SystemTime) -> Judgement {
    if let Some(eviction) = eviction_of(snapshot, facts.caller, now) {
        return evicted(eviction);
    }
    let decision = decide(snapshot, facts);
    Judgement {
        allowed: decision.is_allowed(),
        reason: decision.reason(),
        step: JudgedBy::Policy(decision.step),
        policy: decision.policy,
        rule: decision.rule,
    }
}

/// What the sidecar says to a peer that it dials.
pub(super) fn judge_peer(
    snapshot: &PolicySnapshot,
    peer: &WorkloadId,
    now: SystemTime,
) -> Option<Judgement> {
    eviction_of(snapshot, Caller::Authenticated(peer), now).map(evicted)
}

/// The eviction that a sidecar finds before it asks policy. By identity: with which certificate a
/// caller comes is not known here, see [`by_serial`].
#[must_use]
pub fn eviction_of<'a>(
    snapshot: &'a PolicySnapshot,
    caller: Caller<'_>,
    now: SystemTime,
) -> Option<&'a Eviction> {
    let Caller::Authenticated(id) = caller else {
        return None;
    };
    in_force(snapshot, now).find(|eviction| match &eviction.subject {
        EvictionSubject::Id(evicted) => evicted == id,
        EvictionSubject::Serial(_) => false,
    })
}

fn in_force(snapshot: &PolicySnapshot, now: SystemTime) -> impl Iterator<Item = &Eviction> {
    let evictions = snapshot.evictions.iter();
    evictions.filter(move |eviction| eviction.until.is_none_or(|until| now < until))
}

/// Evictions of single certificates: whom they cut can't be told without one.
pub fn by_serial(snapshot: &PolicySnapshot, now: SystemTime) -> impl Iterator<Item = &SourceRef> {
    in_force(snapshot, now)
        .filter(|eviction| matches!(eviction.subject, EvictionSubject::Serial(_)))
        .map(|eviction| &eviction.source)
}

fn evicted(eviction: &Eviction) -> Judgement {
    Judgement {
        allowed: false,
        reason: format!("the peer is evicted by {}", eviction.source),
        step: JudgedBy::Eviction,
        policy: Some(eviction.source.clone()),
        rule: None,
    }
}

#[cfg(test)]
mod tests;
