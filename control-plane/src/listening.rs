//! A socket to listen on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Linux: this kernel has no such family of addresses.
const EAFNOSUPPORT: i32 = 97;

/// `[::]` takes calls over IPv4 too. Where there is no IPv6 it is IPv4's `0.0.0.0`: the manifests
/// are the same for every cluster.
///
/// # Errors
/// If the address can't be listened on.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = match TcpListener::bind(address).await {
        Ok(socket) => socket,
        Err(error) => match in_its_place(address, &error) {
            Some(address) => TcpListener::bind(address).await?,
            None => return Err(error),
        },
    };
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// `None`: an address that was asked for is never exchanged for one that takes more calls.
fn in_its_place(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let no_ipv6 = error.kind() == io::ErrorKind::AddrNotAvailable
        || error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(EAFNOSUPPORT);
    let is_any = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    (no_ipv6 && is_any).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_takes_calls_over_ipv4() {
        let (socket, bound) = listen("[::]:0".parse().unwrap()).await.unwrap();
        let called = TcpStream::connect((Ipv4Addr::LOCALHOST, bound.port()));
        let (accepted, called) = tokio::join!(socket.accept(), called);
        assert_eq!(
            accepted.unwrap().1.port(),
            called.unwrap().local_addr().unwrap().port()
        );
    }

    #[test]
    fn without_ipv6_every_address_is_ipv4s() {
        let error = io::Error::from_raw_os_error(EAFNOSUPPORT);
        let instead = in_its_place("[::]:15012".parse().unwrap(), &error);
        assert_eq!(instead, Some("0.0.0.0:15012".parse().unwrap()));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_or_is_one_of_many_stays_as_it_is() {
        let (_taken, bound) = listen("[::]:0".parse().unwrap()).await.unwrap();
        let error = listen(bound).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let no_ipv6 = io::Error::from_raw_os_error(EAFNOSUPPORT);
        for address in ["[::1]:15012", "127.0.0.1:15012", "0.0.0.0:15012"] {
            assert_eq!(in_its_place(address.parse().unwrap(), &no_ipv6), None);
        }
    }
}
