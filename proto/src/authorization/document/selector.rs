//! `selector: {matchLabels: ...}`: which workloads a document is for.

use std::collections::BTreeMap;

use crate::document::{
    Node,
    fields::{Fields, Path},
};

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

    /// Those which a workload must have.
    #[must_use]
    pub const fn labels(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Whether it selects the whole scope.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }
}

/// None is everybody; `None` if something is wrong with it.
pub(super) fn read(spec: &Node, fields: &mut Fields<'_>) -> Option<Selector> {
    let before = fields.count();
    let Some(entry) = spec.entry("selector") else {
        return Some(Selector::default());
    };
    let path = Path::root("spec.selector");
    fields.map(&entry.value, &path, &["matchLabels"]);
    let labels = entry
        .value
        .entry("matchLabels")
        .map(|labels| fields.text_map(&labels.value, &path.key("matchLabels")));
    (fields.count() == before).then(|| Selector(labels.unwrap_or_default()))
}
