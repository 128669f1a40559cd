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
    document::{DocumentErrors, DocumentKey, Kind, RawDocument},
    identity::WorkloadId,
    sidecar,
    svid::Serial,
};
use spiffe::TrustDomain;

use self::{
    evictions::Fitted,
    in_force::{InForce, SharedPolicy},
    scope::Scope,
};

mod directory_scan;
mod evictions;
mod in_force;
mod last_good;
mod precedence;
mod scope;

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

/// All documents that decide who may connect to whom.
#[derive(Debug)]
pub struct PolicyIndex {
    trust_domain: TrustDomain,
    /// Documents in it are for the whole mesh.
    mesh_namespace: Arc<str>,
    /// The namespaces of documents that are for the whole mesh: the mesh's own, and Istio's root
    /// namespace if its documents are taken.
    mesh_namespaces: BTreeSet<Arc<str>>,
    shipped: ShippedDefaults,
    documents: BTreeMap<DocumentKey, Held>,
    /// Documents that can't even be told apart, so that none has a last good version.
    nameless: Vec<Nameless>,
    /// The documents of each file at the last scan, of every kind.
    files: BTreeMap<Arc<str>, BTreeSet<DocumentKey>>,
}

/// A document as it is held.
#[derive(Debug)]
struct Held {
    source: SourceRef,
    /// Of what is in force, or where it denies.
    scope: Scope,
    state: State,
}

#[derive(Debug)]
enum State {
    Good(InForce),
    /// The last good version is in force.
    LastGood {
        in_force: InForce,
        errors: DocumentErrors,
    },
    /// It never had a good version.
    Broken {
        errors: DocumentErrors,
        /// Of an eviction that says whom it means: they are evicted until it is repaired.
        eviction: Option<Eviction>,
    },
}

impl State {
    fn broken(broken: Unloadable, source: &SourceRef) -> Self {
        let eviction = broken.subject.map(|subject| Eviction {
            source: source.clone(),
            subject,
            until: None,
        });
        Self::Broken {
            errors: broken.errors,
            eviction,
        }
    }

    const fn in_force(&self) -> Option<&InForce> {
        match self {
            Self::Good(in_force) | Self::LastGood { in_force, .. } => Some(in_force),
            Self::Broken { .. } => None,
        }
    }
}

/// A document whose header can't be read.
#[derive(Debug)]
struct Nameless {
    source: SourceRef,
    errors: DocumentErrors,
    /// Where it denies; `None` if it denies nowhere.
    denies: Option<Scope>,
    effect: Effect,
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
            nameless: Vec::new(),
            files: BTreeMap::new(),
        }
    }

    /// Takes a document that was added or changed. Kinds that decide nothing are passed over.
    pub fn upsert(&mut self, document: &RawDocument) {
        if !document.key.kind.is_policy() {
            return;
        }
        let loaded = self.permitted(document, load(document, &self.trust_domain));
        let for_whole_mesh = self.is_for_whole_mesh(document);
        self.put(
            document.key.clone(),
            source_of(document),
            for_whole_mesh,
            loaded,
        );
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
    ) {
        if for_whole_mesh {
            self.mesh_namespaces.insert(Arc::clone(&key.namespace));
        }
        let last_good = self.documents.remove(&key).and_then(Held::last_good);
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
        self.documents.insert(
            key,
            Held {
                source,
                scope,
                state,
            },
        );
    }

    /// Forgets a document that was removed.
    pub fn remove(&mut self, key: &DocumentKey) {
        self.documents.remove(key);
    }

    /// What decides who may connect to this workload. The revision is 0: whoever sends the
    /// snapshot numbers it.
    #[must_use]
    pub fn snapshot_for(&self, workload: Selected<'_>, now: SystemTime) -> PolicySnapshot {
        let held = self.covering(workload);
        let covering = || held.iter().copied();
        let nameless = self.nameless.iter();
        let Fitted { evictions, crowded } = self.fitted(workload, now);
        let without_policies = PolicySnapshot {
            revision: 0,
            trust_domain: self.trust_domain.clone(),
            mutual_tls: precedence::mutual_tls(covering(), self.shipped.mode),
            default_action: precedence::default_action(covering())
                .or_else(|| Some((self.shipped.default_action?, shipped_source()))),
            policies: Policies::default(),
            evictions: Vec::new(),
            broken: crowded
                .into_iter()
                .chain(covering().filter_map(Held::denial))
                .chain(nameless.filter_map(|nameless| nameless.denial(workload)))
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
        let mut covering = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_policy()) {
            for namespace in &namespaces {
                let held = self.of_namespace(kind, namespace);
                covering.extend(held.filter(|held| held.scope.covers(workload)));
            }
        }
        covering
    }

    fn of_namespace<'a>(&'a self, kind: Kind, namespace: &str) -> impl Iterator<Item = &'a Held> {
        let first = DocumentKey {
            kind,
            namespace: namespace.into(),
            name: "".into(),
        };
        self.documents
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && *key.namespace == *namespace)
            .map(|(_, held)| held)
    }

    /// Everybody whose trust was ended, some of them perhaps for a time that is over.
    pub fn evictions(&self) -> impl Iterator<Item = &Eviction> {
        self.documents.values().filter_map(Held::eviction)
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
        let named = self.documents.iter().filter_map(|(key, held)| {
            let (effect, errors) = match &held.state {
                State::Good(_) => return None,
                State::LastGood { errors, .. } => (Effect::LastGood, errors),
                State::Broken { errors, .. } => (Effect::Denies, errors),
            };
            let (key, source) = (Some(key.clone()), held.source.clone());
            Some(Problem {
                key,
                source,
                effect,
                errors: errors.clone(),
            })
        });
        let nameless = self.nameless.iter().map(|nameless| Problem {
            key: None,
            source: nameless.source.clone(),
            effect: nameless.effect,
            errors: nameless.errors.clone(),
        });
        named.chain(nameless)
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

impl Held {
    fn last_good(self) -> Option<(Scope, InForce)> {
        match self.state {
            State::Good(in_force) | State::LastGood { in_force, .. } => {
                Some((self.scope, in_force))
            }
            State::Broken { .. } => None,
        }
    }

    fn policy(&self) -> Option<&SharedPolicy> {
        match self.state.in_force()? {
            InForce::AuthorizationPolicy { policy, .. } => policy.as_ref(),
            InForce::PeerAuthentication(_) | InForce::Eviction(_) => None,
        }
    }

    fn eviction(&self) -> Option<&Eviction> {
        match &self.state {
            State::Good(InForce::Eviction(eviction))
            | State::LastGood {
                in_force: InForce::Eviction(eviction),
                ..
            }
            | State::Broken {
                eviction: Some(eviction),
                ..
            } => Some(eviction),
            _ => None,
        }
    }

    fn denial(&self) -> Option<BrokenDocument> {
        match &self.state {
            State::Broken {
                errors,
                eviction: None,
            } => Some(denial(&self.source, errors)),
            _ => None,
        }
    }
}

impl Nameless {
    fn denial(&self, workload: Selected<'_>) -> Option<BrokenDocument> {
        let denies = self.denies.as_ref()?.covers(workload);
        denies.then(|| denial(&self.source, &self.errors))
    }
}

/// Where the shipped default is "written".
fn shipped_source() -> SourceRef {
    SourceRef {
        document: "the shipped default".into(),
        file: "built in".into(),
        line: 0,
    }
}

fn denial(source: &SourceRef, errors: &DocumentErrors) -> BrokenDocument {
    BrokenDocument {
        source: source.clone(),
        reason: errors.to_string().into(),
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
