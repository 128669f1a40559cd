//! What two sidecars say to each other inside TLS, ALPN `mesh-lite/1`.
//!
//! ```text
//! dialler → server   "ML1" | flags u8 = 0 | family u8 = 4|6 | reserved u8 = 0 | port u16
//!                    | original destination, 4 or 16 bytes | n u16 | trace id, n ≤ 64 bytes
//! server → dialler   status u8 | n u8 | what decided, n ≤ 200 bytes; then raw bytes both ways
//! ```
//!
//! The dialler may send the application's bytes right behind the header. The original
//! destination and the trace id are claims of the dialler, for logs: nothing is decided by them.
//! What decided is a claim of the server, for logs as well: see [`DecidedBy`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::answer::{
    Answer, DecidedBy, EncodedAnswer, InvalidAnswer, MAX_ANSWER, MAX_DECIDED_BY, Status,
};

mod answer;

/// ALPN protocol: one application connection on one TLS connection.
pub const ALPN: &[u8] = b"mesh-lite/1";
/// The longest header: fixed part, an IPv6 address, the longest trace id.
pub const MAX_HEADER: usize = FIXED + 16 + 2 + MAX_TRACE_ID;
pub const MAX_TRACE_ID: usize = 64;

const MAGIC: [u8; 3] = *b"ML1";
/// magic, flags, family, reserved, port
const FIXED: usize = 8;

/// What the dialler asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Port of the application, in the pod that is dialled.
    pub port: u16,
    /// What the dialler's application had dialled. A claim, for logs only.
    pub original_destination: IpAddr,
    /// Visible ASCII, at most [`MAX_TRACE_ID`] bytes. A claim, for logs only.
    pub trace_id: TraceId,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId {
    bytes: [u8; MAX_TRACE_ID],
    len: u8,
}

impl TraceId {
    pub const NONE: Self = Self {
        bytes: [0; MAX_TRACE_ID],
        len: 0,
    };

    /// `None` if it is too long or holds anything but visible ASCII, which would end up in logs.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_TRACE_ID];
        if !text.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        Some(Self {
            bytes,
            len: u8::try_from(text.len()).ok()?,
        })
    }

    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// A header in its wire form.
#[derive(Debug, Clone, Copy)]
pub struct EncodedHeader {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl EncodedHeader {
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        if let Some(space) = self.bytes.get_mut(self.len..end) {
            space.copy_from_slice(part);
            self.len = end;
        }
    }
}

impl Header {
    pub fn encode(&self) -> EncodedHeader {
        let mut out = EncodedHeader {
            bytes: [0; MAX_HEADER],
            len: 0,
        };
        let (family, v4, v6);
        let address: &[u8] = match self.original_destination {
            IpAddr::V4(address) => {
                v4 = address.octets();
                family = 4;
                &v4
            }
            IpAddr::V6(address) => {
                v6 = address.octets();
                family = 6;
                &v6
            }
        };
        let trace_id = self.trace_id.as_str().as_bytes();
        out.push(&MAGIC);
        out.push(&[0, family, 0]);
        out.push(&self.port.to_be_bytes());
        out.push(address);
        out.push(&u16::from(self.trace_id.len).to_be_bytes());
        out.push(trace_id);
        out
    }

    /// Reads a header from the start of `bytes`: the header and how many bytes it took, or
    /// `None` if more bytes are needed. Whatever can be refused by the bytes that are here is.
    ///
    /// # Errors
    /// Names the first field that is not as the format says.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, InvalidHeader> {
        let mut rest = bytes;
        let magic_here = bytes.len().min(MAGIC.len());
        if bytes.get(..magic_here) != MAGIC.get(..magic_here) {
            return Err(InvalidHeader::Magic);
        }
        let Some(&[_, _, _, flags, family, reserved, port_high, port_low]) = take(&mut rest) else {
            return match bytes.get(3..) {
                Some([flags, ..]) if *flags != 0 => Err(InvalidHeader::Flags(*flags)),
                _ => Ok(None),
            };
        };
        if flags != 0 {
            return Err(InvalidHeader::Flags(flags));
        }
        if reserved != 0 {
            return Err(InvalidHeader::Reserved(reserved));
        }
        let port = u16::from_be_bytes([port_high, port_low]);
        if port == 0 {
            return Err(InvalidHeader::PortZero);
        }
        let original_destination = match family {
            4 => take::<4>(&mut rest).map(|octets| IpAddr::V4(Ipv4Addr::from(*octets))),
            6 => take::<16>(&mut rest).map(|octets| IpAddr::V6(Ipv6Addr::from(*octets))),
            other => return Err(InvalidHeader::Family(other)),
        };
        let Some(original_destination) = original_destination else {
            return Ok(None);
        };
        let Some(length) = take::<2>(&mut rest).map(|length| u16::from_be_bytes(*length)) else {
            return Ok(None);
        };
        let length = usize::from(length);
        if length > MAX_TRACE_ID {
            return Err(InvalidHeader::TraceIdTooLong(length));
        }
        let Some((trace_id, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        let trace_id = TraceId::new(trace_id).ok_or(InvalidHeader::TraceIdNotVisibleAscii)?;
        let header = Self {
            port,
            original_destination,
            trace_id,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(head)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHeader {
    #[error("the tunnel header does not begin with ML1")]
    Magic,
    #[error("the tunnel header has unknown flags {0:#04x}")]
    Flags(u8),
    #[error("the tunnel header's reserved byte is {0:#04x}, not 0")]
    Reserved(u8),
    #[error("the tunnel header names address family {0}, not 4 or 6")]
    Family(u8),
    #[error("the tunnel header names port 0")]
    PortZero,
    #[error("the tunnel header's trace id has {0} bytes, more than {MAX_TRACE_ID}")]
    TraceIdTooLong(usize),
    #[error("the tunnel header's trace id is not visible ASCII")]
    TraceIdNotVisibleAscii,
}

#[cfg(test)]
mod tests;
