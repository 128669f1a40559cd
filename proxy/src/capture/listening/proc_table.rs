//! The listening sockets in /proc/self/net/tcp and tcp6, which list every connection besides.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ListeningError, ListeningSocket};
use crate::capture::rules::Family;

/// A line has 150 bytes; this is room for 400,000 connections. Beyond it nothing is concluded.
pub(super) const MAX_TABLE: u64 = 64 * 1024 * 1024;
const LISTEN: &str = "0A";

/// Every listening TCP socket of this network namespace. Blocks for as long as the kernel takes
/// to walk its table of connections.
///
/// # Errors
/// The tables cannot be read or understood.
pub(super) fn read() -> Result<Vec<ListeningSocket>, ListeningError> {
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
