//! `CONN_ID`: what became of a connection, and what would become of it now.

use std::{sync::Arc, time::SystemTime};

use mesh_lite_control_plane::policy_review::{Documents, ReviewedWorkload};
use mesh_lite_proto::{
    authorization::{PolicySnapshot, Step},
    decision_record::{ConnectionId, DecisionRecord, Direction, Outcome, Recording, Utc},
};

use super::{
    Basis, Explanation,
    judged::{Call, Judged, StepTaken},
    wording::{self, Text, place},
};
use crate::terminal::Paint;

/// How the access log names a refusal for an eviction.
const EVICTED: &str = "evicted";

/// A connection that a sidecar recorded.
#[derive(Debug)]
pub(super) struct RecordedCall {
    pub(super) id: ConnectionId,
    /// Where the record was found.
    pub(super) found_in: String,
    /// Of the sidecar that recorded it: `namespace/name`, or its identity.
    pub(super) recorder: String,
    pub(super) record: DecisionRecord,
    /// By the policy of now; why not, if it can't be asked; `None` if no policy of this workload
    /// has anything to say.
    pub(super) now: Option<Result<Explanation, String>>,
}

/// What judges it by the policy of now.
pub(super) enum Present {
    Snapshot(PolicySnapshot, String),
    Documents(Arc<Documents>, String),
    /// Why there is none.
    None(String),
}

impl RecordedCall {
    pub(super) fn of(
        id: ConnectionId,
        found_in: &str,
        recording: &Recording,
        record: &DecisionRecord,
        present: &Present,
        now: SystemTime,
    ) -> Self {
        let recorder = recorder(recording);
        let judged = call(record, &recorder).map(|call| {
            let (snapshot, what) = present.snapshot(recording, record, now)?;
            let judged = Judged::of(&call, &snapshot, now);
            let documents = present.documents();
            let basis = Basis { what, documents };
            Ok(Explanation {
                call,
                judged,
                basis,
            })
        });
        Self {
            id,
            found_in: found_in.to_owned(),
            recorder,
            record: record.clone(),
            now: judged,
        }
    }

    pub(super) fn is_let_through(&self) -> bool {
        self.record.is_let_through()
    }

    /// Whether the policy of now says the same, for the same reason.
    fn holds(&self, now: &Judged) -> bool {
        let then = self.record.is_let_through();
        let same_reason = self.record.reason.as_deref() == Some(&*now.reason());
        let both_strict = self.record.is_plaintext_to_strict()
            && now.step() == StepTaken::Policy(Step::StrictPort);
        let both_evicted = self.is_evicted() && now.step() == StepTaken::Evicted;
        then == now.is_allowed() && (same_reason || both_strict || both_evicted)
    }

    /// Whether the policy of now says something else; `None`: nobody can say.
    pub(super) fn has_changed(&self) -> Option<bool> {
        let now = self.now.as_ref()?.as_ref().ok()?;
        Some(!self.holds(&now.judged))
    }

    fn is_evicted(&self) -> bool {
        is_evicted(&self.record)
    }

    pub(super) fn describe(&self, paint: Paint) -> String {
        let record = &self.record;
        let mut text = Text::new(paint);
        text.headline(self.is_let_through(), &self.caller(), &self.destination());
        text.fact("why", &self.reason());
        if let Some(error) = &record.error {
            text.fact("", error);
        }
        if let Some(step) = record.step {
            text.fact("step", &wording::step(StepTaken::Policy(step)));
        }
        if let Some(policy) = &record.policy {
            text.fact("policy", &policy.to_string());
        }
        text.fact("connection", &self.when());
        text.fact(
            "recorded",
            &format!("by {} ({})", self.recorder, self.found_in),
        );
        if record.decided_by_peer {
            text.fact("ask there", &self.ask_there());
        }
        match &self.now {
            Some(Ok(now)) if self.holds(&now.judged) => {
                text.fact("now", &format!("the same, by {}", now.basis.what));
                text.detail(now);
            }
            Some(Ok(now)) => {
                let verdict = if now.judged.is_allowed() {
                    "ALLOWED"
                } else {
                    "DENIED"
                };
                text.title(&format!(
                    "policy has changed since: now it would be {verdict}"
                ));
                text.fact("why", &now.judged.reason());
                text.fact("step", &wording::step(now.judged.step()));
                if let Some(policy) = now.judged.policy() {
                    text.fact("policy", &policy.to_string());
                }
                text.detail(now);
            }
            Some(Err(why)) => text.fact("now", why),
            None => {}
        }
        text.out
    }

    pub(super) fn reason(&self) -> String {
        let record = &self.record;
        if let Some(reason) = &record.reason {
            return reason.to_string();
        }
        let policy = || match &record.policy {
            Some(policy) => format!(" by {} ({})", policy.document, place(policy)),
            None => String::new(),
        };
        match (record.outcome, record.decided_by_peer) {
            (Outcome::Allow, true) => format!("the other side's sidecar allowed it{}", policy()),
            (Outcome::Deny, true) => format!("the other side's sidecar denied it{}", policy()),
            (Outcome::Refuse, true) => "the other side's sidecar refused it".to_owned(),
            (Outcome::Pass, _) => {
                let name = record.plaintext.as_deref().unwrap_or("not recorded");
                format!("it went out in plaintext, where nobody decides: {name}")
            }
            (Outcome::Unanswered, _) => "the other side's sidecar never answered".to_owned(),
            (outcome, _) => format!("{outcome}; the record does not say why"),
        }
    }

    fn caller(&self) -> String {
        let source = &self.record.source;
        let who = source.identity.as_ref();
        let who = who.map_or_else(|| "plaintext".to_owned(), ToString::to_string);
        format!("{who} from {}", source.address.ip())
    }

    fn destination(&self) -> String {
        let Some(destination) = &self.record.destination else {
            return "a destination that never became known".to_owned();
        };
        match (self.record.direction, &destination.identity) {
            (Direction::Inbound, _) => {
                format!("{} port {}", self.recorder, destination.address.port())
            }
            (Direction::Outbound, Some(id)) => format!("{id} at {}", destination.address),
            (Direction::Outbound, None) => destination.address.to_string(),
        }
    }

    fn when(&self) -> String {
        let record = &self.record;
        let last = Utc(record.last);
        match record.count {
            1 => format!("{} at {last}", self.id),
            count => format!(
                "{}; there were {count} like it from {} to {last}, {} of them open",
                self.id,
                Utc(record.first),
                record.open
            ),
        }
    }

    /// Whom a policy names instead is not for the caller to know.
    fn ask_there(&self) -> String {
        let record = &self.record;
        let from = record
            .source
            .identity
            .as_ref()
            .map_or("plaintext", |id| id.principal());
        let (port, address) = match &record.destination {
            Some(destination) => (
                destination.address.port().to_string(),
                destination.address.ip().to_string(),
            ),
            None => ("PORT".to_owned(), "ADDRESS".to_owned()),
        };
        format!(
            "that sidecar knows the whole reason: mesh-lite explain --from {from} --to \
             NAMESPACE/NAME --port {port} --admin ITS-ADMIN-ADDRESS, of the workload at {address}"
        )
    }
}

fn is_evicted(record: &DecisionRecord) -> bool {
    record.outcome == Outcome::Refuse && record.reason.as_deref() == Some(EVICTED)
}

/// How far back a recording goes, for who does not find a connection in it.
pub(super) fn reach(name: &str, recording: &Recording) -> String {
    let forgotten = match recording.forgotten {
        0 => String::new(),
        lost => format!(", {lost} lost since"),
    };
    format!(
        "{name}: {} records of {}, from {} to {}{forgotten}",
        recording.records.len(),
        recorder(recording),
        Utc(recording.since),
        Utc(recording.until),
    )
}

/// `namespace/name`, or the identity where an access log does not say the name.
fn recorder(recording: &Recording) -> String {
    let identity = || recording.identity.as_ref().map(ToString::to_string);
    let name = recording.workload.as_ref().map(ToString::to_string);
    name.or_else(identity)
        .unwrap_or_else(|| "a sidecar that does not say whose".to_owned())
}

/// What policy of this workload judges; everything else was decided elsewhere, or by nobody.
fn call(record: &DecisionRecord, destination: &str) -> Option<Call> {
    if record.direction != Direction::Inbound || !(record.facts().is_some() || is_evicted(record)) {
        return None;
    }
    Some(Call {
        caller: record.source.identity.clone(),
        caller_name: None,
        source: Some(record.source.address.ip()),
        destination: destination.to_owned(),
        port: record.destination.as_ref()?.address.port(),
    })
}

impl Present {
    fn documents(&self) -> Option<Arc<Documents>> {
        match self {
            Self::Documents(documents, _) => Some(Arc::clone(documents)),
            Self::Snapshot(..) | Self::None(_) => None,
        }
    }

    fn snapshot(
        &self,
        recording: &Recording,
        record: &DecisionRecord,
        now: SystemTime,
    ) -> Result<(PolicySnapshot, String), String> {
        match self {
            Self::Snapshot(snapshot, what) => Ok((snapshot.clone(), what.clone())),
            Self::Documents(documents, what) => {
                let workload = workload(documents, recording, record)?;
                Ok((documents.snapshot_for(workload, now), what.clone()))
            }
            Self::None(why) => Err(why.clone()),
        }
    }
}

fn workload<'a>(
    documents: &'a Documents,
    recording: &Recording,
    record: &DecisionRecord,
) -> Result<&'a ReviewedWorkload, String> {
    if let Some(name) = &recording.workload {
        let found = name.parse().ok().and_then(|name| documents.workload(&name));
        return found.ok_or_else(|| format!("no Workload document is called {name}"));
    }
    let address = record.destination.as_ref().map(|to| to.address.ip());
    if let Some(found) = address.and_then(|address| documents.workload_at(address)) {
        return Ok(found);
    }
    let all = documents.workloads().iter();
    let mut same = all.filter(|one| Some(&one.id) == recording.identity.as_ref());
    match (same.next(), same.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(
            "the documents do not say which workload recorded this: no Workload document has \
                  its address, or several its identity"
                .to_owned(),
        ),
    }
}
