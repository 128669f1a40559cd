//! What both directions have in common.

use std::{net::SocketAddr, sync::Arc};

use rustls_pki_types::UnixTime;
use tokio::sync::watch;

use crate::{
    access_log::{AccessLog, ConnectionIds},
    account::{Account, Refused},
    authorization::enforcement::Enforcement,
    clock::Clock,
    decisions::Decisions,
    dial::{DialError, OwnConnections},
    drain::Phase,
    limits::Limits,
    listener::Accepted,
    metrics::{Direction, Metrics, Refusal},
    tls::context::TlsContext,
};

#[derive(Clone)]
pub struct DataPath {
    pub tls: watch::Receiver<Option<Arc<TlsContext>>>,
    pub enforcement: Enforcement,
    pub limits: Limits,
    pub own: OwnConnections,
    pub metrics: Metrics,
    pub log: AccessLog,
    pub decisions: Decisions,
    pub ids: ConnectionIds,
    pub phase: watch::Receiver<Phase>,
    pub clock: Clock,
}

impl DataPath {
    pub fn account(&self, direction: Direction, accepted: &Accepted) -> Account {
        let tell = (&self.metrics, &self.log, &self.decisions, self.clock);
        Account::open(self.ids.next_id(), direction, accepted.peer, tell)
    }

    /// # Errors
    /// Before the first certificate there is nothing to do but refuse: never plaintext.
    pub fn context(&self) -> Result<Arc<TlsContext>, Refused> {
        self.tls
            .borrow()
            .clone()
            .ok_or_else(|| Refusal::NotReady.into())
    }

    pub fn unix_now(&self) -> UnixTime {
        let since = (self.clock)().duration_since(std::time::SystemTime::UNIX_EPOCH);
        UnixTime::since_unix_epoch(since.unwrap_or_default())
    }

    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() == Phase::Draining
    }

    /// A connection of our own that came back to us: capture does not exempt our user.
    pub fn check_loop(&self, accepted: &Accepted, original: SocketAddr) -> Result<(), Refused> {
        if self.own.contains(accepted.peer, original) {
            return Err(Refused::because(
                Refusal::Loop,
                "this connection is the sidecar's own: capture must exempt the sidecar's user",
            ));
        }
        Ok(())
    }
}

impl From<DialError> for Refused {
    fn from(error: DialError) -> Self {
        let refusal = match &error {
            DialError::Refused(..) => Refusal::ConnectFailed,
            DialError::Timeout(_) => Refusal::ConnectTimeout,
            DialError::NoLocalPort(_) => Refusal::AddressesExhausted,
        };
        Self::because(refusal, error)
    }
}
