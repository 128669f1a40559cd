//! Says of policies that are in the root namespace of another mesh that they are not mesh-wide.

use std::collections::BTreeSet;

use mesh_lite_proto::document::DocumentKey;

use crate::policy_index::PolicyIndex;

/// Of which policies it was said: once of each, as long as it is there. Such a policy is in force
/// as it is written, so readiness is not asked.
#[derive(Debug, Default)]
pub(crate) struct NotMeshWide(BTreeSet<DocumentKey>);

impl NotMeshWide {
    pub(crate) fn say(&mut self, policies: &PolicyIndex) {
        let mut now = BTreeSet::new();
        for (key, source) in policies.not_mesh_wide() {
            if !self.0.contains(key) {
                let (problem, help) = policies.not_mesh_wide_in_words(&key.namespace);
                tracing::warn!("{key} ({}:{}): {problem}; {help}", source.file, source.line);
            }
            now.insert(key.clone());
        }
        self.0 = now;
    }
}
