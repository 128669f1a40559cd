//! The sidecar's data directory: one sidecar's, and writable, before anything depends on it.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const LOCK: &str = "sidecar.lock";

/// Held for as long as the sidecar runs; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub struct DataDirectory {
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirectoryError {
    /// Found out before a join token is used up for nothing.
    #[error(
        "the data directory {path} can't be written by user {uid}: {source}. Make it this user's \
         alone: install -d -o {uid} -m 700 {path}"
    )]
    NotWritable {
        path: PathBuf,
        uid: u32,
        source: io::Error,
    },
    #[error(
        "another sidecar uses the data directory {0}, and with it the other workload's identity: \
         give each workload its own --data-dir"
    )]
    InUse(PathBuf),
}

impl DataDirectory {
    /// Makes it, for this user alone, if only its parent is there: a memory volume of a pod is
    /// everybody's who mounts it.
    ///
    /// # Errors
    /// If this user can't write there, or another sidecar does.
    pub fn claim(path: &Path) -> Result<Self, DataDirectoryError> {
        let not_writable = |source| DataDirectoryError::NotWritable {
            path: path.to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            source,
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(not_writable(error));
            }
            _ => {}
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(not_writable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirectoryError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(not_writable(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_sidecar_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDirectory::claim(folder.path()).unwrap();
        let second = DataDirectory::claim(folder.path());
        assert!(
            matches!(second, Err(DataDirectoryError::InUse(_))),
            "{second:?}"
        );
        drop(first);
        assert!(DataDirectory::claim(folder.path()).is_ok());
    }

    #[test]
    fn a_directory_that_is_not_there_is_made_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        // as the kubelet makes a memory volume for a pod with an fsGroup
        let everybodys = std::fs::Permissions::from_mode(0o2777);
        std::fs::set_permissions(folder.path(), everybodys).unwrap();
        let made = folder.path().join("sidecar");
        let claimed = DataDirectory::claim(&made).unwrap();
        let mode = std::fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(claimed);
        DataDirectory::claim(&made).unwrap();
    }

    #[test]
    fn a_directory_whose_parent_is_not_there_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent/sidecar");
        let error = DataDirectory::claim(&absent).unwrap_err().to_string();
        assert!(
            error.contains("install -d -o") && error.contains("absent"),
            "{error}"
        );
        assert!(!folder.path().join("absent").exists());
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sidecar");
        std::fs::write(&file, "").unwrap();
        let refused = DataDirectory::claim(&file);
        assert!(
            matches!(refused, Err(DataDirectoryError::NotWritable { .. })),
            "{refused:?}"
        );
    }
}
