//! How many connections there may be: of all, of one stranger, in a handshake.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More would need more descriptors and ports than a pod has by default.
const MAX_CONNECTIONS: usize = 10_000;
/// What a connection may take of memory when both its sides are slow.
const BYTES_PER_CONNECTION: u64 = 16 * 1024;
/// The sidecar without connections.
const BYTES_AT_REST: u64 = 24 * 1024 * 1024;
/// A sidecar with a tiny memory limit still serves.
const MIN_CONNECTIONS: usize = 64;
/// A client that can't prove who it is holds at most this many places.
const MAX_UNAUTHENTICATED_PER_SOURCE: u32 = 64;
/// CPU is what handshakes lack; the rest waits in the kernel's backlog or in its deadline.
const MAX_HANDSHAKES: usize = 256;

/// Each connection has two sockets; the rest of the process has this many files.
const OTHER_FILES: u64 = 128;

/// How many connections a process with this memory limit and this many open files may hold.
pub fn max_connections(memory_limit: Option<u64>, open_files: Option<u64>) -> usize {
    let by_memory =
        memory_limit.map(|limit| limit.saturating_sub(BYTES_AT_REST) / BYTES_PER_CONNECTION);
    let by_files = open_files.map(|files| files.saturating_sub(OTHER_FILES) / 2);
    let room = [by_memory, by_files]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX);
    usize::try_from(room)
        .unwrap_or(MAX_CONNECTIONS)
        .clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

/// Raises the number of files this process may open to what its user may allow it, and says how
/// many that is. `None`: without a limit.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

#[derive(Clone)]
pub struct Limits {
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    strangers: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Limits {
    pub fn new(max_connections: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(max_connections)),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            strangers: Arc::default(),
        }
    }

    /// A place for a connection, or `None` if there is no more.
    pub fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// A place for a client that has not proved who it is, or `None` if its address has too many.
    pub fn stranger(&self, source: IpAddr) -> Option<Stranger> {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = strangers.entry(source).or_default();
        if *count >= MAX_UNAUTHENTICATED_PER_SOURCE {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Stranger {
            source,
            all: Arc::clone(&self.strangers),
        })
    }

    /// Waits for a turn to shake hands; the caller bounds the wait.
    pub async fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.handshakes).acquire_owned().await.ok()
    }
}

pub struct Stranger {
    source: IpAddr,
    all: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut strangers = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = strangers.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                strangers.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_the_places_of_others() {
        let limits = Limits::new(1000);
        let (greedy, modest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = std::iter::from_fn(|| limits.stranger(greedy)).collect();
        assert_eq!(held.len(), 64);
        assert!(limits.stranger(modest).is_some());
        held.pop();
        assert!(limits.stranger(greedy).is_some());
    }

    #[test]
    fn sources_that_left_are_forgotten() {
        let limits = Limits::new(1);
        for last in 0..=255 {
            drop(limits.stranger(IpAddr::from([10, 0, 0, last])));
        }
        assert!(limits.strangers.lock().unwrap().is_empty());
    }

    #[test]
    fn the_number_of_connections_follows_memory_and_files() {
        assert_eq!(max_connections(None, None), 10_000);
        assert_eq!(max_connections(Some(256 << 20), None), 10_000);
        assert_eq!(max_connections(Some(64 << 20), None), 2560);
        assert_eq!(max_connections(Some(1), None), 64);
        assert_eq!(max_connections(Some(64 << 20), Some(1024)), 448);
        assert_eq!(max_connections(None, Some(20)), 64);
        let limits = Limits::new(1);
        let only = limits.connection();
        assert!(only.is_some() && limits.connection().is_none());
    }
}
