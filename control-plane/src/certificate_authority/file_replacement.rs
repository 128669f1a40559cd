//! How files of the data directory are read and written: bounded, whole or not at all, closed to
//! others. Whose they are is decided in `directory_owner`.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mesh_lite_proto::trust_bundle::hex;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use super::{key_store::KeyStoreError, random::random_bytes};

/// Certificates and keys are a few KiB; a larger file is not one of ours.
pub(super) const MAX_FILE: u64 = 256 * 1024;
const PRIVATE_DIRECTORY: u32 = 0o700;
pub(super) const PRIVATE_FILE: u32 = 0o600;
pub(super) const PUBLIC_FILE: u32 = 0o644;

/// A file of the data directory. What is no plain file is not ours: a link, or a pipe that nobody
/// writes into.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => fs::File::from(file),
        Err(Errno::LOOP) => return Err(KeyStoreError::NotAPlainFile(path.to_owned())),
        Err(error) => return Err(KeyStoreError::io("read", path)(error.into())),
    };
    let metadata = file.metadata().map_err(KeyStoreError::io("read", path))?;
    if !metadata.is_file() {
        return Err(KeyStoreError::NotAPlainFile(path.to_owned()));
    }
    read_open(file, path)
}

/// A file that the operator named: where a link leads is the operator's to say.
pub(crate) fn read_named(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let file = fs::File::open(path).map_err(KeyStoreError::io("read", path))?;
    read_open(file, path)
}

/// Room for all that it may hold from the beginning, so that no part of a key stays behind in
/// memory that was outgrown.
fn read_open(file: fs::File, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let limit = MAX_FILE.saturating_add(1);
    let room = usize::try_from(limit).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(room));
    let length = file
        .take(limit)
        .read_to_end(&mut content)
        .map_err(KeyStoreError::io("read", path))?;
    if u64::try_from(length).is_ok_and(|length| length <= MAX_FILE) {
        return Ok(content);
    }
    Err(KeyStoreError::TooLong(path.to_owned()))
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
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(KeyStoreError::io("write", path))
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
