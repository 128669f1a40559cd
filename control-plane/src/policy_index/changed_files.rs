//! Files of documents, taken in as they change: a file that did not change costs nothing.
//!
//! Afterwards the index says what it would say had all files been read anew, one scan after the
//! other: only a document that is not what it was when it was loaded is loaded again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_lite_proto::{
    authorization::document::{Unloadable, load},
    document::{
        DocumentError, DocumentErrors, DocumentKey, Documents, Place, RawDocument, RefusalClass,
        UnreadableDocument,
    },
};

use super::{
    PolicyIndex,
    held::{Entry, Held, Read, State},
    source_of,
    unreadable::{Found, Gone, judged, take_back},
};

/// A file, and what it says now; `None`: it is gone. A file that can't be read is one unreadable
/// document, and not gone.
pub(crate) type ChangedFile = (Arc<str>, Option<Arc<Documents>>);

/// Where a document stands: in which file, and as which of its readable ones.
pub(super) type PlaceInFile = (Arc<str>, usize);

impl PolicyIndex {
    /// Takes all documents of a directory in place of those of the scan before. A file that
    /// can't be read must be among them as one unreadable document, not left out.
    ///
    /// Documents that are gone are forgotten, unless their file has as yet unreadable ones: those
    /// may be what became of them, so the last good version stays in force.
    pub fn replace_all<'a>(&mut self, directory: impl IntoIterator<Item = &'a Documents>) {
        let mut files: BTreeMap<Arc<str>, Documents> = BTreeMap::new();
        for documents in directory {
            let readable = documents.readable.first().map(|it| &it.file);
            let unreadable = documents.unreadable.first().map(|it| &it.file);
            let Some(file) = readable.or(unreadable) else {
                continue;
            };
            let all = files.entry(Arc::clone(file)).or_default();
            all.readable.extend(documents.readable.iter().cloned());
            all.unreadable.extend(documents.unreadable.iter().cloned());
        }
        let known: Vec<Arc<str>> = self.files.keys().cloned().collect();
        let gone = known.into_iter().filter(|file| !files.contains_key(file));
        let gone: Vec<ChangedFile> = gone.map(|file| (file, None)).collect();
        let there = files.into_iter();
        let there = there.map(|(file, documents)| (file, Some(Arc::new(documents))));
        self.replace_files(there.chain(gone));
        let of_no_file = self.documents.keys();
        let of_no_file =
            of_no_file.filter(|key| !self.places.contains_key(key) && !self.kept.contains(key));
        for key in of_no_file.cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Takes what these files say now, all of it together. Answers which documents may be held in
    /// another way now.
    pub(crate) fn replace_files(
        &mut self,
        changed: impl IntoIterator<Item = ChangedFile>,
    ) -> BTreeSet<DocumentKey> {
        let mut affected = BTreeSet::new();
        let mut before = Vec::new();
        for (file, now) in changed {
            let was = self.put_file(&file, now, &mut affected);
            before.push((file, was));
        }
        for (file, was) in before {
            self.judge_unreadable(&file, was.as_deref());
        }
        self.take_back_what_is_readable(&affected);
        let kept = self.what_unreadable_ones_may_be();
        affected.extend(std::mem::take(&mut self.kept));
        affected.extend(kept.keys().cloned());
        self.kept = kept.keys().cloned().collect();
        for key in &affected {
            if !self.places.contains_key(key) && !kept.contains_key(key) {
                self.remove(key);
            }
        }
        let mut to_read: BTreeSet<DocumentKey> = affected.clone();
        to_read.extend(self.crowded_beside(&affected));
        while !to_read.is_empty() {
            for key in &to_read {
                self.read_again(key, kept.get(key));
            }
            affected.append(&mut to_read);
            // one of them may have made room for one that comes before it
            to_read.extend(self.crowded_beside(&affected));
        }
        affected
    }

    /// Whether a document that is in no file may be one that is unreadable at present.
    pub(crate) fn may_be_unreadable(&self, key: &DocumentKey) -> bool {
        self.kept.contains(key)
    }

    /// Answers what it said before.
    fn put_file(
        &mut self,
        file: &Arc<str>,
        now: Option<Arc<Documents>>,
        affected: &mut BTreeSet<DocumentKey>,
    ) -> Option<Arc<Documents>> {
        let was = self.files.remove(file);
        for (key, place) in was.iter().flat_map(|was| places(file, was)) {
            affected.insert(key.clone());
            if let Some(places) = self.places.get_mut(key) {
                places.remove(&place);
                if places.is_empty() {
                    self.places.remove(key);
                }
            }
        }
        if let Some(now) = now {
            for (key, place) in places(file, &now) {
                affected.insert(key.clone());
                self.places.entry(key.clone()).or_default().insert(place);
            }
            self.files.insert(Arc::clone(file), now);
        }
        was
    }

    fn judge_unreadable(&mut self, file: &Arc<str>, was: Option<&Documents>) {
        let before = self.unreadable.remove(file);
        let now = self.files.get(file);
        let Some(now) = now.filter(|now| !now.unreadable.is_empty()) else {
            return;
        };
        let keys = was.into_iter().flat_map(|was| &was.readable);
        let keys = keys.map(|raw| &raw.key);
        let gone: Gone = keys
            .filter(|key| !self.places.contains_key(key))
            .map(|key| (key.clone(), self.leaves_something(key)))
            .collect();
        let found = now.unreadable.iter().map(|document| Found {
            document,
            errors: self.everything_wrong_with(document),
            for_whole_mesh: document.for_whole_mesh
                || document.namespace.as_ref() == Some(&self.mesh_namespace),
        });
        let before = before.map(Arc::unwrap_or_clone).unwrap_or_default();
        let judged = judged(found.collect(), before, &gone);
        self.unreadable.insert(Arc::clone(file), Arc::new(judged));
    }

    fn leaves_something(&self, key: &DocumentKey) -> bool {
        let held = self.documents.get(key);
        !key.kind.is_policy() || held.is_some_and(|held| held.state.in_force().is_some())
    }

    /// Of a document without a name, what is wrong with its spec as well.
    fn everything_wrong_with(&self, document: &UnreadableDocument) -> DocumentErrors {
        let nameless = document.nameless().filter(|raw| raw.key.kind.is_policy());
        nameless
            .and_then(|raw| load(raw, &self.trust_domain).err())
            .map_or_else(|| document.errors.clone(), |unloadable| unloadable.errors)
    }

    /// A document that moved to another file is not what became unreadable in this one.
    fn take_back_what_is_readable(&mut self, affected: &BTreeSet<DocumentKey>) {
        let places = &self.places;
        let is_back = |key: &DocumentKey| affected.contains(key) && places.contains_key(key);
        for unreadable in self.unreadable.values_mut() {
            if unreadable.iter().any(|it| it.was_any(is_back)) {
                take_back(Arc::<Vec<_>>::make_mut(unreadable), is_back);
            }
        }
    }

    /// Documents that are in no file, each with the first unreadable one that it may be.
    fn what_unreadable_ones_may_be(&self) -> BTreeMap<DocumentKey, DocumentErrors> {
        let mut kept = BTreeMap::new();
        for unreadable in self.unreadable.values().flat_map(|of_file| of_file.iter()) {
            for key in unreadable.may_be() {
                kept.entry(key.clone())
                    .or_insert_with(|| unreadable.errors.clone());
            }
        }
        kept
    }

    /// Takes a document as its files say it now, or as it was if it may be unreadable.
    fn read_again(&mut self, key: &DocumentKey, unreadable: Option<&DocumentErrors>) {
        if !key.kind.is_policy() {
            // whoever keeps workloads and services judges them, and their doubles
            return;
        }
        let mut places = self.places.get(key).into_iter().flatten();
        let (first, last) = (places.next(), places.next_back());
        let first = first.and_then(|place| self.read_at(place));
        let last = last.and_then(|place| self.read_at(place));
        match (first, last) {
            (None, _) => {
                if let Some(errors) = unreadable {
                    self.keep(key, errors);
                }
            }
            (Some(only), None) => self.read_one(only),
            (Some(first), Some(last)) => {
                let (first, last) = (first.document(), last.document());
                if let (Some(first), Some(last)) = (first, last) {
                    let errors = defined_twice(last, first);
                    // of two, one may be for the whole mesh
                    let mesh = self.is_for_whole_mesh(last) || self.is_for_whole_mesh(first);
                    let loaded = Err(unloadable(errors));
                    self.put(key.clone(), source_of(last), mesh, loaded, None);
                }
            }
        }
    }

    fn read_at(&self, (file, index): &PlaceInFile) -> Option<Read> {
        let documents = Arc::clone(self.files.get(file)?);
        let index = *index;
        Some(Read { documents, index })
    }

    fn read_one(&mut self, read: Read) {
        let documents = Arc::clone(&read.documents);
        let Some(document) = documents.readable.get(read.index) else {
            return;
        };
        if let Some(entry) = self.documents.get_mut(&document.key)
            && entry.was_read_from(document)
        {
            // what the file was before is let go
            entry.read = Some(read);
            return;
        }
        self.load(document, Some(read));
    }

    /// What is in force stays so, and what denies goes on denying.
    fn keep(&mut self, key: &DocumentKey, errors: &DocumentErrors) {
        let Some(entry) = self.documents.get(key) else {
            return;
        };
        let state = match entry.state.in_force() {
            Some(in_force) => State::LastGood {
                in_force: in_force.clone(),
                errors: errors.clone(),
            },
            None => entry.state.clone(),
        };
        let held = Held {
            source: entry.source.clone(),
            scope: entry.scope.clone(),
            state,
        };
        self.hold(key.clone(), Entry::new(None, held));
    }
}

fn places<'a>(
    file: &'a Arc<str>,
    documents: &'a Documents,
) -> impl Iterator<Item = (&'a DocumentKey, PlaceInFile)> {
    let all = documents.readable.iter().enumerate();
    all.map(|(index, raw)| (&raw.key, (Arc::clone(file), index)))
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
