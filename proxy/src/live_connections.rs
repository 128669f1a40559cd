//! The connections that are open now: who they are, and how to cut one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use mesh_lite_proto::authorization::Decision;

use crate::{access_log::ConnectionId, metrics::Direction, tls::peer_identity::PeerIdentity};

/// What must stay true of a connection for as long as it lives.
#[derive(Debug, Clone)]
pub struct Subject {
    pub direction: Direction,
    /// `None`: plaintext, nobody has proved anything.
    pub peer: Option<Arc<PeerIdentity>>,
    /// The TCP peer's address; never an address that somebody claimed.
    pub source: IpAddr,
    /// The port dialled: in our pod if inbound, in the other if outbound.
    pub destination: SocketAddr,
}

/// Why a connection is cut though both ends would go on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CutReason {
    /// Policy changed; this is what it says now.
    Policy(Box<Decision>),
    /// The document that evicts the peer.
    Evicted(String),
    /// The root that the peer was proved by is no longer in the trust bundle.
    TrustChanged,
    /// The port takes mutual TLS only now.
    PlaintextToStrict,
    /// The sidecar ends, and the time it gave its connections is over.
    Draining,
}

/// Cuts one connection, once.
#[derive(Default)]
pub struct Cut {
    reason: OnceLock<CutReason>,
    waker: AtomicWaker,
}

impl Cut {
    pub fn cut(&self, reason: CutReason) {
        // The first reason stands.
        if self.reason.set(reason).is_ok() {
            self.waker.wake();
        }
    }

    pub fn reason(&self) -> Option<&CutReason> {
        self.reason.get()
    }

    /// Ready once the connection has been cut.
    pub fn poll_cut(&self, context: &mut Context<'_>) -> Poll<CutReason> {
        if let Some(reason) = self.reason.get() {
            return Poll::Ready(reason.clone());
        }
        self.waker.register(context.waker());
        // it may have been cut between the look and the registration
        self.reason
            .get()
            .cloned()
            .map_or(Poll::Pending, Poll::Ready)
    }
}

#[derive(Clone, Default)]
pub struct LiveConnections(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: Mutex<HashMap<ConnectionId, Arc<Live>>>,
}

pub struct Live {
    pub id: ConnectionId,
    pub subject: Subject,
    pub cut: Cut,
}

/// A connection's place among the live ones; leaves when dropped.
pub struct Registered {
    live: Arc<Live>,
    all: LiveConnections,
}

impl LiveConnections {
    /// Enters a connection. Do this before deciding on it: a change of policy after the decision
    /// then finds the connection here.
    pub fn register(&self, id: ConnectionId, subject: Subject) -> Registered {
        let live = Arc::new(Live {
            id,
            subject,
            cut: Cut::default(),
        });
        self.open().insert(id, Arc::clone(&live));
        Registered {
            live,
            all: self.clone(),
        }
    }

    pub fn count(&self) -> usize {
        self.open().len()
    }

    /// Everything that is open at this moment.
    pub fn all(&self) -> Vec<Arc<Live>> {
        self.open().values().cloned().collect()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<ConnectionId, Arc<Live>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    pub fn id(&self) -> ConnectionId {
        self.live.id
    }

    pub fn subject(&self) -> &Subject {
        &self.live.subject
    }

    pub fn cut(&self) -> &Cut {
        &self.live.cut
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.all.open().remove(&self.live.id);
    }
}
