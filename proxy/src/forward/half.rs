//! One direction of a connection.

use std::{
    cmp::Ordering as CmpOrdering,
    io::{self, ErrorKind},
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::Context,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

use super::{Broken, INCOMING};
use crate::socket;

/// One read of a connection that just began to move. What a slow reader does not take of it is
/// all the memory that such a connection may need.
const READ: usize = 16 * 1024;
/// One read of a bulk transfer. Measured: below this it pays more in system calls, above it in
/// cache misses.
pub(super) const BULK_READ: usize = 256 * 1024;
/// Directions that read in bulk at a time: 32 MiB, should every reader of theirs stall at once.
const MAX_BULK: usize = 128;

/// The right to read in bulk. Memory is the process's, so the count is too.
struct Bulk;

static IN_BULK: AtomicUsize = AtomicUsize::new(0);

impl Bulk {
    fn begin() -> Option<Self> {
        IN_BULK
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < MAX_BULK).then_some(count.saturating_add(1))
            })
            .ok()
            .map(|_| Self)
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        IN_BULK.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something moved; there may be more.
    Moved,
    /// Registered with the reactor.
    Waiting,
    /// Ended, and told so to the reader.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The writer has ended; what waits is still to be delivered.
    Ending,
    Done,
}

pub(super) struct Half {
    /// What the reader has not taken yet, from `taken` on.
    waiting: Vec<u8>,
    taken: usize,
    state: State,
    bulk: Option<Bulk>,
}

/// Which end of a direction broke.
pub(super) enum HalfError {
    Reading(io::Error),
    Writing(io::Error),
}

impl HalfError {
    pub(super) fn blame(
        self,
        reading: impl FnOnce(io::Error) -> Broken,
        writing: impl FnOnce(io::Error) -> Broken,
    ) -> Broken {
        match self {
            Self::Reading(error) => reading(error),
            Self::Writing(error) => writing(error),
        }
    }
}

impl Half {
    pub(super) fn new(early: Vec<u8>) -> Self {
        Self {
            waiting: early,
            taken: 0,
            state: State::Open,
            bulk: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn is_ending(&self) -> bool {
        self.state == State::Ending
    }

    pub(super) fn end(&mut self) {
        self.state = State::Ending;
    }

    pub(super) fn done(&mut self) {
        self.state = State::Done;
    }

    /// One turn of plaintext from `from` to `to`.
    pub(super) fn turn(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        to: &TcpStream,
        moved: impl FnOnce(u64),
    ) -> Result<Step, HalfError> {
        if let Some(step) = self.settle(context, to).map_err(HalfError::Writing)? {
            return Ok(step);
        }
        INCOMING.with_borrow_mut(|buffer| {
            match self
                .read(context, from, buffer)
                .map_err(HalfError::Reading)?
            {
                None => return Ok(Step::Waiting),
                Some(0) => self.end(),
                Some(length) => {
                    moved(length as u64);
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.deliver(to, bytes).map_err(HalfError::Writing)?;
                }
            }
            Ok(Step::Moved)
        })
    }

    /// Delivers what waits, then the end if there is one. `None`: ready for more.
    pub(super) fn settle(
        &mut self,
        context: &mut Context<'_>,
        to: &TcpStream,
    ) -> io::Result<Option<Step>> {
        while let Some(bytes) = self
            .waiting
            .get(self.taken..)
            .filter(|bytes| !bytes.is_empty())
        {
            if to.poll_write_ready(context)?.is_pending() {
                return Ok(Some(Step::Waiting));
            }
            match to.try_write(bytes) {
                Ok(written) => self.taken = self.taken.saturating_add(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if !self.waiting.is_empty() {
            // a connection at rest holds no buffer
            self.waiting = Vec::new();
            self.taken = 0;
        }
        match self.state {
            State::Open => Ok(None),
            State::Done => Ok(Some(Step::Done)),
            State::Ending => {
                socket::end_writing(to)?;
                self.done();
                Ok(Some(Step::Done))
            }
        }
    }

    /// Hands `bytes` to a reader that has nothing waiting; keeps what it does not take.
    pub(super) fn deliver(&mut self, to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match to.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One read. `None` if there is nothing yet; then the reactor will wake us.
    ///
    /// `poll_read` and not `try_read`: it knows that a read which did not fill the buffer has
    /// emptied the socket, and spares the read that would find nothing.
    pub(super) fn read(
        &mut self,
        context: &mut Context<'_>,
        from: &mut TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let size = if self.bulk.is_some() { BULK_READ } else { READ };
        let mut read = ReadBuf::new(buffer.get_mut(..size).unwrap_or_default());
        if Pin::new(from).poll_read(context, &mut read)?.is_pending() {
            return Ok(None);
        }
        let length = read.filled().len();
        match length.cmp(&READ) {
            CmpOrdering::Less => self.bulk = None,
            CmpOrdering::Equal if self.bulk.is_none() => self.bulk = Bulk::begin(),
            _ => {}
        }
        Ok(Some(length))
    }
}
