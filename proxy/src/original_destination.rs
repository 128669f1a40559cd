//! Whom a captured connection was meant for, as the kernel remembers it.

use std::{io, net::SocketAddr};

use socket2::SockRef;

use crate::listener::Accepted;

/// How a listener learns the original destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginalDestination {
    /// From the kernel's connection tracking.
    Captured,
    /// There is none: the listener stands for one destination.
    Explicit,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotCaptured {
    /// Somebody dialled the listener itself, or capture is not installed.
    #[error("the connection was not redirected here, so nobody knows where it wanted to go")]
    Direct,
    #[error("the kernel does not tell the original destination: {0}")]
    Unknown(io::Error),
}

/// # Errors
/// If the kernel has no record, or if the record says that the connection was not redirected.
/// There is no default: a guess would send bytes where nobody meant them to go.
pub fn original_destination(accepted: &Accepted) -> Result<SocketAddr, NotCaptured> {
    let socket = SockRef::from(&accepted.socket);
    let found = if accepted.peer.is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    let original = found.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NotCaptured::Direct,
        _ => NotCaptured::Unknown(error),
    })?;
    let original = original
        .as_socket()
        .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
        .ok_or(NotCaptured::Direct)?;
    if original == accepted.local {
        Err(NotCaptured::Direct)
    } else {
        Ok(original)
    }
}
