//! The socket's file: made where nobody serves, open to all (who may come in is decided by user,
//! so that a stranger hears why not), removed at the end.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::WorkloadSocketError;

const MODE: u32 = 0o666;
/// A listener answers at once, or its queue is full, which is an answer too.
const KNOCK: Duration = Duration::from_secs(1);

/// Removes the file when it is dropped, if it is still the one that was made here.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

pub(super) async fn bind(path: &Path) -> Result<(UnixListener, SocketFile), WorkloadSocketError> {
    remove_stale(path).await?;
    bind_here(path).map_err(|source| cannot_bind(path, source))
}

fn bind_here(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = UnixListener::bind(path)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    Ok((listener, file))
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
