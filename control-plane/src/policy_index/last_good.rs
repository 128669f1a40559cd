//! Last good versions that this process did not see itself: another replica wrote them down.

use std::sync::Arc;

use mesh_lite_proto::{
    authorization::document::load,
    document::{DocumentKey, RawDocument},
};

use super::{PolicyIndex, source_of};

impl PolicyIndex {
    /// Takes a version that was good before the one that is there now, which comes after this.
    /// Answers whether it loads here too; if not, nothing changes.
    pub(crate) fn resume(&mut self, document: &RawDocument) -> bool {
        if !document.key.kind.is_policy() {
            return false;
        }
        let Ok(loaded) = self.permitted(document, load(document, &self.trust_domain)) else {
            return false;
        };
        let for_whole_mesh = self.is_for_whole_mesh(document);
        let (key, source) = (document.key.clone(), source_of(document));
        // what becomes of it may not even have a readable header
        let keys = self.files.entry(Arc::clone(&document.file)).or_default();
        keys.insert(key.clone());
        self.put(key, source, for_whole_mesh, Ok(loaded));
        true
    }

    /// What has the same name now is another document: it has no last good version.
    pub(crate) fn forget(&mut self, key: &DocumentKey, file: &str) {
        self.remove(key);
        if let Some(keys) = self.files.get_mut(file) {
            keys.remove(key);
        }
    }
}
