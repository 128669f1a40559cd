//! The server's answer to a header: yes or no, and what decided so.

use std::fmt::Write;

use crate::authorization::SourceRef;

/// What decided, at most: it is for one field of a log, and most names have a tenth of this.
pub const MAX_DECIDED_BY: usize = 200;
/// The longest answer: status, length, the longest name of what decided.
pub const MAX_ANSWER: usize = FIXED + MAX_DECIDED_BY;

/// status, length
const FIXED: usize = 2;
/// Between policy and source; no policy's name holds it.
const OPENING: &str = " (";
const CLOSING: &str = ")";
/// Stands where a name was too long.
const ELLIPSIS: char = '…';

/// Whether the server takes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    Ok = 0,
    /// Policy says no.
    Denied = 1,
    /// The application did not accept, or the port is not one to ask for.
    Refused = 2,
    ConnectTimeout = 3,
    /// The server is going away; another endpoint may be tried if no byte was taken.
    Draining = 4,
    BadHeader = 5,
    /// The server is at a limit; another endpoint may be tried if no byte was taken.
    Overloaded = 6,
}

impl Status {
    pub fn encode(self) -> u8 {
        self as u8
    }

    /// `None` for a byte that no version of this protocol sends.
    pub fn decode(byte: u8) -> Option<Self> {
        [
            Self::Ok,
            Self::Denied,
            Self::Refused,
            Self::ConnectTimeout,
            Self::Draining,
            Self::BadHeader,
            Self::Overloaded,
        ]
        .into_iter()
        .find(|status| status.encode() == byte)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect-timeout",
            Self::Draining => "draining",
            Self::BadHeader => "bad-header",
            Self::Overloaded => "overloaded",
        }
    }
}

/// An answer as the dialler reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: Status,
    /// `None`: no policy decided.
    pub decided_by: Option<DecidedBy<'a>>,
}

impl<'a> Answer<'a> {
    /// Reads an answer from the start of `bytes`: the answer and how many bytes it took, or
    /// `None` if more bytes are needed.
    ///
    /// # Errors
    /// Names the first part that is not as the format says.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, InvalidAnswer> {
        let Some((status, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let status = Status::decode(*status).ok_or(InvalidAnswer::Status(*status))?;
        let Some((length, rest)) = rest.split_first() else {
            return Ok(None);
        };
        let length = usize::from(*length);
        if length > MAX_DECIDED_BY {
            return Err(InvalidAnswer::TooLong(length));
        }
        let Some(text) = rest.get(..length) else {
            return Ok(None);
        };
        let decided_by = match text {
            [] => None,
            text => {
                let text = std::str::from_utf8(text).map_err(|_| InvalidAnswer::NotVisible)?;
                Some(DecidedBy::new(text)?)
            }
        };
        let answer = Self { status, decided_by };
        Ok(Some((answer, FIXED.saturating_add(length))))
    }
}

/// The name and the place of the policy that decided, `namespace/name (file:line)`. Nothing of
/// what it says: the reason, with rule and fields, is for the log of whoever wrote the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecidedBy<'a> {
    text: &'a str,
    policy: &'a str,
    source: &'a str,
}

impl<'a> DecidedBy<'a> {
    /// # Errors
    /// If it is too long, holds what is not visible, or does not name a policy and its place.
    pub fn new(text: &'a str) -> Result<Self, InvalidAnswer> {
        if text.len() > MAX_DECIDED_BY {
            return Err(InvalidAnswer::TooLong(text.len()));
        }
        if !text.chars().all(is_visible) {
            return Err(InvalidAnswer::NotVisible);
        }
        let (policy, source) = text
            .strip_suffix(CLOSING)
            .and_then(|text| text.split_once(OPENING))
            .filter(|(policy, source)| !policy.is_empty() && !source.is_empty())
            .ok_or(InvalidAnswer::Nameless)?;
        Ok(Self {
            text,
            policy,
            source,
        })
    }

    pub fn as_str(&self) -> &'a str {
        self.text
    }

    pub fn policy(&self) -> &'a str {
        self.policy
    }

    /// `file:line`
    pub fn source(&self) -> &'a str {
        self.source
    }
}

/// Whether a character may stand in a line of a log: it neither ends the line, nor steers a
/// terminal, nor turns the order of what is read around.
fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}'
        )
        && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// An answer in its wire form.
#[derive(Debug, Clone, Copy)]
pub struct EncodedAnswer {
    bytes: [u8; MAX_ANSWER],
    len: usize,
}

impl EncodedAnswer {
    /// What was decided, and by which document; `None` if no policy decided. A name that is too
    /// long is cut; the line is always there.
    pub fn new(status: Status, decided_by: Option<&SourceRef>) -> Self {
        let mut answer = Self {
            bytes: [0; MAX_ANSWER],
            len: FIXED,
        };
        if let Some(source) = decided_by {
            answer.name(source);
        }
        let length = u8::try_from(answer.len.saturating_sub(FIXED)).unwrap_or_default();
        if let Some(fixed) = answer.bytes.first_chunk_mut() {
            *fixed = [status.encode(), length];
        }
        answer
    }

    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    fn name(&mut self, source: &SourceRef) {
        // ":" and the longest line number
        let around = OPENING.len() + CLOSING.len() + ":4294967295".len();
        let room = MAX_DECIDED_BY - around;
        let half = room / 2;
        let for_document = room.saturating_sub(source.file.len()).max(half);
        self.document(&source.document, for_document);
        let for_file = room.saturating_sub(source.document.len()).max(half);
        // what goes into an answer with room for it can't fail
        let _ = self.write_str(OPENING);
        self.file(&source.file, for_file);
        let _ = write!(self, ":{}{CLOSING}", source.line);
    }

    /// The end of a document's name is cut: it begins with the namespace.
    fn document(&mut self, name: &str, room: usize) {
        let name = if name.is_empty() { "?" } else { name };
        let (kept, is_cut) = head(name, room);
        for c in kept.chars() {
            let _ = self.write_char(if c == '(' { '?' } else { visible(c) });
        }
        if is_cut {
            let _ = self.write_char(ELLIPSIS);
        }
    }

    /// The beginning of a path is cut: its end tells files apart.
    fn file(&mut self, path: &str, room: usize) {
        let (kept, is_cut) = tail(path, room);
        if is_cut {
            let _ = self.write_char(ELLIPSIS);
        }
        for c in kept.chars() {
            let _ = self.write_char(visible(c));
        }
    }
}

/// Only what fits; nothing of what does not.
impl Write for EncodedAnswer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len.saturating_add(text.len());
        let space = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        space.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// One byte in the place of what nobody should see: never longer than what it stands for.
fn visible(c: char) -> char {
    if is_visible(c) { c } else { '?' }
}

/// As many characters from the start as fit, and whether any is missing; then there is room for
/// an ellipsis.
fn head(text: &str, room: usize) -> (&str, bool) {
    if text.len() <= room {
        return (text, false);
    }
    let end = text.floor_char_boundary(room.saturating_sub(ELLIPSIS.len_utf8()));
    (text.get(..end).unwrap_or_default(), true)
}

/// The same from the end.
fn tail(text: &str, room: usize) -> (&str, bool) {
    if text.len() <= room {
        return (text, false);
    }
    let kept = room.saturating_sub(ELLIPSIS.len_utf8());
    let start = text.ceil_char_boundary(text.len().saturating_sub(kept));
    (text.get(start..).unwrap_or_default(), true)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnswer {
    #[error("its status {0:#04x} is not one")]
    Status(u8),
    #[error("what decided has {0} bytes, more than {MAX_DECIDED_BY}")]
    TooLong(usize),
    #[error("what decided is not visible text")]
    NotVisible,
    #[error("what decided is not named as policy (file:line)")]
    Nameless,
}

#[cfg(test)]
mod tests;
