//! The workload's own Unix socket: SDS with the sidecar's identity, key included, for an Envoy
//! or another client beside the application. A Unix socket is the only place where a key is
//! handed out (SDS-S25, S28), and who connects is decided by the kernel's word on the user at the
//! other end, never by what a message says (SDS-S24).
//!
//! ```text
//! identity ─▶ served (checked, SDS-S18) ─▶ sds ─▶ connection ◀─ accept, by user
//! ```

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_lite_proto::secret_discovery::service::SecretService;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::service::Routes;

use crate::{
    clock::Clock,
    identity::Identity,
    metrics::{Metrics, SocketRefusal},
};

mod connection;
mod sds;
mod served;
mod shares;
mod socket_file;

use connection::{OpenedBy, Welcome};
use served::Served;
use shares::Shares;
use socket_file::SocketFile;

/// One message. Envoy's has 61 KB of node; nobody sends a certificate request here.
const MAX_MESSAGE: usize = 128 * 1024;
/// Callers of other users, who only hear that they may not; more are closed without a word.
const MAX_STRANGERS: usize = 4;
/// Users whose refusal is logged: each once, so that knocking does not fill the log.
const MAX_LOGGED: usize = 64;
/// After an accept that failed for want of files or memory: at once it would fail again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// At the end: for every connection's last words to arrive.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where the socket is, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadSocketConfig {
    pub path: PathBuf,
    /// Users that may have this workload's key, beside the sidecar's own and root.
    pub users: Vec<u32>,
}

/// The socket, served until [`WorkloadSocket::close`]; its file goes with it.
#[derive(Debug)]
pub struct WorkloadSocket {
    closing: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
    _file: SocketFile,
}

impl WorkloadSocket {
    /// Opens the socket and serves it in a task, from before there is an identity.
    ///
    /// # Errors
    /// If the socket can't be made, in words.
    pub async fn open(
        config: &WorkloadSocketConfig,
        identities: watch::Receiver<Option<Arc<Identity>>>,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, WorkloadSocketError> {
        let users = allowed_users(&config.users);
        Self::open_for(users, &config.path, identities, metrics, clock).await
    }

    async fn open_for(
        users: BTreeSet<u32>,
        path: &Path,
        identities: watch::Receiver<Option<Arc<Identity>>>,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Self, WorkloadSocketError> {
        let (listener, file) = socket_file::bind(path).await?;
        let (sender, served) = watch::channel(Arc::new(Served::default()));
        tokio::spawn(served::follow(identities, sender, metrics.clone(), clock));
        let secrets = SecretService::new(sds::LocalSources::new(served, metrics, clock));
        let (closing, closed) = watch::channel(false);
        let door = Door {
            routes: Routes::new(
                secrets
                    .secret_discovery()
                    .max_decoding_message_size(MAX_MESSAGE),
            )
            .add_service(
                secrets
                    .aggregated_discovery()
                    .max_decoding_message_size(MAX_MESSAGE),
            )
            .prepare(),
            shares: Shares::of_each(users),
            closing: closed,
            metrics: metrics.clone(),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            logged: BTreeSet::new(),
        };
        tracing::info!(path = %path.display(), users = ?door.shares.users().collect::<Vec<_>>(), "workload socket");
        Ok(Self {
            closing,
            serving: tokio::spawn(door.serve(listener)),
            _file: file,
        })
    }

    /// Ends every stream with UNAVAILABLE (SDS-S22): clients keep what they have.
    pub async fn close(mut self) {
        self.closing.send_replace(true);
        let _ = timeout(FAREWELL, &mut self.serving).await;
    }
}

impl Drop for WorkloadSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Root reads the state file anyway.
fn allowed_users(users: &[u32]) -> BTreeSet<u32> {
    let own = rustix::process::geteuid().as_raw();
    users.iter().copied().chain([own, 0]).collect()
}

/// Decides who comes in.
struct Door {
    routes: Routes,
    shares: Shares,
    closing: watch::Receiver<bool>,
    metrics: Metrics,
    strangers: Arc<Semaphore>,
    logged: BTreeSet<u32>,
}

impl Door {
    /// Runs until the socket closes, and then until the last connection has ended.
    async fn serve(mut self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            let mut closing = self.closing.clone();
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.welcome(stream, &mut connections),
                    Err(error) => {
                        self.metrics.accept_failed(&error);
                        sleep(ACCEPT_BACK_OFF).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                () = connection::closed(&mut closing) => break,
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    fn welcome(&mut self, stream: UnixStream, connections: &mut JoinSet<()>) {
        // without the kernel's word on who it is, nobody comes in
        let Ok(peer) = stream.peer_cred() else {
            return self.metrics.socket_refused(SocketRefusal::User);
        };
        let admitted = match self.shares.of(peer.uid()) {
            Some(share) => share.connection().map(|place| {
                let welcome = Welcome::In {
                    routes: self.routes.clone(),
                    share: share.clone(),
                    metrics: self.metrics.clone(),
                };
                (welcome, place)
            }),
            None => {
                self.refused(peer.uid(), peer.pid());
                let place = Arc::clone(&self.strangers).try_acquire_owned();
                place.ok().map(|place| (Welcome::Not, place))
            }
        };
        let Some((welcome, place)) = admitted else {
            if self.shares.of(peer.uid()).is_some() {
                self.metrics.socket_refused(SocketRefusal::Connections);
            }
            return;
        };
        let opened_by = OpenedBy {
            uid: peer.uid(),
            pid: peer.pid(),
            closing: self.closing.clone(),
        };
        connections.spawn(async move {
            connection::serve(stream, opened_by, welcome).await;
            drop(place);
        });
    }

    fn refused(&mut self, uid: u32, pid: Option<i32>) {
        self.metrics.socket_refused(SocketRefusal::User);
        if self.logged.len() < MAX_LOGGED && self.logged.insert(uid) {
            tracing::warn!(
                uid,
                pid,
                "refused at the workload socket: not one of --workload-socket-uids (logged once for each user)"
            );
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadSocketError {
    #[error(
        "the workload socket {path} can't be made: {source}. Its directory must be there, and user {uid} \
         must be able to write in it: install -d -o {uid} -m 755 {directory}",
        path = path.display(),
        directory = socket_file::directory_of(path).display()
    )]
    Bind {
        path: PathBuf,
        uid: u32,
        source: io::Error,
    },
    #[error("another process serves the workload socket {}: give each its own --workload-socket", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is there and is not a socket: it is left as it is; remove it, or change --workload-socket",
        .0.display()
    )]
    NotASocket(PathBuf),
    #[error(
        "others than its owner may write in {directory} (mode {mode:o}), so they could put a socket of \
         theirs in the place of the workload socket: chmod go-w {directory}, or chmod +t {directory} if \
         they must write there, or make a directory in it: install -d -o {uid} -m 755 {directory}/sds",
        directory = directory.display(),
        uid = rustix::process::geteuid().as_raw()
    )]
    OpenDirectory { directory: PathBuf, mode: u32 },
    #[error(
        "another process has kept the lock of {directory} for seconds, and the workload socket can't be \
         made there meanwhile: `lsof {directory}` names it; end it, or change --workload-socket",
        directory = .0.display()
    )]
    Locked(PathBuf),
}

#[cfg(test)]
mod tests;
