//! Who listens in this network namespace.
//!
//! With explicit capture no rule keeps the network away from an application's port: the
//! application itself must listen on loopback only. This finds the one that does not.
//!
//! The kernel is asked for listening sockets alone (`socket_dump`). Its tables in /proc tell the
//! same (`proc_table`), but for each reading it walks its whole hash table of connections, which
//! is sized by the host's memory and not by what is in it. They are for kernels that have nothing
//! else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use self::proc_table::MAX_TABLE;
use super::netlink::NetlinkError;

mod proc_table;
mod socket_dump;

/// How often explicit capture looks again.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A socket in state LISTEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListeningSocket {
    /// IPv4 addresses mapped into IPv6 are given as IPv4.
    pub address: SocketAddr,
    /// Owner of the socket.
    pub uid: u32,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListeningError {
    #[error("the kernel did not tell who listens in this pod")]
    Dump(#[source] NetlinkError),
    #[error("could not read {path}, which tells who listens in this pod")]
    Read {
        path: &'static str,
        source: io::Error,
    },
    #[error("{path}, line {line}: not as the kernel writes it: {text:?}")]
    Line {
        path: &'static str,
        line: usize,
        text: String,
    },
    #[error("{path} is longer than {MAX_TABLE} bytes: who listens in this pod is not known")]
    TooLong { path: &'static str },
    #[error("the thread that reads who listens in this pod ended early")]
    Interrupted,
}

/// Something other than loopback can reach an application without the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "inbound port {port} is open to the network without the sidecar: a process of user {uid} \
     listens on {address}; make it listen on 127.0.0.1"
)]
pub struct Exposed {
    pub port: u16,
    pub address: SocketAddr,
    pub uid: u32,
}

/// Why explicit capture is not in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotConfined {
    #[error(transparent)]
    Exposed(#[from] Exposed),
    #[error(transparent)]
    Unknown(#[from] ListeningError),
}

/// Whether the applications behind `inbound_ports` can be reached through the sidecar only.
///
/// # Errors
/// The first listener that the network can reach, or why that is not known.
pub async fn confined(inbound_ports: &[u16]) -> Result<(), NotConfined> {
    let sockets = tokio::task::spawn_blocking(listening_sockets)
        .await
        .map_err(|_| ListeningError::Interrupted)??;
    match exposed(&sockets, inbound_ports) {
        Some(exposed) => Err(exposed.into()),
        None => Ok(()),
    }
}

/// The first of `sockets` that listens on one of `inbound_ports` beyond loopback.
pub fn exposed(sockets: &[ListeningSocket], inbound_ports: &[u16]) -> Option<Exposed> {
    let reachable = |socket: &&ListeningSocket| {
        !socket.address.ip().is_loopback() && inbound_ports.contains(&socket.address.port())
    };
    sockets.iter().find(reachable).map(|socket| Exposed {
        port: socket.address.port(),
        address: socket.address,
        uid: socket.uid,
    })
}

/// Every listening TCP socket of this network namespace. Blocks.
///
/// # Errors
/// The kernel does not tell, or not so that it is understood.
pub fn listening_sockets() -> Result<Vec<ListeningSocket>, ListeningError> {
    or_from_proc(socket_dump::read())
}

/// A kernel that could have answered and did not is an error, whatever /proc says.
fn or_from_proc(
    answer: Result<Vec<ListeningSocket>, NetlinkError>,
) -> Result<Vec<ListeningSocket>, ListeningError> {
    match answer {
        Err(error) if error.is_unsupported() => proc_table::read(),
        answer => answer.map_err(ListeningError::Dump),
    }
}

#[cfg(test)]
mod tests;
