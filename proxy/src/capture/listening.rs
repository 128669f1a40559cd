//! Who listens in this network namespace, read from /proc/self/net/tcp and tcp6.
//!
//! With explicit capture no rule keeps the network away from an application's port: the
//! application itself must listen on loopback only. This finds the one that does not.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::rules::Family;

/// How often explicit capture looks again.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// A line has 150 bytes; this is room for 400,000 connections. Beyond it nothing is concluded.
const MAX_TABLE: u64 = 64 * 1024 * 1024;
const LISTEN: &str = "0A";

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

/// Every listening TCP socket of this network namespace. Reads files: blocks.
///
/// # Errors
/// The kernel's tables cannot be read or understood.
pub fn listening_sockets() -> Result<Vec<ListeningSocket>, ListeningError> {
    let mut sockets = Vec::new();
    for (path, family) in [
        ("/proc/self/net/tcp", Family::V4),
        ("/proc/self/net/tcp6", Family::V6),
    ] {
        match File::open(path) {
            Ok(file) => sockets.extend(parse(path, family, file)?),
            // No such family on this host.
            Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ListeningError::Read { path, source }),
        }
    }
    Ok(sockets)
}

fn parse(
    path: &'static str,
    family: Family,
    table: impl Read,
) -> Result<Vec<ListeningSocket>, ListeningError> {
    let mut sockets = Vec::new();
    let mut table = BufReader::new(table.take(MAX_TABLE));
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let length = table
            .read_until(b'\n', &mut text)
            .map_err(|source| ListeningError::Read { path, source })?;
        if length == 0 {
            break;
        }
        // The first line is a heading.
        if line == 1 {
            continue;
        }
        let read = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| parse_line(family, text));
        let Some(socket) = read else {
            let text = String::from_utf8_lossy(&text).chars().take(200).collect();
            return Err(ListeningError::Line { path, line, text });
        };
        sockets.extend(socket);
    }
    if table.get_ref().limit() == 0 {
        return Err(ListeningError::TooLong { path });
    }
    Ok(sockets)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid …`; the inner `None` is a
/// socket in another state.
fn parse_line(family: Family, line: &str) -> Option<Option<ListeningSocket>> {
    let mut columns = line.split_ascii_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    let uid = columns.nth(3)?.parse().ok()?;
    if state.len() != 2 || !state.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = parse_hex(port, 4)?;
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(parse_word(address)?)),
        Family::V6 => parse_v6(address)?.to_canonical(),
    };
    let address = SocketAddr::new(ip, u16::try_from(port).ok()?);
    Some((state == LISTEN).then_some(ListeningSocket { address, uid }))
}

/// Four words of 32 bits, each printed in the host's byte order.
fn parse_v6(text: &str) -> Option<IpAddr> {
    let mut octets = Vec::with_capacity(16);
    for start in [0, 8, 16, 24] {
        octets.extend(parse_word(text.get(start..start + 8)?)?);
    }
    let octets: [u8; 16] = octets.try_into().ok()?;
    (text.len() == 32).then(|| IpAddr::V6(Ipv6Addr::from(octets)))
}

fn parse_word(text: &str) -> Option<[u8; 4]> {
    Some(parse_hex(text, 8)?.to_ne_bytes())
}

fn parse_hex(text: &str, digits: usize) -> Option<u32> {
    let plain = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests;
