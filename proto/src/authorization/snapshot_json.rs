//! A snapshot as JSON of its wire form: what a sidecar shows, and what tools decide by again.

use serde::Serialize;

use super::{InvalidSnapshot, PolicySnapshot};
use crate::wire::mesh_lite::v1 as wire;

/// Bytes of the longest: a control plane sends at most [`sidecar::MAX_GRPC_MESSAGE`], and a rule
/// with one short value is 60 times as long with the names of all fields.
///
/// [`sidecar::MAX_GRPC_MESSAGE`]: crate::sidecar::MAX_GRPC_MESSAGE
pub const MAX_SNAPSHOT_JSON: u64 = 64 * 1024 * 1024;

impl PolicySnapshot {
    /// What is written as JSON.
    #[must_use]
    pub fn shown_as_json(&self) -> impl Serialize + use<> {
        wire::PolicySnapshot::from(self)
    }

    /// Reads what [`Self::shown_as_json`] wrote.
    ///
    /// # Errors
    /// If it is not JSON of a snapshot, has a field that this build does not know, or is refused
    /// as a snapshot from a control plane would be.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidSnapshotJson> {
        let snapshot: wire::PolicySnapshot = serde_json::from_slice(json)?;
        Ok(snapshot.try_into()?)
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSnapshotJson {
    #[error("it is no policy snapshot that a sidecar of this version shows: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Snapshot(#[from] InvalidSnapshot),
}

#[cfg(test)]
mod tests;
