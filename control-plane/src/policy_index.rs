//! Which policy is in force for which workload.
//!
//! ```text
//!   documents (added, changed, removed) ── last good of each ── snapshot_for(workload)
//! ```
//! A document that breaks keeps its last good version; one that never had any denies in its
//! scope, because it might have been the one that denies. No I/O here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{
        BrokenDocument, DefaultAction, Eviction, EvictionSubject, MutualTlsMode, Policies,
        PolicySnapshot, SourceRef,
        document::{Loaded, Selector, Unloadable, load},
    },
    document::{DocumentErrors, DocumentKey, Documents, Kind, RawDocument},
    identity::WorkloadId,
    sidecar,
    svid::Serial,
};
use spiffe::TrustDomain;

use crate::workload_index::WorkloadIndex;

use self::{
    by_scope::ByScope,
    changed_files::PlaceInFile,
    evictions::{Evicting, Fitted},
    held::{Entry, Held, Read, State},
    in_force::{InForce, SharedPolicy},
    scope::Scope,
    unreadable::Unreadable,
};

mod by_scope;
mod changed_files;
mod evictions;
mod held;
mod in_force;
mod not_mesh_wide;
mod precedence;
mod resumed;
mod scope;
mod unreadable;

pub(crate) use changed_files::ChangedFile;

/// What a sidecar takes in one message, less what the message is wrapped in.
const MAX_SNAPSHOT: usize = sidecar::MAX_GRPC_MESSAGE - 1024;
/// Of it, what is left for all but evictions, so that other namespaces' evictions can't make the
/// policies of this one too large.
const MAX_POLICIES: usize = MAX_SNAPSHOT - evictions::ROOM;

/// What holds where no document says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShippedDefaults {
    pub mode: MutualTlsMode,
    /// `None`: STRICT denies, PERMISSIVE allows.
    pub default_action: Option<DefaultAction>,
}

impl ShippedDefaults {
    /// Of `--config-dir`, `demo` and `install --strict`.
    pub const STRICT: Self = Self {
        mode: MutualTlsMode::Strict,
        default_action: Some(DefaultAction::Deny),
    };
    /// Of `install`.
    pub const PERMISSIVE: Self = Self {
        mode: MutualTlsMode::Permissive,
        default_action: None,
    };
}

/// A workload, as policy selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected<'a> {
    pub namespace: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// All documents that decide who may connect to whom. A clone shares what they say, and costs as
/// much as their names: the next index is made of one, while the last is in use.
#[derive(Debug, Clone)]
pub struct PolicyIndex {
    trust_domain: TrustDomain,
    /// Documents in it are for the whole mesh.
    mesh_namespace: Arc<str>,
    /// The namespaces of documents that are for the whole mesh: the mesh's own, and Istio's root
    /// namespace if its documents are taken.
    mesh_namespaces: BTreeSet<Arc<str>>,
    shipped: ShippedDefaults,
    documents: BTreeMap<DocumentKey, Entry>,
    by_scope: ByScope,
    evicting: Evicting,
    /// Evictions that may be refused only because their namespace has too many.
    crowded: BTreeSet<DocumentKey>,
    /// The documents of each file, of every kind.
    files: BTreeMap<Arc<str>, Arc<Documents>>,
    /// Where in files each document stands.
    places: BTreeMap<DocumentKey, BTreeSet<PlaceInFile>>,
    /// Of each file that has any.
    unreadable: BTreeMap<Arc<str>, Arc<Vec<Unreadable>>>,
    /// Documents in no file that an unreadable one may be.
    kept: BTreeSet<DocumentKey>,
    workloads: Arc<WorkloadIndex>,
}

/// A document that is not in force as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `None`: its header can't be read.
    pub key: Option<DocumentKey>,
    pub source: SourceRef,
    pub effect: Effect,
    pub errors: DocumentErrors,
}

/// What is in force in place of a document as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Its last good version.
    LastGood,
    /// It denies in its scope.
    Denies,
    /// Nothing: it says that it is no policy.
    NoPolicy,
}

impl PolicyIndex {
    #[must_use]
    pub fn new(trust_domain: TrustDomain, mesh_namespace: &str, shipped: ShippedDefaults) -> Self {
        Self {
            trust_domain,
            mesh_namespace: mesh_namespace.into(),
            mesh_namespaces: BTreeSet::new(),
            shipped,
            documents: BTreeMap::new(),
            by_scope: ByScope::default(),
            evicting: Evicting::default(),
            crowded: BTreeSet::new(),
            files: BTreeMap::new(),
            places: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            kept: BTreeSet::new(),
            workloads: Arc::default(),
        }
    }

    /// The workloads as they were when these documents were read. Who asks what is in force for one
    /// of them takes its labels from here: an edit may change both, and then neither of before
    /// goes with the other of now.
    #[must_use]
    pub(crate) const fn workloads(&self) -> &Arc<WorkloadIndex> {
        &self.workloads
    }

    pub(crate) fn set_workloads(&mut self, workloads: Arc<WorkloadIndex>) {
        self.workloads = workloads;
    }

    /// Takes a document that was added or changed. Kinds that decide nothing are passed over.
    pub fn upsert(&mut self, document: &RawDocument) {
        if document.key.kind.is_policy() {
            self.load(document, None);
        }
    }

    /// `read` is where it stands, if it is all that has its name.
    fn load(&mut self, document: &RawDocument, read: Option<Read>) {
        let key = document.key.clone();
        let loaded = self.permitted(document, load(document, &self.trust_domain));
        if loaded.is_err() && self.is_crowded(&key) {
            self.crowded.insert(key.clone());
        } else {
            self.crowded.remove(&key);
        }
        let for_whole_mesh = self.is_for_whole_mesh(document);
        self.put(key, source_of(document), for_whole_mesh, loaded, read);
    }

    fn is_for_whole_mesh(&self, document: &RawDocument) -> bool {
        document.for_whole_mesh || document.key.namespace == self.mesh_namespace
    }

    fn put(
        &mut self,
        key: DocumentKey,
        source: SourceRef,
        for_whole_mesh: bool,
        loaded: Result<Loaded, Unloadable>,
        read: Option<Read>,
    ) {
        if for_whole_mesh {
            self.mesh_namespaces.insert(Arc::clone(&key.namespace));
        }
        let last_good = self.documents.get(&key).and_then(|it| it.last_good());
        let (scope, state) = match (loaded, last_good) {
            (Ok(loaded), last_good) => (
                scope_of(&key, for_whole_mesh, &loaded),
                State::Good(InForce::of(loaded, last_good.map(|(_, before)| before))),
            ),
            (Err(broken), Some((scope, in_force))) => (
                scope,
                State::LastGood {
                    in_force,
                    errors: broken.errors,
                },
            ),
            (Err(broken), None) => (
                scope_of_broken(&key, for_whole_mesh, &broken),
                State::broken(broken, &source),
            ),
        };
        let held = Held {
            source,
            scope,
            state,
        };
        self.hold(key, Entry::new(read, held));
    }

    fn hold(&mut self, key: DocumentKey, entry: Entry) {
        if entry.eviction().is_some() {
            self.evicting.put(&key);
        } else if key.kind == Kind::Eviction {
            self.evicting.remove(&key);
        }
        let scope = entry.scope.clone();
        let before = self.documents.insert(key.clone(), entry);
        if let Some(before) = before {
            self.by_scope.remove(&key, &before.scope);
        }
        self.by_scope.put(&key, &scope);
    }

    /// Forgets a document that was removed.
    pub fn remove(&mut self, key: &DocumentKey) {
        if key.kind == Kind::Eviction {
            self.evicting.remove(key);
            self.crowded.remove(key);
        }
        if let Some(before) = self.documents.remove(key) {
            self.by_scope.remove(key, &before.scope);
        }
    }

    /// What decides who may connect to this workload. The revision is 0: whoever sends the
    /// snapshot numbers it.
    #[must_use]
    pub fn snapshot_for(&self, workload: Selected<'_>, now: SystemTime) -> PolicySnapshot {
        self.snapshot_under(self.shipped, workload, now)
    }

    /// The same, if `shipped` were what holds where no document says anything.
    #[must_use]
    pub fn snapshot_under(
        &self,
        shipped: ShippedDefaults,
        workload: Selected<'_>,
        now: SystemTime,
    ) -> PolicySnapshot {
        let held = self.covering(workload);
        let covering = || held.iter().copied();
        let unreadable = self.unreadable.values().flat_map(|of_file| of_file.iter());
        let Fitted { evictions, crowded } = self.fitted(workload, now);
        let without_policies = PolicySnapshot {
            revision: 0,
            trust_domain: self.trust_domain.clone(),
            mutual_tls: precedence::mutual_tls(covering(), shipped.mode),
            default_action: precedence::default_action(covering())
                .or_else(|| Some((shipped.default_action?, shipped_source()))),
            policies: Policies::default(),
            evictions: Vec::new(),
            broken: crowded
                .into_iter()
                .chain(covering().filter_map(Held::denial).cloned())
                .chain(unreadable.filter_map(|it| it.denial(workload)))
                .collect(),
        };
        let policies = covering().filter_map(Held::policy);
        PolicySnapshot {
            evictions,
            ..bounded(without_policies, policies)
        }
    }

    /// The documents that are for this workload, in the order of their keys: only its own
    /// namespace and the mesh's can hold any, and no other is looked at.
    fn covering(&self, workload: Selected<'_>) -> Vec<&Held> {
        let mut namespaces: BTreeSet<&str> =
            self.mesh_namespaces.iter().map(|name| &**name).collect();
        namespaces.insert(workload.namespace);
        let keys = self.by_scope.of(namespaces.into_iter(), workload);
        let held = keys.into_iter().filter_map(|key| self.documents.get(key));
        let held = held.map(|entry| &**entry);
        held.filter(|held| held.scope.covers(workload)).collect()
    }

    /// The eviction that forbids to issue to this identity, or to renew this certificate.
    #[must_use]
    pub fn evicted(
        &self,
        id: &WorkloadId,
        serial: Option<&Serial>,
        now: SystemTime,
    ) -> Option<&Eviction> {
        self.evictions().find(|eviction| {
            let of_this_one = match &eviction.subject {
                EvictionSubject::Id(evicted) => evicted == id,
                EvictionSubject::Serial(evicted) => Some(evicted) == serial,
            };
            of_this_one && eviction.until.is_none_or(|until| now < until)
        })
    }

    /// Everything that is not in force as it is written: for status, metrics and readiness.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        let named = self.documents.iter();
        let named = named.filter_map(|(key, held)| problem_of_held(key, held));
        let unreadable = self.unreadable.values().flat_map(|of_file| of_file.iter());
        named.chain(unreadable.map(problem_of_unreadable))
    }

    /// What is not in force as it is written of a file that has one document, which is this.
    #[must_use]
    pub(crate) fn problem_of(&self, file: &str, key: &DocumentKey) -> Option<Problem> {
        let unreadable = self.unreadable.get(file).and_then(|it| it.last());
        let named = || problem_of_held(key, self.documents.get(key)?);
        unreadable.map(problem_of_unreadable).or_else(named)
    }
}

fn problem_of_held(key: &DocumentKey, held: &Held) -> Option<Problem> {
    let (effect, errors) = match &held.state {
        State::Good(_) => return None,
        State::LastGood { errors, .. } => (Effect::LastGood, errors),
        State::Broken { errors, .. } => (Effect::Denies, errors),
    };
    Some(Problem {
        key: Some(key.clone()),
        source: held.source.clone(),
        effect,
        errors: errors.clone(),
    })
}

fn problem_of_unreadable(unreadable: &Unreadable) -> Problem {
    Problem {
        key: None,
        source: unreadable.source.clone(),
        effect: unreadable.effect,
        errors: unreadable.errors.clone(),
    }
}

fn scope_of(key: &DocumentKey, for_whole_mesh: bool, loaded: &Loaded) -> Scope {
    let selector = match loaded {
        Loaded::AuthorizationPolicy(policy) => policy.selector.clone(),
        Loaded::PeerAuthentication(authentication) => authentication.selector.clone(),
        // of the document alone: whoever is evicted is evicted everywhere
        Loaded::Eviction(_) => Selector::default(),
    };
    Scope::of(&key.namespace, for_whole_mesh, selector)
}

fn scope_of_broken(key: &DocumentKey, for_whole_mesh: bool, broken: &Unloadable) -> Scope {
    let selector = broken.selector.clone().unwrap_or_default();
    Scope::of(&key.namespace, for_whole_mesh, selector)
}

/// Where the shipped default is "written".
fn shipped_source() -> SourceRef {
    SourceRef {
        document: "the shipped default".into(),
        file: "built in".into(),
        line: 0,
    }
}

fn source_of(document: &RawDocument) -> SourceRef {
    SourceRef {
        document: format!("{}/{}", document.key.namespace, document.key.name).into(),
        file: Arc::clone(&document.file),
        line: document.line,
    }
}

/// A snapshot that can't be sent would leave a sidecar with the one of before, for good and
/// without a word. It denies instead, and says why. Evictions, which also decide whom the
/// workload itself calls, are not among what is counted here, nor are they dropped.
fn bounded<'a>(
    without_policies: PolicySnapshot,
    policies: impl Iterator<Item = &'a SharedPolicy> + Clone,
) -> PolicySnapshot {
    let sizes = policies.clone().map(|policy| policy.wire_size);
    let size = sizes.fold(without_policies.wire_size(), usize::saturating_add);
    if size <= MAX_POLICIES {
        return PolicySnapshot {
            policies: policies.map(|policy| Arc::clone(&policy.policy)).collect(),
            ..without_policies
        };
    }
    let reason = format!(
        "the policies of this workload are {size} bytes, {MAX_POLICIES} can be sent; use \
         patterns, or fewer documents"
    );
    let source = SourceRef {
        document: "all policies".into(),
        file: "together".into(),
        line: 0,
    };
    PolicySnapshot {
        broken: vec![BrokenDocument {
            source,
            reason: reason.into(),
        }],
        ..without_policies
    }
}

#[cfg(test)]
mod tests;
