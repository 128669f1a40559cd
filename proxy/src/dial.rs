//! Opening connections: to the application, to another sidecar, to the outside.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::socket;

/// Our own connections: one that comes back to us is a loop. Both addresses name one, because
/// the kernel uses a local port for several destinations at a time.
#[derive(Clone, Default)]
pub struct OwnConnections(Arc<Mutex<HashSet<Addresses>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Addresses {
    local: SocketAddr,
    target: SocketAddr,
}

impl OwnConnections {
    /// Whether a connection that `peer` opened towards `target` is one of our own.
    pub fn contains(&self, peer: SocketAddr, target: SocketAddr) -> bool {
        self.open().contains(&Addresses {
            local: peer,
            target,
        })
    }

    fn enter(&self, local: SocketAddr, target: SocketAddr) -> OwnConnection {
        let addresses = Addresses { local, target };
        self.open().insert(addresses);
        OwnConnection {
            addresses,
            all: self.clone(),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashSet<Addresses>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection known as our own.
pub struct OwnConnection {
    addresses: Addresses,
    all: OwnConnections,
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.all.open().remove(&self.addresses);
    }
}

/// A connection that we opened. Known as our own until it is dropped.
pub struct Dialled {
    pub socket: TcpStream,
    own: OwnConnection,
}

impl Dialled {
    pub fn into_parts(self) -> (TcpStream, OwnConnection) {
        (self.socket, self.own)
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    #[error("{0} did not accept the connection: {1}")]
    Refused(SocketAddr, io::Error),
    #[error(
        "{0} did not answer in time: is it there, and does a NetworkPolicy let us reach this port?"
    )]
    Timeout(SocketAddr),
    /// See `net.ipv4.ip_local_port_range` and `net.ipv4.tcp_tw_reuse`.
    #[error(
        "no local port is free for another connection to {0}: widen net.ipv4.ip_local_port_range or set net.ipv4.tcp_tw_reuse=1"
    )]
    NoLocalPort(SocketAddr),
}

/// # Errors
/// If `target` does not accept until `deadline`.
pub async fn dial(
    target: SocketAddr,
    deadline: Instant,
    own: &OwnConnections,
) -> Result<Dialled, DialError> {
    let refused = |error: io::Error| match Errno::from_io_error(&error) {
        Some(Errno::ADDRNOTAVAIL) => DialError::NoLocalPort(target),
        Some(Errno::TIMEDOUT) => DialError::Timeout(target),
        _ => DialError::Refused(target, error),
    };
    let (stream, own) = begin(target, own).map_err(refused)?;
    timeout_at(deadline, stream.writable())
        .await
        .map_err(|_| DialError::Timeout(target))?
        .map_err(refused)?;
    match stream.take_error() {
        Ok(None) => Ok(Dialled {
            socket: stream,
            own,
        }),
        Ok(Some(error)) | Err(error) => Err(refused(error)),
    }
}

/// Begins to connect and registers the local address at once: if capture does not exempt us,
/// the connection may be back before it is established.
fn begin(target: SocketAddr, own: &OwnConnections) -> io::Result<(TcpStream, OwnConnection)> {
    let connecting = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    connecting.set_nonblocking(true)?;
    match connecting.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    let stream = TcpStream::from_std(connecting.into())?;
    let entry = own.enter(stream.local_addr()?, target);
    socket::prepare(&stream)?;
    Ok((stream, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_ours_that_the_application_uses_towards_another_destination_is_no_loop() {
        let own = OwnConnections::default();
        let local = SocketAddr::from(([10, 0, 0, 1], 41_000));
        let (ours, other) = (
            SocketAddr::from(([10, 0, 0, 2], 80)),
            SocketAddr::from(([10, 0, 0, 3], 80)),
        );
        let to_ours = own.enter(local, ours);
        let to_other = own.enter(local, other);
        assert!(own.contains(local, ours) && own.contains(local, other));
        drop(to_other);
        assert!(own.contains(local, ours));
        assert!(!own.contains(local, other));
        drop(to_ours);
        assert!(!own.contains(local, ours));
    }
}
