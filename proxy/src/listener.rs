//! Listening, and accepting without ever ending or spinning.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{metrics::Metrics, socket};

/// What waits in the kernel while handshakes are at their limit.
const BACKLOG: i32 = 1024;
/// Out of descriptors or memory: trying again at once would only burn the CPU.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// A connection that somebody opened to us. Nothing is known of it but addresses.
pub struct Accepted {
    pub socket: TcpStream,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    pub at: Instant,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "can't listen on {address}: {source}. Is another process using the port? Each listener has a setting for its address."
)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// # Errors
/// If the address can't be listened on.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    listen(address).map_err(|source| ListenError { address, source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // one listener for both families on the wildcard address, one family elsewhere
        socket.set_only_v6(address.ip() != Ipv6Addr::UNSPECIFIED)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection, however often the system refuses to hand one over.
pub async fn accept(listener: &TcpListener, metrics: &Metrics) -> Accepted {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let prepared = socket::prepare(&stream).and_then(|()| stream.local_addr());
                let Ok(local) = prepared else { continue };
                return Accepted {
                    socket: stream,
                    peer: canonical(peer),
                    local: canonical(local),
                    at: Instant::now(),
                };
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                metrics.accept_failed(&error);
                tracing::warn!(%error, "accepting failed; trying again shortly");
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
}

/// IPv4 on a dual-stack socket shows as a mapped IPv6 address; nobody should see that.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
