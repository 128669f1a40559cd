//! The listening sockets as the kernel lists them when asked for no others (`sock_diag`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink::SOCK_DIAG;
use rustix::net::{AddressFamily, ipproto};

use super::ListeningSocket;
use crate::capture::netlink::{self, Message, NetlinkError, Question, field};
use crate::capture::rules::Family;

// From linux/sock_diag.h, linux/inet_diag.h and net/tcp_states.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u8 = 10;
/// `inet_diag_req_v2`.
const REQUEST: usize = 56;
/// `inet_diag_msg`; attributes follow, which vary with the kernel and are not needed.
const ANSWER: usize = 72;

/// Every listening TCP socket of this network namespace. Blocks.
///
/// # Errors
/// The kernel does not tell, or not so that it is understood.
pub(super) fn read() -> Result<Vec<ListeningSocket>, NetlinkError> {
    let mut sockets = Vec::new();
    for family in Family::BOTH {
        let body = request(family);
        let question = Question {
            protocol: SOCK_DIAG,
            kind: SOCK_DIAG_BY_FAMILY,
            body: &body,
        };
        netlink::dump(question, |message| {
            sockets.push(understand(family, message)?);
            Some(())
        })?;
    }
    Ok(sockets)
}

/// No ports and no addresses: of this family, every TCP socket that listens.
fn request(family: Family) -> Vec<u8> {
    let protocol = ipproto::TCP.as_raw().get();
    let states: u32 = 1 << TCP_LISTEN;
    let mut body = Vec::with_capacity(REQUEST);
    body.push(number(family));
    body.push(protocol as u8);
    body.extend([0; 2]); // no more than `inet_diag_msg`
    body.extend(states.to_ne_bytes());
    body.resize(REQUEST, 0);
    body
}

fn understand(family: Family, message: Message<'_>) -> Option<ListeningSocket> {
    let body = message.body;
    let [said, state] = field(body, 0)?;
    let expected = message.kind == SOCK_DIAG_BY_FAMILY
        && said == number(family)
        && state == TCP_LISTEN
        && body.len() >= ANSWER;
    if !expected {
        return None;
    }
    let port = u16::from_be_bytes(field(body, 4)?);
    let ip = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(field::<4>(body, 8)?)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(field::<16>(body, 8)?)).to_canonical(),
    };
    Some(ListeningSocket {
        address: SocketAddr::new(ip, port),
        uid: u32::from_ne_bytes(field(body, 64)?),
    })
}

/// The kernel has one byte for it.
fn number(family: Family) -> u8 {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    family.as_raw() as u8
}

#[cfg(test)]
mod tests;
