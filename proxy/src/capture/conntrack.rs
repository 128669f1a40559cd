//! Makes the kernel forget connections it already tracks in this network namespace.
//!
//! NAT rules are asked only for a connection's first packet. An entry from before the rules
//! would let an application's connection of the same four-tuple go by uncaptured.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The kernel answers at once; a full table takes it some milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

// From linux/netlink.h, linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// `nlmsghdr`, then `nfgenmsg`: any family, version 0, which together mean "all".
const REQUEST: usize = 16 + 4;
/// The kernel's acknowledgement quotes the request behind its 20 bytes.
const ANSWER: usize = 16 + 4 + REQUEST + 64;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    #[error(
        "could not ask the kernel to forget tracked connections (is nf_conntrack_netlink there?)"
    )]
    Ask(#[source] io::Error),
    #[error("the kernel would not forget tracked connections (NET_ADMIN is needed)")]
    Refused(#[source] io::Error),
    #[error("the kernel did not answer within {} s when asked to forget tracked connections", ANSWER_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("the kernel's answer about tracked connections is not understood: {0:02x?}")]
    Garbled(Vec<u8>),
}

/// Forgets every tracked connection of this network namespace.
///
/// # Errors
/// The kernel cannot or would not.
pub fn flush() -> Result<(), FlushError> {
    let ask = |error: rustix::io::Errno| FlushError::Ask(error.into());
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )
    .map_err(ask)?;
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0)).map_err(ask)?;
    rustix::net::send(&socket, &request(), SendFlags::empty()).map_err(ask)?;
    wait(&socket)?;
    let mut answer = [0; ANSWER];
    let (length, _) =
        rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()).map_err(ask)?;
    understand(answer.get(..length).unwrap_or_default())
}

fn wait(socket: &OwnedFd) -> Result<(), FlushError> {
    let timeout = Timespec {
        tv_sec: ANSWER_TIMEOUT.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout)) {
        Ok(0) => Err(FlushError::NoAnswer),
        Ok(_) => Ok(()),
        Err(error) => Err(FlushError::Ask(error.into())),
    }
}

fn request() -> Vec<u8> {
    let kind = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE;
    let mut message = Vec::with_capacity(REQUEST);
    message.extend((REQUEST as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: one question, one answer
    message.extend([0; 4]); // nfgenmsg
    message
}

fn understand(answer: &[u8]) -> Result<(), FlushError> {
    let garbled = || FlushError::Garbled(answer.to_vec());
    let kind = answer
        .get(4..6)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u16::from_ne_bytes);
    let code = answer
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match (kind, code) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) if code < 0 => Err(FlushError::Refused(
            io::Error::from_raw_os_error(code.saturating_neg()),
        )),
        _ => Err(garbled()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u16, code: i32) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(code.to_ne_bytes());
        bytes
    }

    #[test]
    fn asks_for_all_families_and_an_acknowledgement() {
        let message = request();
        assert_eq!(message.len(), 20);
        assert_eq!(message[4..6], 0x0102_u16.to_ne_bytes());
        assert_eq!(message[6..8], 5_u16.to_ne_bytes());
        assert!(message[8..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn code_zero_is_done() {
        understand(&answer(NLMSG_ERROR, 0)).unwrap();
    }

    #[test]
    fn a_refusal_carries_the_kernels_reason() {
        let refused = understand(&answer(NLMSG_ERROR, -1)).unwrap_err();
        assert!(
            matches!(&refused, FlushError::Refused(reason) if reason.raw_os_error() == Some(1))
        );
    }

    #[test]
    fn anything_else_is_not_taken_for_done() {
        for garbled in [vec![], vec![0; 19], answer(3, 0), answer(NLMSG_ERROR, 7)] {
            assert!(matches!(understand(&garbled), Err(FlushError::Garbled(_))));
        }
    }
}
