//! How many connections there may be: of all, of one stranger, in a handshake.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// More would need more descriptors and ports than a pod has by default.
const MAX_CONNECTIONS: usize = 10_000;
/// What a connection takes at rest, TLS included. Both its sides stalled it takes about three
/// times that: 16 KiB read and not delivered, the same sealed and not sent.
const BYTES_PER_CONNECTION: u64 = 16 * 1024;
/// The sidecar without connections.
const BYTES_AT_REST: u64 = 24 * 1024 * 1024;
/// A sidecar with a tiny memory limit still serves.
const MIN_CONNECTIONS: usize = 64;
/// Handshakes of one address at a time; more of its connections wait for their turn. A pool that
/// warms up opens hundreds at once, and is no attack.
const MAX_HANDSHAKES_PER_SOURCE: usize = 64;
/// Connections of one address that have not proved anything, waiting ones included.
const MAX_STRANGERS_PER_SOURCE: usize = 1024;
/// All of them together; never more than half of all connections.
const MAX_STRANGERS: usize = 4096;

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
    inbound: Arc<Semaphore>,
    max_connections: usize,
    max_strangers: usize,
    strangers: Arc<Mutex<Strangers>>,
}

#[derive(Default)]
struct Strangers {
    count: usize,
    sources: HashMap<IpAddr, Source>,
}

struct Source {
    count: usize,
    handshakes: Arc<Semaphore>,
}

impl Limits {
    pub fn new(max_connections: usize) -> Self {
        Self {
            connections: Arc::new(Semaphore::new(max_connections)),
            inbound: Arc::new(Semaphore::new(max_connections - max_connections / 4)),
            max_connections,
            max_strangers: MAX_STRANGERS.min(max_connections / 2),
            strangers: Arc::default(),
        }
    }

    /// A place for a connection of our application, or `None` if there is no more.
    pub fn outbound(&self) -> Option<Place> {
        let any = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some(Place {
            _any: any,
            _inbound: None,
        })
    }

    /// A place for a connection to our application, or `None` if there is no more. A quarter of
    /// all places is the application's own: no crowd from outside can silence it.
    pub fn inbound(&self) -> Option<Place> {
        let inbound = Arc::clone(&self.inbound).try_acquire_owned().ok()?;
        let any = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some(Place {
            _any: any,
            _inbound: Some(inbound),
        })
    }

    /// Connections that have a place now, set up or not.
    pub fn open_connections(&self) -> usize {
        self.max_connections
            .saturating_sub(self.connections.available_permits())
    }

    /// A place in the queue of clients that have not proved who they are, or `None` if there are
    /// too many of them, or of this address.
    pub fn queue(&self, address: IpAddr) -> Option<Queued> {
        let mut strangers = self.strangers();
        if strangers.count >= self.max_strangers {
            return None;
        }
        let source = strangers.sources.entry(address).or_insert_with(|| Source {
            count: 0,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES_PER_SOURCE)),
        });
        if source.count >= MAX_STRANGERS_PER_SOURCE {
            return None;
        }
        source.count = source.count.saturating_add(1);
        let handshakes = Arc::clone(&source.handshakes);
        strangers.count = strangers.count.saturating_add(1);
        Some(Queued {
            address,
            handshakes,
            limits: self.clone(),
        })
    }

    /// Whether strangers hold so many places that each gets less time: some addresses that only
    /// hold places must not keep out the others.
    pub fn is_crowded(&self) -> bool {
        self.strangers().count > self.max_strangers / 2
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
pub struct Place {
    _any: OwnedSemaphorePermit,
    _inbound: Option<OwnedSemaphorePermit>,
}

/// A client that has not proved who it is, and waits.
pub struct Queued {
    address: IpAddr,
    handshakes: Arc<Semaphore>,
    limits: Limits,
}

/// A client whose turn it is.
pub struct Shaking {
    _turn: Option<OwnedSemaphorePermit>,
    _queued: Queued,
}

impl Queued {
    /// Waits for a turn to shake hands; the caller bounds the wait.
    pub async fn turn(self) -> Shaking {
        // the semaphore is never closed
        let turn = Arc::clone(&self.handshakes).acquire_owned().await.ok();
        Shaking {
            _turn: turn,
            _queued: self,
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut strangers = self.limits.strangers();
        strangers.count = strangers.count.saturating_sub(1);
        if let Some(source) = strangers.sources.get_mut(&self.address) {
            source.count = source.count.saturating_sub(1);
            if source.count == 0 {
                strangers.sources.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_take_the_places_of_others() {
        let limits = Limits::new(10_000);
        let (greedy, modest) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut held: Vec<_> = std::iter::from_fn(|| limits.queue(greedy)).collect();
        assert_eq!(held.len(), 1024);
        assert!(limits.queue(modest).is_some());
        held.pop();
        assert!(limits.queue(greedy).is_some());
    }

    #[test]
    fn all_strangers_together_are_bounded_and_crowded_before_that() {
        let limits = Limits::new(10_000);
        let mut held = Vec::new();
        for last in 1..=8 {
            held.extend(std::iter::from_fn(|| {
                limits.queue(IpAddr::from([10, 0, 0, last]))
            }));
        }
        assert_eq!(held.len(), 4096);
        assert!(limits.is_crowded());
        held.truncate(2048);
        assert!(!limits.is_crowded());
    }

    #[tokio::test]
    async fn a_burst_of_one_source_waits_for_its_turns_and_is_not_refused() {
        let limits = Limits::new(10_000);
        let source = IpAddr::from([10, 0, 0, 1]);
        let mut shaking = Vec::new();
        for _ in 0..64 {
            shaking.push(limits.queue(source).unwrap().turn().await);
        }
        let mut waiting = Box::pin(limits.queue(source).unwrap().turn());
        assert!(futures::poll!(&mut waiting).is_pending());
        shaking.pop();
        waiting.await;
    }

    #[test]
    fn sources_that_left_are_forgotten() {
        let limits = Limits::new(100);
        for last in 0..=255 {
            drop(limits.queue(IpAddr::from([10, 0, 0, last])));
        }
        assert!(limits.strangers().sources.is_empty());
        assert_eq!(limits.strangers().count, 0);
    }

    #[test]
    fn a_crowd_from_outside_leaves_places_for_the_application() {
        let limits = Limits::new(8);
        let crowd: Vec<_> = std::iter::from_fn(|| limits.inbound()).collect();
        assert_eq!((crowd.len(), limits.open_connections()), (6, 6));
        assert!(limits.outbound().is_some());
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
        let only = limits.outbound();
        assert!(only.is_some() && limits.outbound().is_none());
    }
}
