//! A volume that the kubelet mounts: every file is a link into `..data`, which is itself a link to
//! the newest version, and is swapped whole. Who reads below what `..data` named reads one version.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::key_store::KeyStoreError;

const NEWEST: &str = "..data";

/// Where the files of `directory` are read: the newest version of a mounted volume, else itself.
///
/// # Errors
/// If `..data` can't be read, or leads out of the directory.
pub(super) fn newest(directory: &Path) -> Result<PathBuf, KeyStoreError> {
    let link = directory.join(NEWEST);
    let target = match fs::read_link(&link) {
        Ok(target) => target,
        // no link of that name: a directory like any other
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
            ) =>
        {
            return Ok(directory.to_owned());
        }
        Err(error) => return Err(KeyStoreError::io("read", &link)(error)),
    };
    let mut parts = target.components();
    let version = match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => directory.join(name),
        _ => return Err(KeyStoreError::NotAPlainFile(link)),
    };
    let metadata = fs::symlink_metadata(&version).map_err(KeyStoreError::io("read", &version))?;
    if metadata.is_dir() {
        Ok(version)
    } else {
        Err(KeyStoreError::NotAPlainFile(version))
    }
}

/// Reads one version whole. The kubelet removes the one before: what was half read then is read
/// again.
///
/// # Errors
/// Those of `read`, and as [`newest`].
pub(super) fn read_one_version<T>(
    directory: &Path,
    read: impl Fn(&Path) -> Result<T, KeyStoreError>,
) -> Result<T, KeyStoreError> {
    /// Swaps are a minute apart; more than this in the time of a few reads is no volume.
    const MOST: usize = 5;
    let mut version = newest(directory)?;
    for _ in 0..MOST {
        let result = read(&version);
        let now = newest(directory)?;
        if now == version {
            return result;
        }
        version = now;
    }
    read(&version)
}

#[cfg(test)]
mod tests;
