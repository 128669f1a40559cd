//! `CONN_ID`: what became of a connection, and what would become of it now.

use std::net::SocketAddr;

use mesh_lite_proto::{
    authorization::Step,
    decision_record::{
        ConnectionId, DecisionRecord, Direction, Ending, LoggedConnection, MAX_CLAIMS, Outcome,
        Recording, Utc,
    },
};

use super::{
    Explanation,
    judged::{Judged, StepTaken},
    present::{Present, is_of_peer},
    refusal,
};
use crate::recordings::NamedRecording;

/// How the access log names a refusal for an eviction.
const EVICTED: &str = "evicted";

/// A connection that a sidecar recorded.
#[derive(Debug)]
pub(super) struct RecordedCall {
    /// Of that sidecar.
    pub(super) id: ConnectionId,
    pub(super) claim: Option<Claim>,
    /// Where the record was found.
    pub(super) found_in: String,
    /// Of the sidecar that recorded it: `namespace/name`, or its identity.
    pub(super) recorder: String,
    pub(super) record: DecisionRecord,
    /// What the application dialled, if that is known.
    pub(super) original_destination: Option<SocketAddr>,
    /// `None`: nobody noted it for this connection alone.
    pub(super) ending: Option<Ending>,
    /// By the policy of now; why not, if it can't be asked; `None` if no policy of what is named
    /// has anything to say.
    pub(super) now: Option<Result<Explanation, String>>,
    /// What to ask next; nothing if all is said.
    pub(super) ask: Vec<String>,
}

/// The caller says that it has the connection under the id that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) id: ConnectionId,
    /// Whether the record with that id, of the caller's side, is of the same caller and the same
    /// port. `None`: there is none.
    pub(super) is_borne_out: Option<bool>,
}

/// What became of it in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    /// Allowed, and no longer allowed later.
    Cut,
    Denied,
}

/// Everything that the recordings have of a connection, and what is to be said of it now.
pub(super) fn find(id: ConnectionId, present: &Present<'_>) -> Vec<RecordedCall> {
    let mut found: Vec<_> = present
        .recordings
        .iter()
        .flat_map(|named| {
            let of_log = named.logged.iter().cloned();
            let of_page = named
                .recording
                .of_connection(id)
                .filter(|_| named.admin.is_some() || named.logged.is_empty());
            let of_page = of_page.map(|record| as_page_has_it(id, record));
            let logged: Vec<_> = of_log.chain(of_page).collect();
            logged.into_iter().map(move |logged| (named, logged))
        })
        .map(|(named, logged)| RecordedCall::of(id, named, logged, present))
        .collect();
    bear_out(&mut found);
    let is_claimed = found.iter().any(|call| call.claim.is_some());
    for call in &mut found {
        if is_claimed || matches!(call.now, Some(Ok(_))) {
            call.ask.clear();
        }
    }
    found
}

/// A page tells of many at once.
fn as_page_has_it(id: ConnectionId, record: &DecisionRecord) -> LoggedConnection {
    LoggedConnection {
        id,
        is_claimed: false,
        record: record.clone(),
        original_destination: None,
        ending: None,
    }
}

/// Compares what callers claim with what their own side recorded, if that is here.
fn bear_out(found: &mut [RecordedCall]) {
    let of_caller =
        |call: &&RecordedCall| call.claim.is_none() && call.record.direction == Direction::Outbound;
    let facts = |record: &DecisionRecord| {
        let port = record.destination.as_ref().map(|it| it.address.port());
        (record.source.identity.clone(), port)
    };
    let Some(own) = found.iter().find(of_caller).map(|own| facts(&own.record)) else {
        return;
    };
    for call in found {
        if let Some(claim) = &mut call.claim {
            claim.is_borne_out = Some(facts(&call.record) == own);
        }
    }
}

/// Said once of all, if they are many.
pub(super) fn of_several(id: ConnectionId, found: &[RecordedCall]) -> Option<String> {
    let claims = found.iter().filter(|call| call.claim.is_some()).count();
    let own = found.len() - claims;
    let mut words = Vec::new();
    if own > 1 {
        words.push(format!(
            "{own} recordings have a connection {id}: each is told of by itself, for sidecars may \
             have\ngiven the same id to different connections"
        ));
    }
    if claims > 1 {
        let more = if claims < MAX_CLAIMS { "" } else { " at least" };
        words.push(format!(
            "of{more} {claims} connections their callers claim that it is {id} on their side: a \
             caller may say so\nof any"
        ));
    }
    (!words.is_empty()).then(|| words.join("\n"))
}

impl RecordedCall {
    fn of(
        asked: ConnectionId,
        named: &NamedRecording,
        logged: LoggedConnection,
        present: &Present<'_>,
    ) -> Self {
        let LoggedConnection {
            id,
            is_claimed,
            record,
            original_destination,
            ending,
        } = logged;
        Self {
            id,
            claim: is_claimed.then_some(Claim {
                id: asked,
                is_borne_out: None,
            }),
            found_in: named.name.clone(),
            recorder: recorder(&named.recording),
            now: present.judged(named, &record),
            ask: if is_of_peer(&record) {
                ask_there(id, named)
            } else {
                Vec::new()
            },
            record,
            original_destination,
            ending,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let is_cut = self.ending.as_ref().is_some_and(Ending::is_cut);
        match self.record.is_let_through() {
            true if is_cut => Verdict::Cut,
            true => Verdict::Allowed,
            false => Verdict::Denied,
        }
    }

    /// Whether the policy of now says the same as was said last, for the same reason.
    pub(super) fn holds(&self, now: &Explanation) -> bool {
        let judged = &now.judged;
        (self.verdict() == Verdict::Allowed) == judged.is_allowed()
            && self.has_same_reason(now, judged)
    }

    fn has_same_reason(&self, now: &Explanation, judged: &Judged) -> bool {
        let record = &self.record;
        if record.decided_by_peer {
            // the other side says by which document, and no more
            let named = record.policy.as_ref().map(|policy| &policy.document);
            let names_it = judged.policy().map(|policy| &policy.document);
            return named.is_none() || named == names_it;
        }
        let cut = self.ending.as_ref().filter(|ending| ending.is_cut());
        let reason = match cut {
            Some(ending) => ending.error.as_deref(),
            None => record.reason.as_deref(),
        };
        let says = now.basis.as_sidecars_say(&judged.reason());
        let both_strict =
            record.is_plaintext_to_strict() && judged.step() == StepTaken::Policy(Step::StrictPort);
        let both_evicted = is_evicted(record) && judged.step() == StepTaken::Evicted;
        reason == Some(&*says) || both_strict || both_evicted
    }

    /// Whether the policy of now says something else; `None`: nobody can say.
    pub(super) fn has_changed(&self) -> Option<bool> {
        let now = self.now.as_ref()?.as_ref().ok()?;
        Some(!self.holds(now))
    }

    /// What the refusal means, of which the record has but a name.
    pub(super) fn refusal(&self) -> Option<refusal::Words> {
        let is_refused = self.record.outcome == Outcome::Refuse;
        let name = self.record.reason.as_deref().filter(|_| is_refused)?;
        refusal::in_words(name)
    }

    /// As the record has it.
    pub(super) fn reason(&self) -> String {
        let record = &self.record;
        if let Some(reason) = &record.reason {
            return reason.to_string();
        }
        let policy = || match &record.policy {
            Some(policy) => format!(" by {policy}"),
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
}

/// Commands that tell more than the caller's side knows: whom a policy names instead is not for
/// the caller to know.
fn ask_there(id: ConnectionId, named: &NamedRecording) -> Vec<String> {
    let own = match named.admin {
        Some(admin) => format!("--admin {admin}"),
        None => format!("--records {}", for_a_shell(&named.name)),
    };
    [
        "--admin ITS-ADMIN-ADDRESS",
        "--records ITS-ACCESS-LOG",
        "--config-dir DOCUMENTS",
    ]
    .into_iter()
    .map(|other| format!("mesh-lite explain {id} {own} {other}"))
    .collect()
}

/// One word of a command.
fn for_a_shell(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+');
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

pub(super) fn is_evicted(record: &DecisionRecord) -> bool {
    record.outcome == Outcome::Refuse && record.reason.as_deref() == Some(EVICTED)
}

/// How far back a recording goes, for who does not find a connection in it.
pub(super) fn reach(name: &str, recording: &Recording) -> String {
    let forgotten = match recording.forgotten {
        0 => String::new(),
        lost => format!(", {lost} lost since"),
    };
    let records = match recording.records.len() {
        1 => "1 record".to_owned(),
        more => format!("{more} records"),
    };
    format!(
        "{name}: {records} of {}, from {} to {}{forgotten}",
        recorder(recording),
        Utc(recording.since),
        Utc(recording.until),
    )
}

/// `namespace/name`, or the identity where an access log does not say the name.
pub(super) fn recorder(recording: &Recording) -> String {
    let identity = || recording.identity.as_ref().map(ToString::to_string);
    let name = recording.workload.as_ref().map(ToString::to_string);
    name.or_else(identity)
        .unwrap_or_else(|| "a sidecar that does not say whose".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_of_a_command() {
        for (name, word) in [
            ("logs/api.log", "logs/api.log"),
            ("a b", "'a b'"),
            ("$(rm x)", "'$(rm x)'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(for_a_shell(name), word);
        }
    }
}
