//! Options that every socket of the data path has, and a socket as `rustls` wants it.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Shorter than the 60 s that connection tracking keeps a half-closed connection (and so also
/// shorter than any idle limit of a load balancer): a connection at rest stays known.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(25);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// What a connection must have from its first moment: small writes leave at once, a dead peer is
/// noticed, and if we die, the other side sees a reset and never a clean end.
///
/// # Errors
/// As the system; a socket without these options is not used.
///
/// A listening socket hands all of this down to the connections it accepts.
pub(crate) fn prepare<'a>(socket: impl Into<SockRef<'a>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

/// Both directions have ended as they should: closing may be clean.
pub(crate) fn end_cleanly(socket: &TcpStream) {
    // If this fails the other side sees a reset instead of an end: too strict, never too lax.
    let _ = SockRef::from(socket).set_linger(None);
}

pub(crate) fn end_writing(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

/// A socket as blocking code sees it: `WouldBlock` instead of waiting.
pub(crate) struct Nonblocking<'a>(pub(crate) &'a TcpStream);

impl Read for Nonblocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
