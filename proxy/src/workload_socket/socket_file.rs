//! The socket's file: made where nobody serves, open to all (who may come in is decided by user,
//! so that a stranger hears why not), removed at the end.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock},
    io::Errno,
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use super::WorkloadSocketError;

const MODE: u32 = 0o666;
/// A listener answers at once, or its queue is full, which is an answer too.
const KNOCK: Duration = Duration::from_secs(1);
/// Whoever has the directory's lock knocks once at most, and binds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Mode bits: others than the directory's owner may write in it, and only a file's owner may
/// remove it all the same.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Removes the file when it is dropped, if it is still the one that was made here.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), WorkloadSocketError> {
    // held until the socket is bound: another sidecar must not find it stale before that
    let _lock = lock_directory(path).await?;
    remove_stale(path).await?;
    bind_here(path).map_err(|source| cannot_bind(path, source))
}

/// The directory is itself the lock, so that no lock file is left behind. The kernel lets it go
/// if the process dies.
async fn lock_directory(path: &Path) -> Result<File, WorkloadSocketError> {
    let directory = open_directory(path).map_err(|source| cannot_bind(path, source))?;
    let mode = directory
        .metadata()
        .map_err(|source| cannot_bind(path, source))?
        .mode();
    if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        return Err(WorkloadSocketError::OpenDirectory {
            directory: directory_of(path).to_owned(),
            mode: mode & 0o7777,
        });
    }
    let locked = timeout(LOCK_PATIENCE, async {
        loop {
            match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(LOCK_RETRY).await,
                result => return result,
            }
        }
    });
    match locked.await {
        Ok(Ok(())) => Ok(directory),
        Ok(Err(error)) => Err(cannot_bind(path, error.into())),
        Err(_) => Err(WorkloadSocketError::Locked(directory_of(path).to_owned())),
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory_of(path), flags, Mode::empty())?.into())
}

pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn bind_here(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = UnixListener::bind(path)?;
    let metadata = open_to_all(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    Ok((listener, file))
}

/// By a descriptor of the socket itself: a link that took its place is not followed. (A mode set
/// before the bind would lose what the umask takes.)
fn open_to_all(path: &Path) -> io::Result<Metadata> {
    let this_one = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = i32::try_from(this_one.bits()).map_err(io::Error::other)?;
    let socket = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = socket.metadata()?;
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("something else has taken its place"));
    }
    let itself = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::set_permissions(itself, Permissions::from_mode(MODE))?;
    Ok(metadata)
}

/// A killed sidecar leaves its socket behind: nobody answers there, and nobody else can bind it.
async fn remove_stale(path: &Path) -> Result<(), WorkloadSocketError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(WorkloadSocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(cannot_bind(path, source)),
    }
    match timeout(KNOCK, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| cannot_bind(path, source))
        }
        _ => Err(WorkloadSocketError::InUse(path.to_owned())),
    }
}

fn cannot_bind(path: &Path, source: io::Error) -> WorkloadSocketError {
    WorkloadSocketError::Bind {
        path: path.to_owned(),
        uid: rustix::process::geteuid().as_raw(),
        source,
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_sockets_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, socket, link) = (
            folder.path().join("file"),
            folder.path().join("socket"),
            folder.path().join("link"),
        );
        fs::write(&file, "private").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for target in [&file, &socket] {
            fs::set_permissions(target, Permissions::from_mode(0o600)).unwrap();
            std::os::unix::fs::symlink(target, &link).unwrap();
            open_to_all(&link).unwrap_err();
            assert_eq!(fs::metadata(target).unwrap().mode() & 0o777, 0o600);
            fs::remove_file(&link).unwrap();
        }
    }
}
