//! Asks the kernel over netlink: one question, and its answer whole or not at all.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use tokio::time::Instant;

/// The kernel answers at once; a full table takes it some milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel never makes a larger datagram for a dump, whatever room it is offered.
const MAX_DATAGRAM: usize = 32 * 1024;
/// Room for 100,000 sockets. A message has 16 bytes at least: this bounds their number too.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Of what is not understood, so much is shown.
const QUOTED: usize = 160;

// From linux/netlink.h.
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Below are netlink's own messages.
const NLMSG_MIN_TYPE: u16 = 0x10;
/// Every question has a socket of its own and is the first on it.
const SEQUENCE: u32 = 1;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    #[error("could not ask the kernel over netlink")]
    Ask(#[source] io::Error),
    #[error("the kernel refused what it was asked over netlink")]
    Refused(#[source] io::Error),
    #[error("the kernel did not answer over netlink within {} s", ANSWER_TIMEOUT.as_secs())]
    NoAnswer,
    #[error("the kernel's answer over netlink is longer than {MAX_ANSWER} bytes")]
    TooLong,
    #[error("what was asked over netlink changed while the kernel answered")]
    Changed,
    #[error("the kernel's answer over netlink is not understood: {0:02x?}")]
    Garbled(Vec<u8>),
}

impl NetlinkError {
    /// This kernel has not what was asked for: no such protocol, or nobody behind it.
    pub(super) fn is_unsupported(&self) -> bool {
        let is = |error: &io::Error, errno| Errno::from_io_error(error) == Some(errno);
        match self {
            Self::Ask(error) => is(error, Errno::PROTONOSUPPORT),
            Self::Refused(error) => is(error, Errno::NOENT),
            Self::NoAnswer | Self::TooLong | Self::Changed | Self::Garbled(_) => false,
        }
    }

    fn garbled(bytes: &[u8]) -> Self {
        Self::Garbled(bytes.iter().take(QUOTED).copied().collect())
    }
}

/// What to ask, and of which part of the kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) protocol: Protocol,
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

/// One message of an answer, without its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) body: &'a [u8],
}

/// Has the kernel do something. Blocks for its acknowledgement.
///
/// # Errors
/// The kernel cannot or would not.
pub(super) fn command(question: Question<'_>) -> Result<(), NetlinkError> {
    exchange(question, NLM_F_ACK, &mut Answer::acknowledged())
}

/// Has the kernel list something: gives `take` each message, which returns `None` for one it
/// does not understand. Blocks until the list's end.
///
/// # Errors
/// The list is not complete or not understood. What `take` was given is then worth nothing.
pub(super) fn dump(
    question: Question<'_>,
    take: impl FnMut(Message<'_>) -> Option<()>,
) -> Result<(), NetlinkError> {
    exchange(question, NLM_F_DUMP, &mut Answer::listed(take))
}

/// The `N` bytes of `bytes` from `at`, if it has so many.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn exchange<T: FnMut(Message<'_>) -> Option<()>>(
    question: Question<'_>,
    flags: u16,
    answer: &mut Answer<T>,
) -> Result<(), NetlinkError> {
    let ask = |error: Errno| NetlinkError::Ask(error.into());
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(question.protocol),
    )
    .map_err(ask)?;
    // Connected to port 0, the socket takes messages of the kernel only.
    connect(&socket, &SocketAddrNetlink::new(0, 0)).map_err(ask)?;
    let request = request(question, flags);
    let sent = send(&socket, &request, SendFlags::empty()).map_err(ask)?;
    if sent != request.len() {
        return Err(NetlinkError::Ask(io::ErrorKind::WriteZero.into()));
    }
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let length = receive(&socket, &mut buffer, deadline)?;
        // With MSG_TRUNC a datagram has its own length, also where it was cut.
        let datagram = buffer
            .get(..length)
            .ok_or_else(|| NetlinkError::garbled(&buffer))?;
        if answer.read(datagram)?.is_break() {
            return Ok(());
        }
    }
}

fn request(question: Question<'_>, flags: u16) -> Vec<u8> {
    let length = HEADER + question.body.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(question.kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(SEQUENCE.to_ne_bytes());
    message.extend([0; 4]); // port: the kernel knows this socket's
    message.extend(question.body);
    message
}

fn receive(socket: &OwnedFd, buffer: &mut [u8], deadline: Instant) -> Result<usize, NetlinkError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NetlinkError::NoAnswer);
        }
        let left = Timespec::try_from(left).map_err(|_| NetlinkError::NoAnswer)?;
        let ready = match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)) {
            Ok(ready) => ready,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(NetlinkError::Ask(error.into())),
        };
        if ready == 0 {
            return Err(NetlinkError::NoAnswer);
        }
        let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        match recv(socket.as_fd(), &mut *buffer, flags) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(NetlinkError::Ask(error.into())),
        }
    }
}

/// An answer as far as it has come.
struct Answer<T> {
    /// The message that ends it: an acknowledgement is an "error" of code 0.
    ends_with: u16,
    received: usize,
    take: T,
}

impl Answer<fn(Message<'_>) -> Option<()>> {
    /// Nothing is to come but the acknowledgement.
    fn acknowledged() -> Self {
        Self {
            ends_with: NLMSG_ERROR,
            received: 0,
            take: |_| None,
        }
    }
}

impl<T: FnMut(Message<'_>) -> Option<()>> Answer<T> {
    fn listed(take: T) -> Self {
        Self {
            ends_with: NLMSG_DONE,
            received: 0,
            take,
        }
    }

    /// Reads the next datagram; breaks at the answer's end.
    fn read(&mut self, datagram: &[u8]) -> Result<ControlFlow<()>, NetlinkError> {
        self.received = self.received.saturating_add(datagram.len());
        if self.received > MAX_ANSWER {
            return Err(NetlinkError::TooLong);
        }
        let mut rest = datagram;
        loop {
            let garbled = || NetlinkError::garbled(rest);
            let (header, message, behind) = split(rest).ok_or_else(garbled)?;
            if header.sequence != SEQUENCE {
                return Err(garbled());
            }
            if header.flags & NLM_F_DUMP_INTR != 0 {
                return Err(NetlinkError::Changed);
            }
            match message.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    let code = field(message.body, 0).map(i32::from_ne_bytes);
                    return match code.ok_or_else(garbled)? {
                        code if code < 0 => Err(NetlinkError::Refused(
                            io::Error::from_raw_os_error(code.saturating_neg()),
                        )),
                        0 if message.kind == self.ends_with && behind.is_empty() => {
                            Ok(ControlFlow::Break(()))
                        }
                        _ => Err(garbled()),
                    };
                }
                // NOOP, OVERRUN and what may be invented: no part of a complete answer.
                ..NLMSG_MIN_TYPE => return Err(garbled()),
                _ => (self.take)(message).ok_or_else(garbled)?,
            }
            if behind.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            rest = behind;
        }
    }
}

struct Header {
    flags: u16,
    sequence: u32,
}

/// The first message of `bytes`, and what is behind it. Lengths are as the kernel says, or
/// nothing is.
fn split(bytes: &[u8]) -> Option<(Header, Message<'_>, &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
    let kind = u16::from_ne_bytes(field(bytes, 4)?);
    let header = Header {
        flags: u16::from_ne_bytes(field(bytes, 6)?),
        sequence: u32::from_ne_bytes(field(bytes, 8)?),
    };
    let body = bytes.get(HEADER..length)?;
    // Messages begin at multiples of 4; the last need not be filled up.
    let next = length.checked_next_multiple_of(4)?;
    let behind = bytes.get(next..).unwrap_or_default();
    Some((header, Message { kind, body }, behind))
}

#[cfg(test)]
mod tests;
