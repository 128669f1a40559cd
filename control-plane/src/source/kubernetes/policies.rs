//! The policies of the cluster: as documents, and what their statuses should say.
//!
//! ```text
//!   object ──▶ document ──────────────────────┐
//!   its status.lastLoaded ──▶ last good one ──┴──▶ policy_index ──▶ verdicts, problems
//! ```
//! All replicas shall say the same of a broken object, however long they run. So what loaded last
//! stands in its status, and a replica that did not see it load takes it from there.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_lite_proto::document::{Dialect, DocumentKey};
use tokio::time::Instant;

use super::{
    kinds::WatchedKind,
    object_status::{Judged, LastLoaded, Verdict, verdict},
    objects::ObjectName,
    policy_object::{PolicyObject, document_key, file},
};
use crate::{
    policy_index::{Effect, PolicyIndex},
    source::not_mesh_wide::NotMeshWide,
};

type Key = (WatchedKind, ObjectName);

/// Beyond, what changed waits for the next publication: a namespace whose documents take long to
/// read delays itself. The first of each namespace never waits.
pub(super) const MAX_READING: Duration = Duration::from_millis(50);

/// What of all that changed is read for one publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Portion {
    Everything,
    /// What finds time, in turn of namespaces; evictions first.
    InTurn,
    /// Of evictions alone.
    Evictions,
}

/// All of them, as they were last seen.
#[derive(Default)]
pub(super) struct Policies {
    objects: BTreeMap<Key, PolicyObject>,
    /// Those that changed since they were read.
    unread: BTreeSet<Key>,
    /// Of those that are still what they were when they were judged.
    judged: BTreeMap<Key, Judged>,
    last_good: BTreeMap<Key, LastLoaded>,
    /// Those whose name another object has now.
    replaced: BTreeSet<Key>,
    not_mesh_wide: NotMeshWide,
}

/// What a change makes necessary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    /// Only what a status says has changed.
    Status,
    Document,
}

impl Policies {
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn names_of(&self, kind: WatchedKind) -> impl Iterator<Item = &ObjectName> {
        let of_kind = self.objects.keys().filter(move |(of, _)| *of == kind);
        of_kind.map(|(_, name)| name)
    }

    pub(super) fn put(
        &mut self,
        kind: WatchedKind,
        name: ObjectName,
        policy: PolicyObject,
    ) -> News {
        let key = (kind, name);
        let before = self.objects.get(&key);
        let news = match before {
            Some(before) if *before == policy => News::Nothing,
            Some(before) if before.differs(&policy) || policy.has_another_last_good(before) => {
                News::Document
            }
            Some(_) => News::Status,
            None => News::Document,
        };
        if before.is_some_and(|before| before.uid != policy.uid) {
            self.last_good.remove(&key);
            self.replaced.insert(key.clone());
        }
        if news == News::Document {
            self.unread.insert(key.clone());
            self.judged.remove(&key);
        }
        self.objects.insert(key, policy);
        news
    }

    /// Answers whether it was there.
    pub(super) fn remove(&mut self, kind: WatchedKind, name: ObjectName) -> bool {
        let key = (kind, name);
        self.unread.remove(&key);
        self.judged.remove(&key);
        self.last_good.remove(&key);
        let gone = self.objects.remove(&key);
        let was_there = gone.is_some();
        if was_there {
            // if one of its name comes before the next publication, it is another
            self.replaced.insert(key);
        }
        was_there
    }

    /// Whether some changed and are not read yet.
    pub(super) fn has_unread(&self, portion: Portion) -> bool {
        let mut unread = self.unread.iter();
        unread.any(|key| portion != Portion::Evictions || is_eviction(key))
    }

    /// Puts what changed in place of what is in the index. What is not read yet stays there as it
    /// was.
    pub(super) fn publish(
        &mut self,
        portion: Portion,
        max_reading: Duration,
        dialect: &Dialect,
        index: &mut PolicyIndex,
    ) {
        let mut touched = BTreeSet::new();
        let replaced = std::mem::take(&mut self.replaced);
        let (made_anew, gone): (BTreeSet<Key>, BTreeSet<Key>) = replaced
            .into_iter()
            .partition(|key| self.objects.contains_key(key));
        // it goes when the other one comes, and not before
        self.replaced = made_anew;
        for (kind, name) in gone {
            if let Some(key) = document_key(kind, &name) {
                touched.extend(index.forget(&file(&key)));
            }
        }
        let begun = Instant::now();
        for (round, key) in self.in_turn(portion) {
            let late = round > 0 && begun.elapsed() >= max_reading;
            if portion == Portion::Everything || !late {
                self.unread.remove(&key);
                touched.extend(self.read(&key, dialect, index));
            }
        }
        self.not_mesh_wide.say(index);
        self.judge(&touched, index);
    }

    /// Each with how many of its namespace come before it.
    fn in_turn(&self, portion: Portion) -> Vec<(usize, Key)> {
        let mut rounds: BTreeMap<(bool, &str), usize> = BTreeMap::new();
        let mut in_turn: Vec<(bool, usize, &Key)> = Vec::new();
        for key in &self.unread {
            let is_other = !is_eviction(key);
            if is_other && portion == Portion::Evictions {
                continue;
            }
            let round = rounds.entry((is_other, &key.1.namespace)).or_default();
            in_turn.push((is_other, *round, key));
            *round = round.saturating_add(1);
        }
        in_turn.sort();
        let in_turn = in_turn.into_iter();
        in_turn
            .map(|(_, round, key)| (round, key.clone()))
            .collect()
    }

    /// Answers which documents may be held in another way now.
    fn read(
        &mut self,
        key: &Key,
        dialect: &Dialect,
        index: &mut PolicyIndex,
    ) -> BTreeSet<DocumentKey> {
        let Some(policy) = self.objects.get(key) else {
            return BTreeSet::new();
        };
        let file: Arc<str> = policy.file().into();
        // also if not even its header can be read
        let mut touched = BTreeSet::from([policy.key.clone()]);
        if self.replaced.remove(key) {
            touched.extend(index.forget(&file));
        }
        let own = self.last_good.get(key);
        if let Some(told) = policy.newer_last_good(own)
            && policy
                .last_good_document(told, dialect)
                .is_some_and(|document| index.resume(&document))
        {
            self.last_good.insert(key.clone(), told.clone());
        }
        let documents = Arc::new(policy.documents(dialect));
        touched.extend(index.replace_files([(file, Some(documents))]));
        touched
    }

    /// Only those that are not what they were are judged again: errors in words are long.
    fn judge(&mut self, touched: &BTreeSet<DocumentKey>, index: &PolicyIndex) {
        for document in touched {
            let Some(kind) = WatchedKind::of_document(document.kind) else {
                continue;
            };
            let name = ObjectName {
                namespace: document.namespace.to_string(),
                name: document.name.to_string(),
            };
            let key = (kind, name);
            let Some(policy) = self.objects.get(&key) else {
                continue;
            };
            // it is judged when it is read
            if self.unread.contains(&key) {
                continue;
            }
            let problem = index.problem_of(&policy.file(), &policy.key);
            let judged = Judged::of(policy, problem.as_ref());
            match judged.effect() {
                None => {
                    self.last_good.insert(key.clone(), policy.as_last_loaded());
                }
                Some(Effect::LastGood) => {}
                Some(Effect::Denies | Effect::NoPolicy) => {
                    self.last_good.remove(&key);
                }
            }
            self.judged.insert(key, judged);
        }
    }

    /// What each one's status should say.
    pub(super) fn verdicts(&self) -> Vec<Verdict> {
        let all = self.objects.iter();
        all.filter_map(|(key, policy)| {
            verdict(policy, self.judged.get(key)?, self.last_good.get(key))
        })
        .collect()
    }

    /// What is wrong with them, in words.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.judged
            .values()
            .filter_map(|judged| judged.problem().map(str::to_owned))
    }
}

fn is_eviction((kind, _): &Key) -> bool {
    *kind == WatchedKind::Eviction
}

#[cfg(test)]
mod tests;
