//! Work on a directory that belongs to somebody else, done with that one's rights.
//!
//! The superuser's timer signs for a control plane that runs as somebody less. Whoever took that
//! control plane over may put links to the superuser's files where its own lay: with the owner's
//! rights they lead nowhere that the owner could not go without us.

use std::{fs, io, os::unix::fs::MetadataExt, panic::resume_unwind, path::Path, thread};

use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::key_store::KeyStoreError;

/// Does `work` as the owner of `directory`, if we are the superuser and it is somebody else's.
/// The directories above it are trusted not to be the owner's.
///
/// # Errors
/// Those of `work`, and if the owner can't be learnt or we may not become that one.
pub(crate) fn as_owner_of<T, E>(
    directory: &Path,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E>
where
    T: Send,
    E: From<KeyStoreError> + Send,
{
    let Some((user, group)) = other_owner(directory)? else {
        return work();
    };
    let become_owner = || {
        become_in_this_thread(user, group)
            .map_err(KeyStoreError::io("work as the owner of", directory))
    };
    // rights are a thread's own: they end with it, also if `work` panics
    let done = thread::scope(|threads| {
        let other = threads.spawn(|| {
            become_owner()?;
            work()
        });
        other.join()
    });
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// A link is its maker's: it is not asked where it leads.
fn other_owner(directory: &Path) -> Result<Option<(Uid, Gid)>, KeyStoreError> {
    let us = geteuid();
    if !us.is_root() {
        return Ok(None);
    }
    let read = |error| KeyStoreError::io("read", directory)(error);
    let mut metadata = match fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        // made by us, it will be ours
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    if metadata.is_symlink() && metadata.uid() == us.as_raw() {
        metadata = fs::metadata(directory).map_err(read)?;
    }
    let owner = Uid::from_raw(metadata.uid());
    Ok((owner != us).then(|| (owner, Gid::from_raw(metadata.gid()))))
}

/// The effective ids decide about files, and the kernel takes the superuser's capabilities away
/// with them. The real and the saved user stay ours, so that the owner can neither look into this
/// process, which may hold the root's key, nor end it.
fn become_in_this_thread(user: Uid, group: Gid) -> io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    Ok(set_thread_res_uid(None, user, None)?)
}

#[cfg(test)]
mod tests;
