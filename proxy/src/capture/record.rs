//! What `redirect` proved about this network namespace, left for the sidecar to demand.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the record inside the state directory.
pub const FILE_NAME: &str = "capture.json";
/// A record has about 300 bytes; a file beyond this is not one.
const MAX_RECORD: u64 = 4096;
const FORMAT: u32 = 1;

/// Written once by `redirect`, after the proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Record {
    format: u32,
    /// Inode of the network namespace that has the rules.
    pub network_namespace: u64,
    /// `nft`, `iptables` or `iptables-legacy`.
    pub backend: String,
    /// The user that the rules exempt.
    pub proxy_uid: u32,
    /// SHA-256 of the rule texts, lower-case hex.
    pub rules_sha256: String,
    pub ipv4: FamilyProof,
    pub ipv6: FamilyProof,
}

/// What was seen of one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyProof {
    /// A connection to an unrouted address arrived at the outbound port.
    Captured,
    /// No route or no such family: nothing can leave by it.
    Unreachable,
}

impl fmt::Display for FamilyProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Captured => "captured",
            Self::Unreachable => "unreachable",
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error(
        "{path} is not there: `mesh-lite redirect` has not captured this pod (or wrote to \
         another --state-dir)"
    )]
    Missing { path: PathBuf },
    #[error("could not read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("could not write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "{path} is longer than {MAX_RECORD} bytes, which no record is; run `mesh-lite redirect` again"
    )]
    TooLong { path: PathBuf },
    #[error("{path} is no record of this version; run `mesh-lite redirect` of the same version")]
    Invalid {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(
        "{path} has format {found}, this version reads {FORMAT}; run `mesh-lite redirect` of the same version"
    )]
    Format { path: PathBuf, found: u32 },
    #[error("could not tell the own network namespace from /proc/self/ns/net")]
    NetworkNamespace(#[source] io::Error),
}

impl Record {
    pub(crate) fn new(
        network_namespace: u64,
        backend: &str,
        proxy_uid: u32,
        rules_sha256: String,
        (ipv4, ipv6): (FamilyProof, FamilyProof),
    ) -> Self {
        let backend = backend.to_owned();
        Self {
            format: FORMAT,
            network_namespace,
            backend,
            proxy_uid,
            rules_sha256,
            ipv4,
            ipv6,
        }
    }

    /// # Errors
    /// There is none, or it cannot be understood.
    pub fn read(state_dir: &Path) -> Result<Self, RecordError> {
        let path = state_dir.join(FILE_NAME);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => RecordError::Missing { path: path.clone() },
            _ => RecordError::Read {
                path: path.clone(),
                source,
            },
        };
        let mut text = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(MAX_RECORD + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > MAX_RECORD {
            return Err(RecordError::TooLong { path });
        }
        let record: Self =
            serde_json::from_slice(&text).map_err(|source| RecordError::Invalid {
                path: path.clone(),
                source,
            })?;
        if record.format != FORMAT {
            return Err(RecordError::Format {
                path,
                found: record.format,
            });
        }
        Ok(record)
    }

    /// Writes the whole record or none.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(crate) fn write(&self, state_dir: &Path) -> Result<PathBuf, RecordError> {
        let path = state_dir.join(FILE_NAME);
        let failed = |source| RecordError::Write {
            path: path.clone(),
            source,
        };
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        let unfinished = state_dir.join(format!("{FILE_NAME}.unfinished"));
        // The sidecar runs as another user and must be able to read it.
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&unfinished)
            .map_err(failed)?;
        file.write_all(&text)
            // whatever this process's mask is
            .and_then(|()| file.set_permissions(Permissions::from_mode(0o644)))
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        Ok(path)
    }

    /// Removes an earlier record, which must not outlive a call that may fail, and makes sure
    /// that one can be written: before anything is installed. The directory is made if only its
    /// parent is there: for this user to write, for everybody to read.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(crate) fn make_room(state_dir: &Path) -> Result<(), RecordError> {
        let path = state_dir.join(FILE_NAME);
        make_directory(state_dir).map_err(|source| RecordError::Write {
            path: path.clone(),
            source,
        })?;
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let tried = state_dir.join(format!("{FILE_NAME}.unfinished"));
        removed
            .and_then(|()| fs::write(&tried, b""))
            .and_then(|()| fs::remove_file(&tried))
            .map_err(|source| RecordError::Write { path, source })
    }
}

/// One that is there already stays as it is.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // whatever this process's mask is
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)),
    }
}

/// Inode of the network namespace of this process.
///
/// # Errors
/// No procfs.
pub fn own_network_namespace() -> Result<u64, RecordError> {
    let metadata = fs::metadata("/proc/self/ns/net").map_err(RecordError::NetworkNamespace)?;
    Ok(metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let seen = (FamilyProof::Captured, FamilyProof::Unreachable);
        Record::new(4_026_531_840, "nft", 15008, "ab".repeat(32), seen)
    }

    #[test]
    fn reads_back_what_was_written() {
        let state_dir = tempfile::tempdir().unwrap();
        record().write(state_dir.path()).unwrap();
        assert_eq!(Record::read(state_dir.path()).unwrap(), record());
        Record::make_room(state_dir.path()).unwrap();
        Record::read(state_dir.path()).unwrap_err();
        Record::make_room(state_dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_made_for_everybody_to_read() {
        let volume = tempfile::tempdir().unwrap();
        fs::set_permissions(volume.path(), Permissions::from_mode(0o2777)).unwrap();
        let state_dir = volume.path().join("capture");
        Record::make_room(&state_dir).unwrap();
        let path = record().write(&state_dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&state_dir), mode(&path)), (0o755, 0o644));
        Record::make_room(&state_dir).unwrap();
    }

    #[test]
    fn a_directory_without_a_parent_is_named_before_anything_is_installed() {
        let volume = tempfile::tempdir().unwrap();
        let refused = Record::make_room(&volume.path().join("none/capture")).unwrap_err();
        assert!(
            refused.to_string().contains("none/capture/capture.json"),
            "{refused}"
        );
    }

    #[test]
    fn a_missing_record_says_who_should_have_written_it() {
        let state_dir = tempfile::tempdir().unwrap();
        let error = Record::read(state_dir.path()).unwrap_err();
        assert!(matches!(error, RecordError::Missing { .. }));
        assert!(error.to_string().contains("mesh-lite redirect"), "{error}");
    }

    #[test]
    fn hostile_records_are_refused() {
        let good = serde_json::to_string(&record()).unwrap();
        let unknown_field = good.replacen('{', "{\"extra\":1,", 1);
        let other_format = good.replace("\"format\":1", "\"format\":2");
        let mut cut = good.clone();
        cut.pop();
        let cut = cut.as_str();
        let endless = " ".repeat(5000);
        for bad in [
            "",
            "null",
            "[]",
            cut,
            &unknown_field,
            &other_format,
            &endless,
        ] {
            let state_dir = tempfile::tempdir().unwrap();
            fs::write(state_dir.path().join(FILE_NAME), bad).unwrap();
            Record::read(state_dir.path()).unwrap_err();
        }
    }
}
