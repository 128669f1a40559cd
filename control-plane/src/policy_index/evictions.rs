//! Who may evict whom, and how much of a snapshot evictions may take.
//!
//! An eviction concerns every workload of the mesh, so one namespace must neither end trust in
//! another's workloads nor fill the others' snapshots.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{
        BrokenDocument, Eviction, EvictionSubject, SourceRef,
        document::{Loaded, Unloadable},
    },
    document::{
        DocumentError, DocumentErrors, DocumentKey, Kind, Place, Position, RawDocument,
        RefusalClass,
    },
};

use super::{PolicyIndex, Selected, held::Held};

/// Evictions of one namespace: a service account has one, and none needs to outlive the leaves
/// it is about. More are a mistake, or meant to crowd out others.
const MAX_PER_NAMESPACE: usize = 1000;
/// Bytes of a snapshot that evictions may take: some 1,700 of them.
pub(super) const ROOM: usize = super::MAX_SNAPSHOT / 4;
/// Of an eviction in its wire form, beside its texts: tags, lengths, line, time, a serial.
const MAX_FRAMING: usize = 96;

/// The evictions that a snapshot carries.
pub(super) struct Fitted {
    pub(super) evictions: Vec<Eviction>,
    /// Denies for the workload: its own namespace, or the mesh's, has more than there is room for.
    pub(super) crowded: Option<BrokenDocument>,
}

/// The names of the evictions that evict somebody, by namespace: none of the others is looked at
/// for every workload and every certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Evicting(BTreeMap<Arc<str>, BTreeSet<Arc<str>>>);

impl Evicting {
    pub(super) fn put(&mut self, key: &DocumentKey) {
        let names = self.0.entry(Arc::clone(&key.namespace)).or_default();
        names.insert(Arc::clone(&key.name));
    }

    pub(super) fn remove(&mut self, key: &DocumentKey) {
        if let Some(names) = self.0.get_mut(&key.namespace) {
            names.remove(&key.name);
            if names.is_empty() {
                self.0.remove(&key.namespace);
            }
        }
    }

    fn others_than(&self, key: &DocumentKey) -> usize {
        let names = self.0.get(&key.namespace);
        names.map_or(0, |names| {
            let own = usize::from(names.contains(&key.name));
            names.len().saturating_sub(own)
        })
    }

    fn room_in(&self, namespace: &str) -> usize {
        let names = self.0.get(namespace).map_or(0, BTreeSet::len);
        MAX_PER_NAMESPACE.saturating_sub(names)
    }

    fn keys(&self) -> impl Iterator<Item = DocumentKey> {
        self.0.iter().flat_map(|(namespace, names)| {
            names.iter().map(|name| DocumentKey {
                kind: Kind::Eviction,
                namespace: Arc::clone(namespace),
                name: Arc::clone(name),
            })
        })
    }
}

/// The unexpired evictions of one namespace.
struct OfNamespace<'a> {
    is_mesh: bool,
    size: usize,
    namespace: Arc<str>,
    evictions: Vec<&'a Eviction>,
}

impl PolicyIndex {
    /// Makes an eviction unloadable that its namespace may not state. It then evicts nobody, not
    /// even as a broken one.
    pub(super) fn permitted(
        &self,
        document: &RawDocument,
        loaded: Result<Loaded, Unloadable>,
    ) -> Result<Loaded, Unloadable> {
        let (subject, errors) = match &loaded {
            Ok(Loaded::Eviction(eviction)) => (&eviction.subject, None),
            Err(Unloadable {
                subject: Some(subject),
                errors,
                ..
            }) => (subject, Some(errors)),
            _ => return loaded,
        };
        let Some((problem, remedy)) = self.objection(&document.key, subject) else {
            return loaded;
        };
        let place = Place::new(&document.file, place_of_subject(document));
        let class = RefusalClass::EvictionNotPermitted;
        let objection: DocumentErrors = DocumentError::new(class, place, problem, remedy).into();
        Err(Unloadable {
            errors: errors.map_or_else(|| objection.clone(), |errors| errors.and(&objection)),
            selector: None,
            subject: None,
            tests_failed: false,
        })
    }

    /// What is wrong with this eviction in this namespace, and what to do.
    fn objection(&self, key: &DocumentKey, subject: &EvictionSubject) -> Option<(String, String)> {
        let (namespace, mesh) = (&key.namespace, &self.mesh_namespace);
        if self.is_crowded(key) {
            return Some((
                format!("namespace {namespace} has more than {MAX_PER_NAMESPACE} evictions"),
                "remove those whose time is over".to_owned(),
            ));
        }
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

    /// Whether its namespace has so many others that this eviction finds no room.
    pub(super) fn is_crowded(&self, key: &DocumentKey) -> bool {
        key.kind == Kind::Eviction && self.evicting.others_than(key) >= MAX_PER_NAMESPACE
    }

    /// Those that found no room in the namespaces of these documents and may find some now, so that
    /// they are to be loaded again: no more of them than there is room for.
    pub(super) fn crowded_beside(&mut self, documents: &BTreeSet<DocumentKey>) -> Vec<DocumentKey> {
        let evictions = documents.iter().filter(|key| key.kind == Kind::Eviction);
        let namespaces: BTreeSet<&Arc<str>> = evictions.map(|key| &key.namespace).collect();
        let beside = namespaces.into_iter().flat_map(|namespace| {
            let first = DocumentKey {
                kind: Kind::Eviction,
                namespace: Arc::clone(namespace),
                name: "".into(),
            };
            let crowded = self.crowded.range(first..);
            crowded
                .take_while(move |key| key.namespace == *namespace)
                .take(self.evicting.room_in(namespace))
        });
        let beside: Vec<DocumentKey> = beside.cloned().collect();
        for key in &beside {
            self.crowded.remove(key);
            if let Some(entry) = self.documents.get_mut(key) {
                entry.read = None;
            }
        }
        beside
    }

    /// Everybody whose trust was ended, some of them perhaps for a time that is over.
    pub fn evictions(&self) -> impl Iterator<Item = &Eviction> {
        self.eviction_documents().map(|(_, eviction)| eviction)
    }

    fn eviction_documents(&self) -> impl Iterator<Item = (DocumentKey, &Eviction)> {
        let keys = self.evicting.keys();
        keys.filter_map(|key| {
            let eviction = self.documents.get(&key).and_then(|it| Held::eviction(it))?;
            Some((key, eviction))
        })
    }

    /// The mesh's own evictions come first, then those of the namespaces that have the fewest
    /// bytes of them: whoever has too many crowds out nobody else.
    pub(super) fn fitted(&self, workload: Selected<'_>, now: SystemTime) -> Fitted {
        let mut groups = self.unexpired(now);
        groups.sort_by_key(|group| (!group.is_mesh, group.size));
        let mut room = ROOM;
        let mut fitted = Fitted {
            evictions: Vec::new(),
            crowded: None,
        };
        for group in groups {
            let mut all = true;
            for eviction in group.evictions {
                match room.checked_sub(size_of(eviction)) {
                    Some(left) => {
                        room = left;
                        fitted.evictions.push(eviction.clone());
                    }
                    None => all = false,
                }
            }
            if !all && (group.is_mesh || *group.namespace == *workload.namespace) {
                fitted.crowded = Some(too_many(&group.namespace, group.size));
            }
        }
        fitted
    }

    fn unexpired(&self, now: SystemTime) -> Vec<OfNamespace<'_>> {
        let mut groups: Vec<OfNamespace<'_>> = Vec::new();
        let unexpired = self
            .eviction_documents()
            .filter(|(_, eviction)| eviction.until.is_none_or(|until| now < until));
        for (key, eviction) in unexpired {
            match groups.last_mut() {
                Some(group) if group.namespace == key.namespace => {
                    group.size = group.size.saturating_add(size_of(eviction));
                    group.evictions.push(eviction);
                }
                _ => groups.push(OfNamespace {
                    is_mesh: key.namespace == self.mesh_namespace,
                    size: size_of(eviction),
                    namespace: key.namespace,
                    evictions: vec![eviction],
                }),
            }
        }
        groups
    }
}

/// At most so many bytes in its wire form.
fn size_of(eviction: &Eviction) -> usize {
    let subject = match &eviction.subject {
        EvictionSubject::Id(id) => id.as_str().len(),
        EvictionSubject::Serial(_) => 0,
    };
    [
        subject,
        eviction.source.document.len(),
        eviction.source.file.len(),
    ]
    .into_iter()
    .fold(MAX_FRAMING, usize::saturating_add)
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

fn too_many(namespace: &str, size: usize) -> BrokenDocument {
    let reason = format!(
        "the evictions of namespace {namespace} are {size} bytes, and with those of other \
         namespaces more than the {ROOM} that can be sent; remove those whose time is over"
    );
    BrokenDocument {
        source: SourceRef {
            document: format!("evictions of {namespace}").into(),
            file: "together".into(),
            line: 0,
        },
        reason: reason.into(),
    }
}
