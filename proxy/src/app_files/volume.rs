//! Several files that change together, as the kubelet does it: a fresh directory for each version,
//! and one link, `..data`, that is swapped. Whoever follows that link once reads one version.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

const NEWEST: &str = "..data";
const NEXT: &str = "..data_next";
const VERSION: &str = "..version-";
/// The application's user is anybody's guess, and no group is sure to be shared: so everybody may
/// read who has the directory. That is its protection: a memory volume that is mounted in the
/// sidecar and, read only, in the containers that asked for it.
const FILE: u32 = 0o644;
const DIRECTORY: u32 = 0o755;

pub(super) fn replace_all(directory: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    let before = fs::read_link(directory.join(NEWEST)).ok();
    let number = before
        .as_deref()
        .and_then(number_of)
        .unwrap_or_default()
        .wrapping_add(1);
    let name = format!("{VERSION}{number}");
    let version = directory.join(&name);
    // left behind by a sidecar that was ended in here
    remove(&version)?;
    DirBuilder::new().mode(DIRECTORY).create(&version)?;
    fs::set_permissions(&version, fs::Permissions::from_mode(DIRECTORY))?;
    for (file, content) in files {
        write(&version.join(file), content.as_bytes())?;
    }
    swap(directory, &name)?;
    for (file, _) in files {
        link(directory, file)?;
    }
    // whoever opened the one before has a moment to read it: it goes with the next
    remove_others(directory, &name, before.as_deref())
}

/// The mask of the process must not decide who can read.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(FILE))?;
    file.write_all(content)
}

fn swap(directory: &Path, version: &str) -> io::Result<()> {
    let next = directory.join(NEXT);
    remove(&next)?;
    symlink(version, &next)?;
    fs::rename(next, directory.join(NEWEST))
}

/// The name that applications open. Made once: it leads through `..data`.
fn link(directory: &Path, file: &str) -> io::Result<()> {
    let target = Path::new(NEWEST).join(file);
    let path = directory.join(file);
    if fs::read_link(&path).is_ok_and(|there| there == target) {
        return Ok(());
    }
    remove(&path)?;
    symlink(target, path)
}

fn remove_others(directory: &Path, newest: &str, before: Option<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let kept = name == newest || Some(Path::new(&name)) == before;
        if !kept && number_of(Path::new(&name)).is_some() {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn number_of(name: &Path) -> Option<u64> {
    name.to_str()?.strip_prefix(VERSION)?.parse().ok()
}

/// Whatever it is. A link is removed, not what it leads to.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
