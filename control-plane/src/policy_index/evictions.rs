//! Who may evict whom.
//!
//! An eviction concerns every workload of the mesh, so one namespace must not end trust in
//! another's workloads.

use mesh_lite_proto::{
    authorization::{
        EvictionSubject,
        document::{Loaded, Unloadable},
    },
    document::{DocumentError, DocumentErrors, DocumentKey, Place, Position, RawDocument},
};

use super::PolicyIndex;

impl PolicyIndex {
    /// Makes an eviction unloadable that its namespace may not state. It then evicts nobody, not
    /// even as a broken one.
    pub(super) fn permitted(
        &self,
        document: &RawDocument,
        loaded: Result<Loaded, Unloadable>,
    ) -> Result<Loaded, Unloadable> {
        let (subject, mut errors) = match &loaded {
            Ok(Loaded::Eviction(eviction)) => (&eviction.subject, Vec::new()),
            Err(Unloadable {
                subject: Some(subject),
                errors,
                ..
            }) => (subject, errors.iter().cloned().collect()),
            _ => return loaded,
        };
        let Some((problem, remedy)) = self.objection(&document.key, subject) else {
            return loaded;
        };
        let place = Place::new(&document.file, place_of_subject(document));
        errors.push(DocumentError::new(place, problem, remedy));
        match DocumentErrors::check((), errors) {
            Ok(()) => loaded,
            Err(errors) => Err(Unloadable {
                errors,
                selector: None,
                subject: None,
                tests_failed: false,
            }),
        }
    }

    /// What is wrong with this eviction in this namespace, and what to do.
    fn objection(&self, key: &DocumentKey, subject: &EvictionSubject) -> Option<(String, String)> {
        let (namespace, mesh) = (&key.namespace, &self.mesh_namespace);
        let own = match subject {
            _ if namespace == mesh => true,
            EvictionSubject::Id(id) => {
                *id.trust_domain() == self.trust_domain && id.namespace() == Some(namespace)
            }
            // nobody knows whose it is
            EvictionSubject::Serial(_) => false,
        };
        (!own).then(|| {
            let domain = &self.trust_domain;
            (
                format!("namespace {namespace} may not evict {subject}"),
                format!(
                    "evict spiffe://{domain}/ns/{namespace}/sa/..., \
                     or let who runs the mesh put the document into namespace {mesh}"
                ),
            )
        })
    }
}

fn place_of_subject(document: &RawDocument) -> Position {
    let subject = document.spec_node().ok().and_then(|spec| {
        spec.entry("spiffeId")
            .or_else(|| spec.entry("serial"))
            .map(|entry| entry.value.at)
    });
    subject.unwrap_or(Position {
        line: document.line,
        column: 1,
    })
}
