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
    socket::prepare(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The next connection, however often the system refuses to hand one over.
pub async fn accept(listener: &TcpListener, metrics: &Metrics) -> Accepted {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Ok(local) = stream.local_addr() else {
                    continue;
                };
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
                if !said {
                    said = true;
                    tracing::warn!(%error, "accepting fails; trying again until it works");
                }
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

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;
    use crate::metrics::MetricsPrefix;

    #[tokio::test]
    async fn what_is_accepted_has_every_option_from_its_first_moment() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let metrics = Metrics::new(&MetricsPrefix::default(), 10);
        let address = listener.local_addr().unwrap();
        let (dialled, accepted) =
            tokio::join!(TcpStream::connect(address), accept(&listener, &metrics));
        let socket = SockRef::from(&accepted.socket);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(25)
        );
        assert_eq!(accepted.peer, dialled.unwrap().local_addr().unwrap());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_in_the_error() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
