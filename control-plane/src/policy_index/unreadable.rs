//! Documents of which not even the header can be read, and what each of them may be.
//!
//! ```text
//!   files of before ── gone ──┐
//!   unreadable ones of before ┴─▶ may be what became of it ─▶ last good stays, else it denies
//! ```
//! One that is new in its file may be what became of a document that is gone from it since: then
//! that one's last good version stays in force. For every one there must be a document of its own
//! that is gone; if there are fewer, nobody knows which of them is the one that was never good, and
//! all deny. What denied goes on denying until it is readable or gone, whatever else is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_lite_proto::{
    authorization::{BrokenDocument, SourceRef, document::Selector},
    document::{DocumentErrors, DocumentKey, Kind, UnreadableDocument},
};

use super::{Effect, Selected, held::denial, scope::Scope};

/// As it is held.
#[derive(Debug, Clone)]
pub(super) struct Unreadable {
    /// What can be told of it wherever in its file it stands: by it, it is known again.
    looks: String,
    stated: Stated,
    pub(super) source: SourceRef,
    pub(super) errors: DocumentErrors,
    pub(super) effect: Effect,
    scope: Scope,
    denial: BrokenDocument,
    /// Documents that were gone from its file when it came.
    was: Arc<BTreeSet<DocumentKey>>,
}

/// As much of a header as could be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stated {
    kind: Option<Kind>,
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    is_somebody_elses: bool,
}

impl Stated {
    fn of(document: &UnreadableDocument) -> Self {
        let kind = document.nameless().map(|raw| raw.key.kind);
        Self {
            kind,
            namespace: document.namespace.clone(),
            name: document.name.clone(),
            is_somebody_elses: kind.is_none() && !document.may_be_policy,
        }
    }

    fn may_be(&self, key: &DocumentKey) -> bool {
        let agrees = |stated: &Option<Arc<str>>, of_key: &Arc<str>| {
            stated.as_ref().is_none_or(|stated| stated == of_key)
        };
        !self.is_somebody_elses
            && self.kind.is_none_or(|kind| kind == key.kind)
            && agrees(&self.namespace, &key.namespace)
            && agrees(&self.name, &key.name)
    }

    fn known_parts(&self) -> usize {
        [
            self.kind.is_some(),
            self.namespace.is_some(),
            self.name.is_some(),
        ]
        .into_iter()
        .map(usize::from)
        .sum()
    }
}

/// An unreadable document, and all that is wrong with it and where.
pub(super) struct Found<'a> {
    pub(super) document: &'a UnreadableDocument,
    pub(super) errors: DocumentErrors,
    pub(super) for_whole_mesh: bool,
}

impl Unreadable {
    fn new(found: Found<'_>, effect: Effect, was: Arc<BTreeSet<DocumentKey>>) -> Self {
        let document = found.document;
        let scope = match &document.namespace {
            Some(namespace) => Scope::of(namespace, found.for_whole_mesh, Selector::default()),
            None => Scope::everything(),
        };
        let source = source_of(document);
        Self {
            looks: looks(document),
            stated: Stated::of(document),
            denial: denial(&source, &found.errors),
            source,
            errors: found.errors,
            effect,
            scope,
            was,
        }
    }

    pub(super) fn denial(&self, workload: Selected<'_>) -> Option<BrokenDocument> {
        let denies = self.effect == Effect::Denies && self.scope.covers(workload);
        denies.then(|| self.denial.clone())
    }

    /// The documents that it may be.
    pub(super) fn may_be(&self) -> impl Iterator<Item = &DocumentKey> {
        self.was.iter().filter(|key| self.stated.may_be(key))
    }

    pub(super) fn was_any(&self, is_it: impl Fn(&DocumentKey) -> bool) -> bool {
        self.was.iter().any(is_it)
    }

    fn stands_for_another(&self) -> bool {
        self.effect == Effect::LastGood
    }
}

/// A file's documents that are gone, each with whether it leaves something in force that it may go
/// on to be: a last good version, or that of a kind that is no policy.
pub(super) type Gone = BTreeMap<DocumentKey, bool>;

/// The unreadable documents of a file as it is now.
pub(super) fn judged(
    found: Vec<Found<'_>>,
    before: Vec<Unreadable>,
    gone: &Gone,
) -> Vec<Unreadable> {
    let (found, vanished) = known_again(found, before);
    let is_new = |known: &Option<Unreadable>, document: &UnreadableDocument| {
        known.is_none() && document.may_be_policy
    };
    let new: Vec<Stated> = found
        .iter()
        .filter(|(found, known)| is_new(known, found.document))
        .map(|(found, _)| Stated::of(found.document))
        .collect();
    let denied_before = vanished.iter().any(|it| it.effect == Effect::Denies);
    let effect = if !denied_before && each_has_its_own(new, gone, &vanished) {
        Effect::LastGood
    } else {
        Effect::Denies
    };
    let handed_on = vanished.iter().flat_map(|it| it.was.iter());
    let was: BTreeSet<DocumentKey> = gone.keys().chain(handed_on).cloned().collect();
    let was = Arc::new(was);
    let judged = found.into_iter().map(|(found, known)| match known {
        Some(known) => Unreadable::new(found, known.effect, known.was),
        None if found.document.may_be_policy => Unreadable::new(found, effect, Arc::clone(&was)),
        None => Unreadable::new(found, Effect::NoPolicy, Arc::clone(&was)),
    });
    judged.collect()
}

type Known<'a> = Vec<(Found<'a>, Option<Unreadable>)>;

/// Those that were there before, wherever they stood, and what of before is there no more.
fn known_again(found: Vec<Found<'_>>, before: Vec<Unreadable>) -> (Known<'_>, Vec<Unreadable>) {
    let mut by_looks: BTreeMap<String, Vec<Unreadable>> = BTreeMap::new();
    for unreadable in before {
        let alike = by_looks.entry(unreadable.looks.clone()).or_default();
        alike.push(unreadable);
    }
    for alike in by_looks.values_mut() {
        // taken from the end: of two that look alike, the one that denies is still there
        alike.sort_by_key(|it| it.effect == Effect::Denies);
    }
    let known = found.into_iter().map(|found| {
        let alike = by_looks.get_mut(&looks(found.document));
        let known = alike.and_then(Vec::pop);
        (found, known)
    });
    let known = known.collect();
    (known, by_looks.into_values().flatten().collect())
}

/// Whether there is for each of them another document that it may be: one that is gone, or an
/// unreadable one that was edited. Who says most of itself chooses first.
fn each_has_its_own(mut new: Vec<Stated>, gone: &Gone, vanished: &[Unreadable]) -> bool {
    new.sort_by_key(|stated| std::cmp::Reverse(stated.known_parts()));
    let leaves_something = gone
        .iter()
        .filter(|(_, leaves_something)| **leaves_something);
    let mut gone: Vec<&DocumentKey> = leaves_something.map(|(key, _)| key).collect();
    let mut edited: Vec<&Unreadable> = vanished
        .iter()
        .filter(|it| it.stands_for_another())
        .collect();
    new.iter().all(|stated| {
        if let Some(at) = gone.iter().position(|key| stated.may_be(key)) {
            gone.swap_remove(at);
            return true;
        }
        let may_be = |it: &&Unreadable| it.was.iter().any(|key| stated.may_be(key));
        let at = edited.iter().position(may_be);
        at.map(|at| edited.swap_remove(at)).is_some()
    })
}

/// Takes back what is readable somewhere again: it is not what became unreadable.
pub(super) fn take_back(unreadable: &mut [Unreadable], is_back: impl Fn(&DocumentKey) -> bool) {
    for it in unreadable.iter_mut() {
        let left = it.was.iter().filter(|key| !is_back(key));
        it.was = Arc::new(left.cloned().collect());
    }
    let standing = unreadable.iter().filter(|it| it.stands_for_another());
    let left: BTreeSet<&DocumentKey> = standing.clone().flat_map(Unreadable::may_be).collect();
    if standing.count() > left.len() {
        for it in unreadable.iter_mut().filter(|it| it.stands_for_another()) {
            it.effect = Effect::Denies;
        }
    }
}

/// All that is wrong with it, by the line of the document.
fn looks(document: &UnreadableDocument) -> String {
    use std::fmt::Write as _;
    let mut looks = format!("{:?}", Stated::of(document));
    for error in document.errors.iter() {
        let at = error.place.at;
        let line = at.line.saturating_sub(document.line);
        _ = write!(looks, "\n{line}:{}: {}", at.column, error.problem);
    }
    looks
}

fn source_of(document: &UnreadableDocument) -> SourceRef {
    let part = |part: &Option<Arc<str>>| part.clone().unwrap_or_else(|| "?".into());
    SourceRef {
        document: format!("{}/{}", part(&document.namespace), part(&document.name)).into(),
        file: Arc::clone(&document.file),
        line: document.line,
    }
}
