//! The status of each policy. Its condition `Loaded`: whether it is in force as it is written, and
//! if not, why, with the line. And `lastLoaded`, for replicas that did not see it load.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use mesh_lite_proto::document::RefusalClass;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use super::{
    kinds::WatchedKind, objects::ObjectName, policy_object::PolicyObject, watching::resource,
};
use crate::{
    clock::readable,
    cluster::Cluster,
    condition::Part,
    policy_index::{Effect, Problem},
    source::directory_of_files::in_words,
};

const CONDITION: &str = "Loaded";
const LAST_LOADED: &str = "lastLoaded";
/// An object in Kubernetes has at most 1.5 MB; one that is changed needs room beside this.
const MAX_OBJECT: usize = 1024 * 1024;
/// What Kubernetes takes as a condition's message.
const MAX_MESSAGE: usize = 32 * 1024;
/// One replica writes them, one after the other: at most 50 in a second.
const PACE: Duration = Duration::from_millis(20);
/// Looked at again for what could not be written, and for what others overwrote.
const AGAIN: Duration = Duration::from_secs(5);
/// One refused status is a problem; a few show which.
const TOLD_REFUSALS: usize = 5;
const ANSWER: Duration = Duration::from_secs(10);

/// What a condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    loaded: bool,
    reason: String,
    message: Arc<str>,
    observed_generation: i64,
}

impl Told {
    /// The condition that an object has.
    pub(super) fn of_object(object: &Value) -> Option<Self> {
        let conditions = object.pointer("/status/conditions")?.as_array()?;
        let condition = conditions
            .iter()
            .find(|condition| text(condition, "type") == Some(CONDITION))?;
        Some(Self {
            loaded: text(condition, "status") == Some("True"),
            reason: text(condition, "reason").unwrap_or_default().to_owned(),
            message: text(condition, "message").unwrap_or_default().into(),
            observed_generation: condition.get("observedGeneration")?.as_i64()?,
        })
    }

    fn to_condition(&self, since: &str) -> Value {
        json!({
            "type": CONDITION,
            "status": if self.loaded { "True" } else { "False" },
            "reason": self.reason,
            "message": &*self.message,
            "observedGeneration": self.observed_generation,
            "lastTransitionTime": since,
        })
    }
}

/// What of an object's conditions stays when ours is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What ours says of loading, and since when.
    since: Option<(bool, String)>,
    /// Conditions of other writers: a merge patch replaces the whole list. As large as the object.
    others: Vec<Value>,
}

impl Found {
    pub(super) fn of_object(object: &Value) -> Self {
        let conditions = object.pointer("/status/conditions");
        let conditions = conditions.and_then(Value::as_array).into_iter().flatten();
        let (own, others): (Vec<_>, Vec<_>) =
            conditions.partition(|condition| text(condition, "type") == Some(CONDITION));
        let since = own.into_iter().next().and_then(|own| {
            let loaded = text(own, "status")? == "True";
            Some((loaded, text(own, "lastTransitionTime")?.to_owned()))
        });
        Self {
            since,
            others: others.into_iter().cloned().collect(),
        }
    }

    /// All conditions as they should be: the time of ours is that of the last change of its status.
    fn with(&self, wanted: &Told, now: SystemTime) -> Vec<Value> {
        let stays = self.since.as_ref();
        let stays = stays.filter(|(loaded, _)| *loaded == wanted.loaded);
        let since = stays.map_or_else(|| readable(now), |(_, since)| since.clone());
        let own = wanted.to_condition(&since);
        self.others.iter().cloned().chain([own]).collect()
    }
}

/// A version of an object that loaded. As a text it is one field, which is replaced as a whole,
/// and its lines are those that people saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastLoaded {
    pub(super) generation: i64,
    pub(super) document: Arc<str>,
}

impl LastLoaded {
    pub(super) fn of_object(object: &Value) -> Option<Self> {
        let last = object.get("status")?.get(LAST_LOADED)?;
        Some(Self {
            generation: last.get("generation")?.as_i64()?,
            document: text(last, "document")?.into(),
        })
    }

    /// Whether it finds room in the status of this object, as it is now.
    fn fits(&self, policy: &PolicyObject) -> bool {
        let length = self.document.len();
        // JSON writes line ends and quotes with one more byte
        let escaped = |byte: &u8| matches!(byte, b'\n' | b'"' | b'\\');
        policy.size().is_some_and(|size| {
            let room = MAX_OBJECT.saturating_sub(size).saturating_sub(MAX_MESSAGE);
            length.saturating_mul(2) <= room
                || length.saturating_add(self.document.bytes().filter(|b| escaped(b)).count())
                    <= room
        })
    }
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

/// What a policy's status says, and what it should say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    kind: WatchedKind,
    name: ObjectName,
    uid: String,
    told: Option<Told>,
    wanted: Told,
    found: Found,
    told_last: Option<LastLoaded>,
    wanted_last: Option<LastLoaded>,
}

/// What became of a policy, in words: made once for each of its versions.
pub(super) struct Judged {
    effect: Option<Effect>,
    wanted: Told,
    problem: Option<String>,
}

impl Judged {
    pub(super) fn of(policy: &PolicyObject, problem: Option<&Problem>) -> Self {
        let (reason, message) = match problem {
            None if policy.as_last_loaded().fits(policy) => {
                ("Loaded".to_owned(), "in force as written".to_owned())
            }
            None => (
                "Loaded".to_owned(),
                "in force as written. It is too large to be kept in its status as the last good version: once it is \
                 broken, replicas that start later DENY in its scope; split it into several objects"
                    .to_owned(),
            ),
            Some(problem) => {
                let effect = match problem.effect {
                    Effect::LastGood => "Its last good version stays in force",
                    Effect::Denies => "Until it is repaired it DENIES in its scope",
                    Effect::NoPolicy => "It is passed over",
                };
                let first = problem.errors.iter().next();
                let reason =
                    first.map_or_else(|| "Refused".to_owned(), |error| as_reason(error.class));
                (reason, format!("{effect}. {}", problem.errors))
            }
        };
        Self {
            effect: problem.map(|problem| problem.effect),
            wanted: Told {
                loaded: problem.is_none(),
                reason,
                message: shortened(message).into(),
                observed_generation: policy.generation,
            },
            problem: problem.map(in_words),
        }
    }

    /// `None`: it is in force as it is written.
    pub(super) const fn effect(&self) -> Option<Effect> {
        self.effect
    }

    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// `None` if it is not a policy's kind.
pub(super) fn verdict(
    policy: &PolicyObject,
    judged: &Judged,
    last_good: Option<&LastLoaded>,
) -> Option<Verdict> {
    Some(Verdict {
        kind: WatchedKind::of_document(policy.key.kind)?,
        name: ObjectName {
            namespace: policy.key.namespace.to_string(),
            name: policy.key.name.to_string(),
        },
        uid: policy.uid.clone(),
        told: policy.told.clone(),
        wanted: judged.wanted.clone(),
        found: policy.conditions.clone(),
        told_last: policy.last_loaded.clone(),
        wanted_last: wanted_last(policy, judged, last_good).cloned(),
    })
}

/// An older version than the last good one is never left there: it may allow more.
fn wanted_last<'a>(
    policy: &'a PolicyObject,
    judged: &Judged,
    last_good: Option<&'a LastLoaded>,
) -> Option<&'a LastLoaded> {
    let told = policy.last_loaded.as_ref();
    match judged.effect {
        None => last_good.filter(|last| last.fits(policy)),
        Some(Effect::LastGood) => {
            let own = last_good?;
            let as_new = told.filter(|told| told.generation >= own.generation);
            as_new.or_else(|| Some(own).filter(|own| own.fits(policy)))
        }
        // this replica, perhaps of an older release, can't use it: others may
        Some(Effect::Denies | Effect::NoPolicy) => told,
    }
}

/// `unknown-field` as conditions write it: `UnknownField`.
fn as_reason(class: RefusalClass) -> String {
    let words = class.as_str().split('-');
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    words.map(capital).collect()
}

fn shortened(mut message: String) -> String {
    const MORE: &str = "…";
    if message.len() > MAX_MESSAGE {
        let mut end = MAX_MESSAGE.saturating_sub(MORE.len());
        while !message.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        message.truncate(end);
        message.push_str(MORE);
    }
    message
}

/// What was written: until a watch shows it, it is not written again.
struct Written {
    verdict: Verdict,
    at: Instant,
    /// Why the API server did not take it.
    refused: Option<String>,
}

/// Why a status is not written.
enum Unwritten {
    /// Others may be.
    This(String),
    All(String),
}

/// Writes what differs, while this replica leads. Never ends.
pub(crate) async fn keep(cluster: Cluster, mut verdicts: watch::Receiver<Arc<Vec<Verdict>>>) {
    let mut leads = cluster.leads.clone();
    let mut written: HashMap<(WatchedKind, ObjectName), Written> = HashMap::new();
    loop {
        let newest = Arc::clone(&verdicts.borrow_and_update());
        written.retain(|_, written| written.at.elapsed() < AGAIN);
        let mut problem = None;
        for verdict in newest.iter().filter(|verdict| verdict.is_to_be_written()) {
            // what has changed meanwhile begins anew
            if !*leads.borrow_and_update() || verdicts.has_changed().unwrap_or(false) {
                break;
            }
            let key = (verdict.kind, verdict.name.clone());
            let is_written = written
                .get(&key)
                .is_some_and(|written| written.verdict == *verdict);
            if is_written {
                continue;
            }
            let refused = match write(&cluster, verdict).await {
                Ok(()) => None,
                Err(Unwritten::This(text)) => Some(text),
                Err(Unwritten::All(text)) => {
                    problem = Some(text);
                    break;
                }
            };
            let written_now = Written {
                verdict: verdict.clone(),
                at: Instant::now(),
                refused,
            };
            written.insert(key, written_now);
            time::sleep(PACE).await;
        }
        let refused = written.values().filter_map(|it| it.refused.clone());
        let problems = problem.into_iter().chain(refused.take(TOLD_REFUSALS));
        cluster
            .conditions
            .set(Part::ObjectStatus, problems.collect());
        if verdicts.has_changed().unwrap_or(false) {
            time::sleep(PACE).await;
            continue;
        }
        tokio::select! {
            Ok(()) = verdicts.changed() => {}
            Ok(()) = leads.changed() => {}
            () = time::sleep(AGAIN) => {}
        }
    }
}

impl Verdict {
    fn is_to_be_written(&self) -> bool {
        self.told.as_ref() != Some(&self.wanted) || self.told_last != self.wanted_last
    }

    fn to_patch(&self, now: SystemTime) -> Value {
        let mut status = json!({"conditions": self.found.with(&self.wanted, now)});
        if self.told_last != self.wanted_last
            && let Some(fields) = status.as_object_mut()
        {
            // null takes it away
            let last = self
                .wanted_last
                .as_ref()
                .map(|last| json!({"generation": last.generation, "document": &*last.document}));
            fields.insert(LAST_LOADED.to_owned(), last.unwrap_or_default());
        }
        // of an object that was made anew the API server refuses it
        json!({"metadata": {"uid": self.uid}, "status": status})
    }
}

async fn write(cluster: &Cluster, verdict: &Verdict) -> Result<(), Unwritten> {
    let (kind, name) = (verdict.kind, &verdict.name);
    let resource = resource(kind);
    let api =
        Api::<DynamicObject>::namespaced_with(cluster.client.clone(), &name.namespace, &resource);
    let patch = Patch::Merge(verdict.to_patch((cluster.clock)()));
    let params = PatchParams::default();
    let answer = api.patch_status(&name.name, &params, &patch);
    match time::timeout(ANSWER, answer).await {
        Ok(Ok(_)) => Ok(()),
        // gone, or made anew: the watch will say so
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            let plural = kind.plural();
            Err(Unwritten::All(format!(
                "the API server does not let the control plane write the status of {plural}: its ClusterRole \
                 needs the rule apiGroups [{}], resources [{plural}/status], verbs [patch]; apply what `mesh-lite \
                 install` prints",
                resource.group
            )))
        }
        Ok(Err(kube::Error::Api(status))) => Err(Unwritten::This(format!(
            "the API server refuses the status of {} {}/{}: {}",
            kind.name(),
            name.namespace,
            name.name,
            status.message.escape_debug()
        ))),
        Ok(Err(_)) | Err(_) => {
            let text = "statuses of policies are not written: the API server does not answer";
            Err(Unwritten::All(text.to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
