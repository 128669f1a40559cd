//! The policies of the cluster: as documents, and what their statuses should say.
//!
//! ```text
//!   object ──▶ document ──────────────────────┐
//!   its status.lastLoaded ──▶ last good one ──┴──▶ policy_index ──▶ verdicts, problems
//! ```
//! All replicas shall say the same of a broken object, however long they run. So what loaded last
//! stands in its status, and a replica that did not see it load takes it from there.

use std::collections::{BTreeMap, BTreeSet};

use mesh_lite_proto::document::{Dialect, Documents};

use super::{
    kinds::WatchedKind,
    object_status::{Judged, LastLoaded, Verdict, verdict},
    objects::ObjectName,
    policy_object::{PolicyObject, document_key, file},
};
use crate::policy_index::{Effect, PolicyIndex};

type Key = (WatchedKind, ObjectName);

/// All of them, as they were last seen.
#[derive(Default)]
pub(super) struct Policies {
    objects: BTreeMap<Key, PolicyObject>,
    /// As they were last read.
    documents: BTreeMap<Key, Documents>,
    /// Of those that are still what they were when they were judged.
    judged: BTreeMap<Key, Judged>,
    last_good: BTreeMap<Key, LastLoaded>,
    /// Those whose name another object has now.
    replaced: BTreeSet<Key>,
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
            self.documents.remove(&key);
            self.judged.remove(&key);
        }
        self.objects.insert(key, policy);
        news
    }

    /// Answers whether it was there.
    pub(super) fn remove(&mut self, kind: WatchedKind, name: ObjectName) -> bool {
        let key = (kind, name);
        self.documents.remove(&key);
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

    /// Puts them in place of what is in the index.
    pub(super) fn publish(&mut self, dialect: &Dialect, index: &mut PolicyIndex) {
        for (kind, name) in std::mem::take(&mut self.replaced) {
            if let Some(key) = document_key(kind, &name) {
                index.forget(&key, &file(&key));
            }
        }
        for (key, policy) in &self.objects {
            let own = self.last_good.get(key);
            if let Some(told) = policy.newer_last_good(own)
                && policy
                    .last_good_document(told, dialect)
                    .is_some_and(|document| index.resume(&document))
            {
                self.last_good.insert(key.clone(), told.clone());
            }
            if !self.documents.contains_key(key) {
                let documents = policy.documents(dialect);
                self.documents.insert(key.clone(), documents);
            }
        }
        index.replace_all(self.documents.values());
        self.judge(index);
    }

    /// Only those that are not what they were are judged again: errors in words are long.
    fn judge(&mut self, index: &PolicyIndex) {
        let problems: BTreeMap<_, _> = index
            .problems()
            .map(|problem| (std::sync::Arc::clone(&problem.source.file), problem))
            .collect();
        for (key, policy) in &self.objects {
            if self.judged.contains_key(key) {
                continue;
            }
            let judged = Judged::of(policy, problems.get(policy.file().as_str()));
            match judged.effect() {
                None => {
                    self.last_good.insert(key.clone(), policy.as_last_loaded());
                }
                Some(Effect::LastGood) => {}
                Some(Effect::Denies | Effect::NoPolicy) => {
                    self.last_good.remove(key);
                }
            }
            self.judged.insert(key.clone(), judged);
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

#[cfg(test)]
mod tests;
