//! Last good versions that this process did not see itself: another replica wrote them down.

use std::{collections::BTreeSet, sync::Arc};

use mesh_lite_proto::{
    authorization::document::load,
    document::{DocumentKey, Documents, RawDocument},
};

use super::PolicyIndex;

impl PolicyIndex {
    /// Takes a version that was good before the one that is there now, which comes after this.
    /// Answers whether it loads here too; if not, nothing changes.
    pub(crate) fn resume(&mut self, document: &RawDocument) -> bool {
        if !document.key.kind.is_policy() {
            return false;
        }
        let loaded = self.permitted(document, load(document, &self.trust_domain));
        if loaded.is_err() {
            return false;
        }
        // what becomes of it may not even have a readable header
        let alone = Documents {
            readable: vec![document.clone()],
            unreadable: Vec::new(),
        };
        self.replace_files([(Arc::clone(&document.file), Some(Arc::new(alone)))]);
        true
    }

    /// What has the same name now is another document: it has no last good version. Answers which
    /// documents may be held in another way now.
    pub(crate) fn forget(&mut self, file: &str) -> BTreeSet<DocumentKey> {
        self.replace_files([(Arc::from(file), None)])
    }
}
