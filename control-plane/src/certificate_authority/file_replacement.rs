//! How files of the data directory are read and written: bounded, whole or not at all, closed to
//! others, and owned by whom the directory belongs to.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown},
    path::{Path, PathBuf},
};

use mesh_lite_proto::trust_bundle::hex;
use zeroize::Zeroizing;

use super::{key_store::KeyStoreError, random::random_bytes};

/// Certificates and keys are a few KiB; a larger file is not one of ours.
pub(super) const MAX_FILE: u64 = 256 * 1024;
const PRIVATE_DIRECTORY: u32 = 0o700;
pub(super) const PRIVATE_FILE: u32 = 0o600;
pub(super) const PUBLIC_FILE: u32 = 0o644;

pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let length = fs::metadata(path)
        .map_err(KeyStoreError::io("read", path))?
        .len();
    if length > MAX_FILE {
        return Err(KeyStoreError::TooLong {
            path: path.to_owned(),
            length,
        });
    }
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(KeyStoreError::io("read", path))
}

pub(crate) fn create_private_directory(path: &Path) -> Result<(), KeyStoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(path)
        .map_err(KeyStoreError::io("create", path))?;
    let mode = fs::metadata(path)
        .map_err(KeyStoreError::io("read", path))?
        .permissions()
        .mode();
    // a directory that was there before may be open to others
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIRECTORY))
        .map_err(KeyStoreError::io("close to others", path))
}

/// Belongs to whom the directory around it belongs.
pub(super) fn create_private_directory_within(path: &Path) -> Result<(), KeyStoreError> {
    create_private_directory(path)?;
    let Some((user, group)) = owner_to_adopt(path)? else {
        return Ok(());
    };
    chown(path, Some(user), Some(group)).map_err(KeyStoreError::io("hand over", path))
}

/// Writes a private file so that readers see the old content or the new, never a part.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> Result<(), KeyStoreError> {
    replace(path, content, PRIVATE_FILE)
}

pub(super) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyStoreError> {
    let beside = beside(path)?;
    let written = write_and_sync(&beside, content, mode)
        .and_then(|()| fs::rename(&beside, path).map_err(KeyStoreError::io("rename to", path)))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // best effort: the reason to report is the first one
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_and_sync(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyStoreError> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(KeyStoreError::io("create", path))?;
    if let Some((user, group)) = owner_to_adopt(path)? {
        fchown(&file, Some(user), Some(group)).map_err(KeyStoreError::io("hand over", path))?;
    }
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(KeyStoreError::io("write", path))
}

/// The superuser's timer writes into the directory of a control plane that runs as somebody
/// less: what it leaves there must be readable to that one.
fn owner_to_adopt(path: &Path) -> Result<Option<(u32, u32)>, KeyStoreError> {
    let us = rustix::process::geteuid();
    let Some(parent) = parent(path).filter(|_| us.is_root()) else {
        return Ok(None);
    };
    let owner = fs::metadata(parent).map_err(KeyStoreError::io("read", parent))?;
    Ok((owner.uid() != us.as_raw()).then(|| (owner.uid(), owner.gid())))
}

pub(super) fn sync_parent(path: &Path) -> Result<(), KeyStoreError> {
    let Some(parent) = parent(path) else {
        return Ok(());
    };
    fs::File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(KeyStoreError::io("sync", parent))
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
}

/// A name in the same directory, hidden from those who list documents or tokens.
pub(super) fn beside(path: &Path) -> Result<PathBuf, KeyStoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{}", hex(&random_bytes::<8>()?))))
}
