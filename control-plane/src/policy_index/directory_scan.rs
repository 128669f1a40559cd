//! A directory of documents, read as a whole: what is gone, and what merely can't be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_lite_proto::{
    authorization::{
        SourceRef,
        document::{Selector, Unloadable, load},
    },
    document::{
        DocumentError, DocumentErrors, DocumentKey, Documents, Place, RawDocument, RefusalClass,
        UnreadableDocument,
    },
};

use super::{Effect, Nameless, PolicyIndex, scope::Scope, source_of};

impl PolicyIndex {
    /// Takes all documents of a directory in place of those of the scan before. A file that
    /// can't be read must be among them as one unreadable document, not left out.
    ///
    /// Documents that are gone are forgotten, unless their file has as yet unreadable ones: those
    /// may be what became of them, so the last good version stays in force.
    pub fn replace_all<'a>(&mut self, directory: impl IntoIterator<Item = &'a Documents>) {
        let scan = Scan::read(directory);
        let before = std::mem::take(&mut self.files);
        let mut files = scan.files.clone();
        let mut kept: BTreeMap<DocumentKey, &DocumentErrors> = BTreeMap::new();
        let mut new_unreadable = scan.unreadable.clone();
        for (file, keys) in before {
            let gone: BTreeSet<DocumentKey> = keys
                .into_iter()
                .filter(|key| !scan.readable.contains_key(key))
                .collect();
            let Some(unreadable) = scan.unreadable.get(&file) else {
                continue;
            };
            let Some(first) = unreadable.first() else {
                continue;
            };
            if gone.len() >= unreadable.len() {
                new_unreadable.remove(&file);
            }
            kept.extend(gone.iter().map(|key| (key.clone(), &first.errors)));
            files.entry(file).or_default().extend(gone);
        }
        self.files = files;
        self.documents
            .retain(|key, _| scan.readable.contains_key(key) || kept.contains_key(key));
        for (key, errors) in kept {
            if let Some(held) = self.documents.get(&key) {
                let (source, for_whole_mesh) =
                    (held.source.clone(), held.scope.is_for_whole_mesh());
                let loaded = Err(unloadable(errors.clone()));
                self.put(key, source, for_whole_mesh, loaded);
            }
        }
        for (key, document) in &scan.readable {
            match scan.second.get(key) {
                None => self.upsert(document),
                Some(second) if key.kind.is_policy() => {
                    let errors = defined_twice(second, document);
                    // of two, one may be for the whole mesh
                    let for_whole_mesh =
                        self.is_for_whole_mesh(second) || self.is_for_whole_mesh(document);
                    let loaded = Err(unloadable(errors));
                    self.put((*key).clone(), source_of(second), for_whole_mesh, loaded);
                }
                // whoever keeps workloads and services judges their doubles
                Some(_) => {}
            }
        }
        self.nameless = self.nameless(&scan, &new_unreadable);
    }

    /// `denying`: the unreadable documents that were not there before.
    fn nameless(&self, scan: &Scan<'_>, denying: &Unreadable<'_>) -> Vec<Nameless> {
        let unreadable = scan.unreadable.iter().flat_map(|(file, documents)| {
            let new = denying.contains_key(file);
            documents.iter().map(move |document| (new, *document))
        });
        let unreadable = unreadable.map(|(new, document)| {
            let scope = match &document.namespace {
                Some(namespace) => {
                    let mesh = *namespace == self.mesh_namespace || document.for_whole_mesh;
                    Scope::of(namespace, mesh, Selector::default())
                }
                None => Scope::everything(),
            };
            let effect = match (document.may_be_policy, new) {
                (false, _) => Effect::NoPolicy,
                (true, true) => Effect::Denies,
                (true, false) => Effect::LastGood,
            };
            Nameless {
                source: source_of_unreadable(document),
                errors: self.everything_wrong_with(document),
                denies: (effect == Effect::Denies).then_some(scope),
                effect,
            }
        });
        unreadable.collect()
    }
}

impl PolicyIndex {
    /// Of a document without a name, what is wrong with its spec as well.
    fn everything_wrong_with(&self, document: &UnreadableDocument) -> DocumentErrors {
        let nameless = document.nameless().filter(|raw| raw.key.kind.is_policy());
        nameless
            .and_then(|raw| load(raw, &self.trust_domain).err())
            .map_or_else(|| document.errors.clone(), |unloadable| unloadable.errors)
    }
}

type Unreadable<'a> = BTreeMap<Arc<str>, Vec<&'a UnreadableDocument>>;

/// All documents of a directory, by name and by file.
struct Scan<'a> {
    readable: BTreeMap<&'a DocumentKey, &'a RawDocument>,
    /// The last document of those that have the name of one before it.
    second: BTreeMap<&'a DocumentKey, &'a RawDocument>,
    unreadable: Unreadable<'a>,
    files: BTreeMap<Arc<str>, BTreeSet<DocumentKey>>,
}

impl<'a> Scan<'a> {
    fn read(directory: impl IntoIterator<Item = &'a Documents>) -> Self {
        let mut scan = Self {
            readable: BTreeMap::new(),
            second: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for documents in directory {
            for document in &documents.readable {
                if scan.readable.contains_key(&document.key) {
                    scan.second.insert(&document.key, document);
                    continue;
                }
                scan.readable.insert(&document.key, document);
                let keys = scan.files.entry(Arc::clone(&document.file)).or_default();
                keys.insert(document.key.clone());
            }
            for document in &documents.unreadable {
                scan.unreadable
                    .entry(Arc::clone(&document.file))
                    .or_default()
                    .push(document);
            }
        }
        scan
    }
}

fn source_of_unreadable(document: &UnreadableDocument) -> SourceRef {
    let part = |part: &Option<Arc<str>>| part.clone().unwrap_or_else(|| "?".into());
    SourceRef {
        document: format!("{}/{}", part(&document.namespace), part(&document.name)).into(),
        file: Arc::clone(&document.file),
        line: document.line,
    }
}

const fn unloadable(errors: DocumentErrors) -> Unloadable {
    Unloadable {
        errors,
        selector: None,
        subject: None,
        tests_failed: false,
    }
}

fn defined_twice(document: &RawDocument, first: &RawDocument) -> DocumentErrors {
    let place = Place::new(&document.file, document.name_at);
    let problem = format!(
        "{} is defined twice, first at {}:{}",
        document.key, first.file, first.line
    );
    let (class, remedy) = (
        RefusalClass::DefinedTwice,
        "rename one of them or remove it",
    );
    DocumentError::new(class, place, problem, remedy).into()
}
