//! The documents that an answer is by, and what they are in words.

use std::{
    path::{MAIN_SEPARATOR_STR, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_control_plane::policy_review::{Documents, ReviewedWorkload};

use super::{
    Basis, Explanation,
    judged::{Call, Judged},
};
use crate::policy::{DocumentArgs, count};

#[derive(Debug)]
pub(super) struct ReadDocuments {
    pub(super) documents: Documents,
    /// In words.
    what: String,
    /// Nobody said what holds where no document says anything.
    shipped_is_assumed: bool,
    /// How the names of files begin here. A control plane has their names alone.
    folders: Vec<String>,
}

impl ReadDocuments {
    /// # Errors
    /// If a path can't be read.
    pub(super) fn read(paths: &[PathBuf], args: &DocumentArgs) -> anyhow::Result<Self> {
        let documents = args.read(paths)?;
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let mut what = format!("the documents in {}", names.join(", "));
        let errors = documents.errors().len();
        if errors > 0 {
            what.push_str(&format!(
                ", with {} in them; what can't be loaded denies in its scope unless the \
                 control plane holds an earlier version (see mesh-lite policy lint)",
                count(errors, "error")
            ));
        }
        Ok(Self {
            documents,
            what,
            shipped_is_assumed: args.shipped_is_assumed(),
            folders: paths.iter().filter_map(|path| folder(path)).collect(),
        })
    }

    pub(super) fn basis(self: &Arc<Self>) -> Basis {
        Basis {
            what: self.what.clone(),
            documents: Some(Arc::clone(self)),
        }
    }

    /// What policy of this workload says to a call.
    pub(super) fn judge(
        self: &Arc<Self>,
        call: Call,
        workload: &ReviewedWorkload,
        now: SystemTime,
    ) -> Explanation {
        let snapshot = self.documents.snapshot_for(workload, now);
        let judged = Judged::of(&call, &snapshot, now);
        Explanation {
            rests_on_shipped: self.rests_on_shipped(&call, &judged, workload, now),
            call,
            judged,
            basis: self.basis(),
            service_port: None,
        }
    }

    /// Whether the answer would be another one if the mesh had been made with the other shipped
    /// default, and nobody said with which it was made.
    pub(super) fn rests_on_shipped(
        &self,
        call: &Call,
        judged: &Judged,
        workload: &ReviewedWorkload,
        now: SystemTime,
    ) -> bool {
        self.shipped_is_assumed && {
            let otherwise = self.documents.snapshot_if_shipped_otherwise(workload, now);
            Judged::of(call, &otherwise, now).is_allowed() != judged.is_allowed()
        }
    }

    /// A reason as a sidecar has it, whose control plane knows files by their names alone.
    pub(super) fn as_sidecars_say(&self, reason: &str) -> String {
        let folders = self.folders.iter();
        folders.fold(reason.to_owned(), |reason, folder| {
            reason.replace(folder, "")
        })
    }
}

/// As [`Documents::read`] begins the names of the files below a path. `None`: with nothing.
fn folder(path: &Path) -> Option<String> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let name = folder.to_str()?;
    match name.strip_suffix(MAIN_SEPARATOR_STR) {
        _ if name.is_empty() => None,
        Some(_) => Some(name.to_owned()),
        None => Some(format!("{name}{MAIN_SEPARATOR_STR}")),
    }
}
