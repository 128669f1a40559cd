//! `AuthorizationPolicy`, `PeerAuthentication` and `Eviction` documents: Istio's shape, the
//! layer 4 part of it. A document is loaded whole or not at all; everything that is wrong with
//! it is reported at once.

use std::{collections::BTreeMap, sync::Arc};

use spiffe::TrustDomain;

use self::fields::Fields;
use super::{DefaultAction, Eviction, EvictionSubject, MutualTlsMode, Policy, SourceRef};
use crate::document::{DocumentErrors, Kind, RawDocument};

mod eviction;
mod fields;
mod peer_authentication;
mod policy_tests;
mod rules;

/// A document that could be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    AuthorizationPolicy(AuthorizationPolicy),
    PeerAuthentication(PeerAuthentication),
    Eviction(Eviction),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    pub selector: Selector,
    /// `None`: the document only sets its scope's default action.
    pub policy: Option<Policy>,
    pub default_action: Option<(DefaultAction, SourceRef)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    pub source: SourceRef,
    pub selector: Selector,
    /// `None`: the next wider scope decides.
    pub mode: Option<MutualTlsMode>,
    pub ports: BTreeMap<u16, MutualTlsMode>,
    /// Whether DISABLE is written somewhere in it, which means PERMISSIVE here.
    pub says_disable: bool,
}

/// Which workloads of a document's scope it is for: those that have all of these labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(BTreeMap<String, String>);

impl Selector {
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether it selects the whole scope.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }
}

/// A document that can't be loaded, and what it would have been about as far as that is clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unloadable {
    pub errors: DocumentErrors,
    /// `None`: not readable.
    pub selector: Option<Selector>,
    /// Of an eviction, whom it meant.
    pub subject: Option<EvictionSubject>,
    /// The document is correct, but does not do what its own tests expect.
    pub tests_failed: bool,
}

/// Loads a document that decides who may connect, and runs its tests.
///
/// # Errors
/// Everything that is wrong with it, each with file, line and column.
pub fn load(document: &RawDocument, own_trust_domain: &TrustDomain) -> Result<Loaded, Unloadable> {
    let spec = document.spec_node().map_err(|errors| Unloadable {
        errors: errors.clone(),
        selector: None,
        subject: None,
        tests_failed: false,
    })?;
    let source = SourceRef {
        document: format!("{}/{}", document.key.namespace, document.key.name).into(),
        file: Arc::clone(&document.file),
        line: document.line,
    };
    let mut fields = Fields::new(&document.file);
    let mut subject = None;
    let mut tests_failed = false;
    let loaded = match document.key.kind {
        Kind::AuthorizationPolicy => {
            let policy = rules::read(spec, &source, &document.key.namespace, &mut fields);
            if fields.is_clean() {
                policy_tests::run(spec, &policy, own_trust_domain, &mut fields);
                tests_failed = !fields.is_clean();
            }
            Some(Loaded::AuthorizationPolicy(policy))
        }
        Kind::PeerAuthentication => {
            let loaded = peer_authentication::read(spec, source, &mut fields);
            Some(Loaded::PeerAuthentication(loaded))
        }
        Kind::Eviction => {
            let eviction = eviction::read(spec, source, &mut fields);
            subject = eviction.as_ref().map(|eviction| eviction.subject.clone());
            eviction.map(Loaded::Eviction)
        }
        kind @ (Kind::Workload | Kind::Service) => {
            fields.error(
                spec.at,
                format!("a {kind} decides nothing"),
                "load it as what it is",
            );
            None
        }
    };
    let selector = fields.selector.take();
    fields.finish(spec, loaded).map_err(|errors| Unloadable {
        errors,
        selector,
        subject,
        tests_failed,
    })
}

#[cfg(test)]
mod tests;
