//! Which documents may be for a workload, found by namespace and label: a namespace may have
//! thousands, each for another of its workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_lite_proto::document::DocumentKey;

use super::{Selected, scope::Scope};

type Label = (Arc<str>, Arc<str>);

/// The documents of each namespace; a clone shares those that do not change.
#[derive(Debug, Clone, Default)]
pub(super) struct ByScope(BTreeMap<Arc<str>, Arc<OfNamespace>>);

#[derive(Debug, Clone, Default)]
struct OfNamespace {
    /// Without a selector.
    of_everybody: BTreeSet<DocumentKey>,
    /// Under the first label of their selectors: whoever has all of them has that one.
    by_label: BTreeMap<Label, BTreeSet<DocumentKey>>,
}

impl ByScope {
    pub(super) fn put(&mut self, key: &DocumentKey, scope: &Scope) {
        let of_namespace = self.0.entry(Arc::clone(&key.namespace)).or_default();
        let of_namespace = Arc::make_mut(of_namespace);
        let place = match first_label(scope) {
            None => &mut of_namespace.of_everybody,
            Some(label) => of_namespace.by_label.entry(label).or_default(),
        };
        place.insert(key.clone());
    }

    /// `scope` is what it was put by.
    pub(super) fn remove(&mut self, key: &DocumentKey, scope: &Scope) {
        let Some(of_namespace) = self.0.get_mut(&key.namespace).map(Arc::make_mut) else {
            return;
        };
        match first_label(scope) {
            None => _ = of_namespace.of_everybody.remove(key),
            Some(label) => {
                if let Some(keys) = of_namespace.by_label.get_mut(&label) {
                    keys.remove(key);
                    if keys.is_empty() {
                        of_namespace.by_label.remove(&label);
                    }
                }
            }
        }
        if of_namespace.of_everybody.is_empty() && of_namespace.by_label.is_empty() {
            self.0.remove(&key.namespace);
        }
    }

    /// In the order of their keys; some of them may not be for it.
    pub(super) fn of<'a>(
        &'a self,
        namespaces: impl Iterator<Item = &'a str>,
        workload: Selected<'a>,
    ) -> BTreeSet<&'a DocumentKey> {
        let labels: Vec<Label> = workload
            .labels
            .iter()
            .map(|(label, value)| (label.as_str().into(), value.as_str().into()))
            .collect();
        let mut found = BTreeSet::new();
        for of_namespace in namespaces.filter_map(|namespace| self.0.get(namespace)) {
            found.extend(&of_namespace.of_everybody);
            let by_label = &of_namespace.by_label;
            let of_labels = labels.iter().filter_map(|label| by_label.get(label));
            found.extend(of_labels.flatten());
        }
        found
    }
}

fn first_label(scope: &Scope) -> Option<Label> {
    let (label, value) = scope.labels().iter().next()?;
    Some((label.as_str().into(), value.as_str().into()))
}
