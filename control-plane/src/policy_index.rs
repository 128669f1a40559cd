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
        Policy, PolicySnapshot, SourceRef,
        document::{Loaded, Selector, Unloadable, load},
    },
    document::{DocumentErrors, DocumentKey, RawDocument},
    identity::WorkloadId,
    sidecar,
    svid::Serial,
};
use spiffe::TrustDomain;

use self::{evictions::Fitted, scope::Scope};

mod directory_scan;
mod evictions;
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
    Good(Loaded),
    /// The last good version is in force.
    LastGood {
        loaded: Loaded,
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

    const fn in_force(&self) -> Option<&Loaded> {
        match self {
            Self::Good(loaded) | Self::LastGood { loaded, .. } => Some(loaded),
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
        self.put(document.key.clone(), source_of(document), loaded);
    }

    fn put(&mut self, key: DocumentKey, source: SourceRef, loaded: Result<Loaded, Unloadable>) {
        let last_good = self.documents.remove(&key).and_then(Held::last_good);
        let (scope, state) = match (loaded, last_good) {
            (Ok(loaded), _) => (self.scope_of(&key, &loaded), State::Good(loaded)),
            (Err(broken), Some((scope, loaded))) => (
                scope,
                State::LastGood {
                    loaded,
                    errors: broken.errors,
                },
            ),
            (Err(broken), None) => (
                self.scope_of_broken(&key, &broken),
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

    fn scope_of(&self, key: &DocumentKey, loaded: &Loaded) -> Scope {
        let selector = match loaded {
            Loaded::AuthorizationPolicy(policy) => policy.selector.clone(),
            Loaded::PeerAuthentication(authentication) => authentication.selector.clone(),
            // of the document alone: whoever is evicted is evicted everywhere
            Loaded::Eviction(_) => Selector::default(),
        };
        Scope::of(&key.namespace, &self.mesh_namespace, selector)
    }

    fn scope_of_broken(&self, key: &DocumentKey, broken: &Unloadable) -> Scope {
        let selector = broken.selector.clone().unwrap_or_default();
        Scope::of(&key.namespace, &self.mesh_namespace, selector)
    }

    /// What decides who may connect to this workload. The revision is 0: whoever sends the
    /// snapshot numbers it.
    #[must_use]
    pub fn snapshot_for(&self, workload: Selected<'_>, now: SystemTime) -> PolicySnapshot {
        let covering = || {
            self.documents
                .values()
                .filter(|held| held.scope.covers(workload))
        };
        let nameless = self.nameless.iter();
        let Fitted { evictions, crowded } = self.fitted(workload, now);
        let policies = bounded(PolicySnapshot {
            revision: 0,
            trust_domain: self.trust_domain.clone(),
            mutual_tls: precedence::mutual_tls(covering(), self.shipped.mode),
            default_action: precedence::default_action(covering())
                .or_else(|| Some((self.shipped.default_action?, shipped_source()))),
            policies: covering().filter_map(Held::policy).cloned().collect(),
            evictions: Vec::new(),
            broken: crowded
                .into_iter()
                .chain(covering().filter_map(Held::denial))
                .chain(nameless.filter_map(|nameless| nameless.denial(workload)))
                .collect(),
        });
        PolicySnapshot {
            evictions,
            ..policies
        }
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

impl Held {
    fn last_good(self) -> Option<(Scope, Loaded)> {
        match self.state {
            State::Good(loaded) | State::LastGood { loaded, .. } => Some((self.scope, loaded)),
            State::Broken { .. } => None,
        }
    }

    fn policy(&self) -> Option<&Policy> {
        match self.state.in_force()? {
            Loaded::AuthorizationPolicy(document) => document.policy.as_ref(),
            Loaded::PeerAuthentication(_) | Loaded::Eviction(_) => None,
        }
    }

    fn eviction(&self) -> Option<&Eviction> {
        match &self.state {
            State::Good(Loaded::Eviction(eviction))
            | State::LastGood {
                loaded: Loaded::Eviction(eviction),
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
fn bounded(snapshot: PolicySnapshot) -> PolicySnapshot {
    let size = snapshot.wire_size();
    if size <= MAX_POLICIES {
        return snapshot;
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
        policies: Policies::default(),
        broken: vec![BrokenDocument {
            source,
            reason: reason.into(),
        }],
        ..snapshot
    }
}

#[cfg(test)]
mod tests;
