//! For whom a document is.

use std::{collections::BTreeMap, sync::Arc};

use mesh_lite_proto::authorization::document::Selector;

use super::Selected;

/// From narrow to wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Workload,
    Namespace,
    Mesh,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    /// `None`: all of them.
    namespace: Option<Arc<str>>,
    selector: Selector,
}

impl Scope {
    pub(super) fn everything() -> Self {
        Self {
            namespace: None,
            selector: Selector::default(),
        }
    }

    /// Of a document in this namespace, or of one that is for all of them.
    pub(super) fn of(namespace: &Arc<str>, for_whole_mesh: bool, selector: Selector) -> Self {
        let namespace = (!for_whole_mesh).then(|| Arc::clone(namespace));
        Self {
            namespace,
            selector,
        }
    }

    pub(super) const fn is_for_whole_mesh(&self) -> bool {
        self.namespace.is_none()
    }

    /// Those which a workload must have.
    pub(super) const fn labels(&self) -> &BTreeMap<String, String> {
        self.selector.labels()
    }

    pub(super) fn covers(&self, workload: Selected<'_>) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|namespace| namespace == workload.namespace)
            && self.selector.selects(workload.labels)
    }

    pub(super) fn level(&self) -> Level {
        match (self.selector.is_everybody(), &self.namespace) {
            (false, _) => Level::Workload,
            (true, Some(_)) => Level::Namespace,
            (true, None) => Level::Mesh,
        }
    }
}
