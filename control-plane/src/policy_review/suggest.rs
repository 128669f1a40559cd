//! The least policy that lets recorded connections through.
//!
//! ```text
//!   recordings ── callers (who was let through last, who was denied) ── rules, tests ── yaml
//!                                                                                       │
//!   loaded again, and every recorded caller judged by it ◀──────────────────────────────┘
//! ```
//! Only what was let through by its identity is allowed, and only if it was so the last time it
//! came. What can't be said in a policy is said in comments.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{Caller, Facts},
    decision_record::Recording,
    document::{DocumentError, MAX_DOCUMENTS, MAX_FILE, Position},
};
use spiffe::TrustDomain;

use self::callers::{Callers, Fared};
use super::{
    Caveat, Documents, NamedRecording, NoWorkload, Recorded, ReviewSettings, ReviewedWorkload,
    recorded::judge,
};
use crate::WorkloadName;

mod callers;
mod policy_text;

/// As messages about it name it; it is checked before anybody sees it.
const FILE: &str = "suggested.yaml";

/// Documents that let recorded callers through, and what becomes of all others.
#[derive(Debug)]
pub struct Suggestion {
    /// Documents with comments; they load.
    pub text: String,
    /// Of recorded connections: those that were let through by identity, and would be again.
    pub kept: u64,
    /// Those in plaintext, which no identity names: they would be denied.
    pub plaintext: u64,
    /// Those that were let through once, of callers that were denied the last time: they would
    /// be denied.
    pub superseded: u64,
    /// Those that were denied, and would be again.
    pub denied: u64,
    /// Those of workloads for which no policy could be written; the text says why.
    pub left_out: u64,
    /// Those that were denied by a document that could not be loaded, or as evicted: they count
    /// for nothing.
    pub unmeant: u64,
    /// Open connections that it would cut: of whom, and how many.
    pub cut: Vec<String>,
    /// Callers that were denied, and that the policy of another workload lets in, as its labels
    /// select this one too.
    pub widened: Vec<String>,
    /// What the answer leaves out.
    pub caveats: Vec<Caveat>,
}

/// Workloads that no label tells apart, so that they have one policy.
struct Destination<'a> {
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
    recorded: Vec<&'a Recorded<'a>>,
    callers: Callers<'a>,
    scope: Scope,
}

/// Whom a policy would be for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    /// The workloads with these labels, and others, which have them too.
    Labels { others: Vec<String> },
    /// Their namespace, in which there is nobody else.
    Namespace,
    /// They have no labels that are known, and a policy would be for others as well: these, and
    /// who knows who else if no document tells of them.
    None {
        others: Vec<String>,
        is_documented: bool,
    },
}

/// Writes a policy for every workload of which something was recorded.
///
/// # Errors
/// If it is too much for a file of documents; if what was written does not load, or lets somebody
/// else through than it should: a bug.
pub fn suggest(
    documents: &Documents,
    recorded: &[Recorded<'_>],
    settings: &ReviewSettings,
    now: SystemTime,
) -> Result<Suggestion, Unsound> {
    let destinations = destinations(documents, recorded, &settings.mesh_namespace);
    let text = policy_text::written(&destinations, now);
    if text.len() > MAX_FILE || destinations.len() > MAX_DOCUMENTS {
        return Err(Unsound::TooLarge {
            bytes: text.len(),
            documents: destinations.len(),
        });
    }
    let files = BTreeMap::from([(FILE.to_owned(), text.clone().into_bytes())]);
    let written = Documents::of(&files, settings);
    if let Some(error) = written.errors().first() {
        return Err(Unsound::DoesNotLoad(Box::new(error.clone())));
    }
    let mut suggestion = Suggestion {
        text,
        kept: 0,
        plaintext: 0,
        superseded: 0,
        denied: 0,
        left_out: 0,
        unmeant: 0,
        cut: Vec::new(),
        widened: Vec::new(),
        caveats: recorded
            .iter()
            .filter(|one| one.recording.forgotten > 0)
            .map(|one| Caveat::Forgotten {
                recording: one.name.into(),
                records: one.recording.forgotten,
            })
            .collect(),
    };
    for destination in &destinations {
        suggestion.check(destination, &written, now)?;
    }
    Ok(suggestion)
}

impl Suggestion {
    /// There is a policy for everybody who was called, and it changes nothing for the worse.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.widened.is_empty() && self.left_out == 0 && self.cut.is_empty()
    }

    /// Judges everybody who was recorded by what was written.
    fn check(
        &mut self,
        destination: &Destination<'_>,
        written: &Documents,
        now: SystemTime,
    ) -> Result<(), Unsound> {
        self.unmeant = self.unmeant.saturating_add(destination.callers.unmeant);
        let recorded = destination.recorded.iter();
        let snapshots: Vec<_> = recorded
            .map(|one| (one, written.snapshot_for(one.workload, now)))
            .collect();
        for (asked, fared) in destination.callers.all() {
            let through = fared.was_let_through();
            if matches!(destination.scope, Scope::None { .. }) {
                self.left_out = self.left_out.saturating_add(fared.connections());
                continue;
            }
            let caller = asked
                .caller
                .map_or(Caller::Plaintext, Caller::Authenticated);
            let facts = Facts {
                caller,
                source: asked.source,
                port: asked.port,
            };
            let wanted = through && asked.caller.is_some();
            if !wanted && fared.open > 0 {
                self.cut.push(format!(
                    "{} to {}, port {}: {} open",
                    asked.name(),
                    policy_text::called(destination),
                    asked.port,
                    fared.open
                ));
            }
            for (one, snapshot) in &snapshots {
                let judgement = judge(snapshot, &facts, now);
                match (wanted, judgement.allowed) {
                    (true, false) => return Err(Unsound::Denies(judgement.reason)),
                    (false, true) => {
                        let own = policy_text::name_of(destination);
                        let by = judgement.policy.map(|policy| policy.document);
                        if by.as_deref() == Some(&*own) {
                            return Err(Unsound::Allows(judgement.reason));
                        }
                        self.widened.push(format!(
                            "{} to {}, port {}: {}",
                            asked.name(),
                            one.workload.name,
                            asked.port,
                            judgement.reason
                        ));
                    }
                    _ => {}
                }
            }
            self.count(asked.caller.is_none(), fared);
        }
        Ok(())
    }

    fn count(&mut self, is_plaintext: bool, fared: &Fared) {
        let let_through = fared.let_through.count;
        let sum = if is_plaintext {
            &mut self.plaintext
        } else if fared.was_let_through() {
            &mut self.kept
        } else {
            &mut self.superseded
        };
        *sum = sum.saturating_add(let_through);
        self.denied = self.denied.saturating_add(fared.denied.count);
    }
}

fn destinations<'a>(
    documents: &'a Documents,
    recorded: &'a [Recorded<'a>],
    mesh_namespace: &str,
) -> Vec<Destination<'a>> {
    let mut groups: BTreeMap<(&str, &BTreeMap<String, String>), Vec<&Recorded<'_>>> =
        BTreeMap::new();
    for one in recorded {
        let key = (&*one.workload.name.namespace, &one.workload.labels);
        groups.entry(key).or_default().push(one);
    }
    groups
        .into_iter()
        .map(|((namespace, labels), of_them)| Destination {
            namespace,
            labels,
            callers: Callers::of(&of_them),
            scope: scope(
                documents,
                recorded,
                (namespace, labels),
                &of_them,
                mesh_namespace,
            ),
            recorded: of_them,
        })
        .collect()
}

fn scope(
    documents: &Documents,
    recorded: &[Recorded<'_>],
    (namespace, labels): (&str, &BTreeMap<String, String>),
    own: &[&Recorded<'_>],
    mesh_namespace: &str,
) -> Scope {
    let own: BTreeSet<&WorkloadName> = own.iter().map(|one| &one.workload.name).collect();
    // a policy of the mesh's own namespace is for all of them
    let everywhere = namespace == mesh_namespace;
    let known = documents.workloads().iter();
    let others: BTreeSet<&WorkloadName> = known
        .chain(recorded.iter().map(|one| one.workload))
        .filter(|workload| everywhere || workload.name.namespace == namespace)
        .filter(|workload| {
            let mut pairs = labels.iter();
            pairs.all(|(key, value)| workload.labels.get(key) == Some(value))
        })
        .map(|workload| &workload.name)
        .filter(|name| !own.contains(name))
        .collect();
    let others: Vec<String> = others.into_iter().map(ToString::to_string).collect();
    // of whom no document tells, nobody knows who else is in the namespace
    let is_documented = own.iter().all(|name| documents.workload(name).is_some());
    let is_alone = others.is_empty() && own.len() == 1 && !everywhere;
    match (labels.is_empty(), is_alone && is_documented) {
        (false, _) => Scope::Labels { others },
        (true, true) => Scope::Namespace,
        (true, false) => Scope::None {
            others,
            is_documented,
        },
    }
}

/// Workloads as recordings alone show them: without labels.
///
/// # Errors
/// Recordings that don't say whose they are.
pub fn workloads_by_recording(
    recordings: &[NamedRecording<'_>],
    trust_domain: &TrustDomain,
) -> Result<Vec<ReviewedWorkload>, NoWorkload> {
    let mut found = Vec::new();
    let mut lost = Vec::new();
    for one in recordings {
        match by_recording(one.recording, trust_domain) {
            Some(workload) => found.push(workload),
            None => lost.push(one.name.into()),
        }
    }
    if lost.is_empty() {
        Ok(found)
    } else {
        Err(NoWorkload::nameless(lost))
    }
}

fn by_recording(recording: &Recording, trust_domain: &TrustDomain) -> Option<ReviewedWorkload> {
    let id = recording.identity.clone()?;
    let name = match &recording.workload {
        Some(name) => name.parse().ok()?,
        None => WorkloadName {
            namespace: id.namespace()?.to_owned(),
            name: id.service_account()?.to_owned(),
        },
    };
    (id.trust_domain() == trust_domain).then(|| ReviewedWorkload {
        name,
        id,
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: BTreeMap::new(),
        meshed: true,
        file: "".into(),
        line: 0,
        ports_at: BTreeMap::new(),
        name_at: Position { line: 0, column: 0 },
    })
}

/// What was written can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unsound {
    #[error(
        "the policy would have {bytes} bytes in {documents} documents, and a file of documents has \
         at most {MAX_FILE} in {MAX_DOCUMENTS}: ask for fewer recordings at once, or write patterns"
    )]
    TooLarge { bytes: usize, documents: usize },
    #[error(
        "the policy that was written does not load, so it is not shown: {0}; this is a bug, \
         please report it with the recording"
    )]
    DoesNotLoad(Box<DocumentError>),
    #[error(
        "the policy that was written denies a recorded caller, so it is not shown: {0}; this is a \
         bug, please report it with the recording"
    )]
    Denies(String),
    #[error(
        "the policy that was written allows a caller that was denied, so it is not shown: {0}; \
         this is a bug, please report it with the recording"
    )]
    Allows(String),
}

#[cfg(test)]
mod tests;
