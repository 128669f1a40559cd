//! A document as it is held: what it said when it last could be loaded, or that it denies.

use std::{ops::Deref, sync::Arc};

use mesh_lite_proto::{
    authorization::{BrokenDocument, Eviction, SourceRef, document::Unloadable},
    document::{DocumentErrors, Documents, RawDocument},
};

use super::{
    in_force::{InForce, SharedPolicy},
    scope::Scope,
};

/// Of the reason why a document denies, what every workload in its scope is sent: the first of its
/// errors. All of them are in readiness, in the status of an object, and in what lint prints.
const MAX_REASON: usize = 1024;

/// What is held, and what it was read from.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// `None`: what is held may not be all that became of one document as it is now, so that it is
    /// loaded again whatever it says.
    pub(super) read: Option<Read>,
    held: Arc<Held>,
}

impl Entry {
    pub(super) fn new(read: Option<Read>, held: Held) -> Self {
        let held = Arc::new(held);
        Self { read, held }
    }

    /// Whether this is what it was loaded from.
    pub(super) fn was_read_from(&self, document: &RawDocument) -> bool {
        let read = self.read.as_ref().and_then(Read::document);
        read.is_some_and(|read| read == document)
    }
}

impl Deref for Entry {
    type Target = Held;

    fn deref(&self) -> &Held {
        &self.held
    }
}

/// One of the documents of a file.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) documents: Arc<Documents>,
    pub(super) index: usize,
}

impl Read {
    pub(super) fn document(&self) -> Option<&RawDocument> {
        self.documents.readable.get(self.index)
    }
}

/// A document as it is held.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) source: SourceRef,
    /// Of what is in force, or where it denies.
    pub(super) scope: Scope,
    pub(super) state: State,
}

#[derive(Debug, Clone)]
pub(super) enum State {
    Good(InForce),
    /// The last good version is in force.
    LastGood {
        in_force: InForce,
        errors: DocumentErrors,
    },
    /// It never had a good version.
    Broken {
        errors: DocumentErrors,
        effect: OfBroken,
    },
}

/// What a document does that never had a good version.
#[derive(Debug, Clone)]
pub(super) enum OfBroken {
    /// Of an eviction that says whom it means: they are evicted until it is repaired.
    Evicts(Eviction),
    Denies(BrokenDocument),
}

impl State {
    pub(super) fn broken(broken: Unloadable, source: &SourceRef) -> Self {
        let effect = match broken.subject {
            Some(subject) => OfBroken::Evicts(Eviction {
                source: source.clone(),
                subject,
                until: None,
            }),
            None => OfBroken::Denies(denial(source, &broken.errors)),
        };
        let errors = broken.errors;
        Self::Broken { errors, effect }
    }

    pub(super) const fn in_force(&self) -> Option<&InForce> {
        match self {
            Self::Good(in_force) | Self::LastGood { in_force, .. } => Some(in_force),
            Self::Broken { .. } => None,
        }
    }
}

impl Held {
    pub(super) fn last_good(&self) -> Option<(Scope, InForce)> {
        let in_force = self.state.in_force()?;
        Some((self.scope.clone(), in_force.clone()))
    }

    pub(super) fn policy(&self) -> Option<&SharedPolicy> {
        match self.state.in_force()? {
            InForce::AuthorizationPolicy { policy, .. } => policy.as_ref(),
            InForce::PeerAuthentication(_) | InForce::Eviction(_) => None,
        }
    }

    pub(super) const fn eviction(&self) -> Option<&Eviction> {
        match &self.state {
            State::Good(InForce::Eviction(eviction))
            | State::LastGood {
                in_force: InForce::Eviction(eviction),
                ..
            }
            | State::Broken {
                effect: OfBroken::Evicts(eviction),
                ..
            } => Some(eviction),
            _ => None,
        }
    }

    pub(super) const fn denial(&self) -> Option<&BrokenDocument> {
        match &self.state {
            State::Broken {
                effect: OfBroken::Denies(denial),
                ..
            } => Some(denial),
            _ => None,
        }
    }
}

/// Made once, and shared by all snapshots with it.
pub(super) fn denial(source: &SourceRef, errors: &DocumentErrors) -> BrokenDocument {
    BrokenDocument {
        source: source.clone(),
        reason: shortened(errors.to_string()).into(),
    }
}

fn shortened(mut reason: String) -> String {
    const MORE: &str = "…";
    if reason.len() > MAX_REASON {
        let mut end = MAX_REASON.saturating_sub(MORE.len());
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        reason.truncate(end);
        reason.push_str(MORE);
    }
    reason
}
