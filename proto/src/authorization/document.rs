//! `AuthorizationPolicy`, `PeerAuthentication` and `Eviction` documents: Istio's shape, the
//! layer 4 part of it. A document is loaded whole or not at all; everything that is wrong with
//! it is reported at once.

use std::{collections::BTreeMap, sync::Arc};

use spiffe::TrustDomain;

pub use self::{policy_tests::TestOutcome, selector::Selector};
use super::{DefaultAction, Eviction, EvictionSubject, MutualTlsMode, Policy, SourceRef};
use crate::document::{DocumentErrors, Kind, Node, RawDocument, RefusalClass, fields::Fields};

mod eviction;
mod peer_authentication;
mod policy_tests;
mod rules;
mod selector;

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
    match document.spec_node() {
        Ok(spec) => load_spec(spec, document, Some(own_trust_domain)),
        Err(of_header) => {
            let beside = document.spec_beside_errors();
            let of_spec = beside.and_then(|spec| load_spec(spec, document, None).err());
            Err(Unloadable {
                errors: match of_spec {
                    Some(of_spec) => of_header.and(&of_spec.errors),
                    None => of_header.clone(),
                },
                // whom it is for may be what is wrong
                selector: None,
                subject: None,
                tests_failed: false,
            })
        }
    }
}

/// Runs the tests of a policy: those that can be read. None of a document that can't be loaded for
/// anything else, or has no tests.
#[must_use]
pub fn run_tests(document: &RawDocument, own_trust_domain: &TrustDomain) -> Vec<TestOutcome> {
    let Ok(spec) = document.spec_node() else {
        return Vec::new();
    };
    match load_spec(spec, document, None) {
        Ok(Loaded::AuthorizationPolicy(policy)) => {
            policy_tests::outcomes(spec, &policy, own_trust_domain, &document.file)
        }
        _ => Vec::new(),
    }
}

/// Without a trust domain its tests are not run.
fn load_spec(
    spec: &Node,
    document: &RawDocument,
    own_trust_domain: Option<&TrustDomain>,
) -> Result<Loaded, Unloadable> {
    let source = SourceRef {
        document: format!("{}/{}", document.key.namespace, document.key.name).into(),
        file: Arc::clone(&document.file),
        line: document.line,
    };
    let mut fields = Fields::new(&document.file);
    let (mut selector, mut subject) = (None, None);
    let mut tests_failed = false;
    let loaded = match document.key.kind {
        Kind::AuthorizationPolicy => {
            selector = selector::read(spec, &mut fields);
            let header = rules::Header {
                source: &source,
                namespace: &document.key.namespace,
                dry_run: document.dry_run,
            };
            let policy = rules::read(spec, &header, selector.as_ref(), &mut fields);
            if let (true, Some(own)) = (fields.is_clean(), own_trust_domain) {
                policy_tests::run(spec, &policy, own, &mut fields);
                tests_failed = !fields.is_clean();
            }
            Some(Loaded::AuthorizationPolicy(policy))
        }
        Kind::PeerAuthentication => {
            selector = selector::read(spec, &mut fields);
            let (selector, of_root) = (selector.as_ref(), document.for_whole_mesh);
            let loaded = peer_authentication::read(spec, source, selector, of_root, &mut fields);
            Some(Loaded::PeerAuthentication(loaded))
        }
        Kind::Eviction => {
            let eviction = eviction::read(spec, source, &mut fields);
            subject = eviction.as_ref().map(|eviction| eviction.subject.clone());
            eviction.map(Loaded::Eviction)
        }
        kind @ (Kind::Workload | Kind::Service) => {
            let problem = format!("a {kind} decides nothing");
            let remedy = "load it as what it is";
            fields.error(RefusalClass::UnknownKind, spec.at, problem, remedy);
            None
        }
    };
    fields.finish(spec, loaded).map_err(|errors| Unloadable {
        errors,
        selector,
        subject,
        tests_failed,
    })
}

#[cfg(test)]
mod tests;
