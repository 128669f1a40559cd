//! Moving bytes between the application and the far side until both directions have ended.
//!
//! One task per connection drives both directions. Nothing is buffered per connection while it
//! flows: each thread has two buffers, large so that bulk costs few system calls, and a
//! connection gets memory of its own only for what a slow reader has not taken yet. While
//! anything waits for a reader, nothing more is read for it: the kernel's windows do the rest.
//!
//! A direction that ends properly (FIN from the application, close_notify from a tunnel) ends
//! the same direction on the other side and nothing else. Anything else resets both sides, so
//! that what was cut short never looks whole.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use mesh_lite_proto::tunnel::{Answer, InvalidAnswer, MAX_ANSWER, Status};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    live_connections::{Cut, CutReason},
    metrics::{ConnectionMeter, Direction},
    socket::{self, Nonblocking},
    tls::session::{Opened, RecordError, Session},
};

mod half;

use half::{BULK_READ, Half, Step};

/// Turns of one connection, of at most a buffer in each direction, before the others of its
/// thread have theirs.
const TURNS: usize = 4;
/// One direction has ended and nothing moves in the other: nobody is there any more.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(3600);

thread_local! {
    /// What was just read.
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; BULK_READ].into_boxed_slice());
    /// What the records just read held.
    static OPENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a connection ended, if not as both sides wished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    #[error("the application's side broke: {0}")]
    Application(io::Error),
    #[error("the far side broke: {0}")]
    Far(io::Error),
    #[error("the far side's connection ended without close_notify: what came may be cut short")]
    Truncated,
    #[error("{0}")]
    Records(#[from] RecordError),
    #[error("the far sidecar answered {}", .0.as_str())]
    Status(Status),
    #[error("the far sidecar's answer is not one: {0}")]
    InvalidAnswer(#[from] InvalidAnswer),
    #[error("the far sidecar did not answer in time")]
    NoAnswer,
    #[error("one direction had ended and the other was idle for an hour")]
    HalfClosedIdle,
    #[error("cut by this sidecar")]
    Cut(CutReason),
}

/// The far side: a tunnel, or plaintext that was allowed by name.
pub enum Far<'a> {
    Tunnel {
        socket: &'a mut TcpStream,
        session: &'a mut Session,
    },
    Plain(&'a mut TcpStream),
}

pub struct Forward<'a> {
    pub application: &'a mut TcpStream,
    pub far: Far<'a>,
    pub count: Count<'a>,
    pub cut: &'a Cut,
    /// Bytes for the application that came with the header.
    pub early: Vec<u8>,
    /// What comes first from the far side is its answer.
    pub awaited: Option<Awaited<'a>>,
}

/// The answer of a tunnel that was dialled.
pub struct Awaited<'a> {
    pub due: Instant,
    /// Told once the answer is here, before anything that follows from it.
    pub answered: &'a mut (dyn FnMut(Answer<'_>) + Send),
}

impl Forward<'_> {
    /// Runs until both directions have ended properly.
    ///
    /// # Errors
    /// Says which side broke and how. Both sockets will then be reset when they are dropped.
    pub async fn run(self) -> Result<(), Broken> {
        self.count.to_application(self.early.len() as u64);
        let mut running = Running {
            to_application: Half::new(self.early),
            to_far: Half::new(Vec::new()),
            timer: self
                .awaited
                .as_ref()
                .map(|awaited| Box::pin(sleep_until(awaited.due))),
            awaiting: self.awaited.map(|awaited| Awaiting {
                answered: awaited.answered,
                part: Vec::new(),
            }),
            moved: false,
            far_write_error: None,
            forward: ForwardParts {
                application: self.application,
                far: self.far,
                count: self.count,
                cut: self.cut,
            },
        };
        poll_fn(|context| running.poll(context)).await?;
        running.end_cleanly();
        Ok(())
    }
}

struct ForwardParts<'a> {
    application: &'a mut TcpStream,
    far: Far<'a>,
    count: Count<'a>,
    cut: &'a Cut,
}

/// Counts bytes as the caller sees them: received from it, sent back to it.
#[derive(Clone, Copy)]
pub struct Count<'a> {
    pub direction: Direction,
    pub meter: &'a ConnectionMeter,
}

impl Count<'_> {
    fn to_far(self, bytes: u64) {
        match self.direction {
            Direction::Inbound => self.meter.sent(bytes),
            Direction::Outbound => self.meter.received(bytes),
        }
    }

    fn to_application(self, bytes: u64) {
        match self.direction {
            Direction::Inbound => self.meter.received(bytes),
            Direction::Outbound => self.meter.sent(bytes),
        }
    }
}

struct Running<'a> {
    forward: ForwardParts<'a>,
    to_application: Half,
    to_far: Half,
    /// The answer's deadline first, later the half-closed limit. Most connections have none.
    timer: Option<Pin<Box<Sleep>>>,
    /// `None`: the answer is here, or none is to come.
    awaiting: Option<Awaiting<'a>>,
    /// Something has moved since the half-closed limit was last looked at.
    moved: bool,
    /// A write failed before the answer came: the answer may still be there to be read.
    far_write_error: Option<io::Error>,
}

struct Awaiting<'a> {
    answered: &'a mut (dyn FnMut(Answer<'_>) + Send),
    /// An answer that is not whole yet; it comes in one record, unless somebody is playing.
    part: Vec<u8>,
}

impl Running<'_> {
    fn end_cleanly(&self) {
        socket::end_cleanly(self.forward.application);
        match &self.forward.far {
            Far::Tunnel { socket, .. } | Far::Plain(socket) => socket::end_cleanly(socket),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if let Poll::Ready(reason) = self.forward.cut.poll_cut(context) {
            return Poll::Ready(Err(Broken::Cut(reason)));
        }
        for _ in 0..TURNS {
            let to_far = self.turn_to_far(context)?;
            let to_application = self.turn_to_application(context)?;
            self.moved |= to_far == Step::Moved || to_application == Step::Moved;
            match (to_far, to_application) {
                (Step::Done, Step::Done) => return Poll::Ready(Ok(())),
                (Step::Moved, _) | (_, Step::Moved) => {}
                _ => return self.poll_timer(context),
            }
        }
        // the rest of this thread's connections come first
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let moved = std::mem::take(&mut self.moved);
        if self.awaiting.is_none() {
            match (
                self.to_far.is_done() || self.to_application.is_done(),
                &mut self.timer,
            ) {
                (false, _) => self.timer = None,
                (true, Some(timer)) if moved => {
                    timer.as_mut().reset(Instant::now() + HALF_CLOSED_IDLE);
                }
                (true, Some(_)) => {}
                (true, timer @ None) => {
                    *timer = Some(Box::pin(sleep_until(Instant::now() + HALF_CLOSED_IDLE)));
                }
            }
        }
        let Some(timer) = &mut self.timer else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(
            match (self.awaiting.is_some(), self.far_write_error.take()) {
                (true, Some(error)) => Broken::Far(error),
                (true, None) => Broken::NoAnswer,
                (false, _) => Broken::HalfClosedIdle,
            },
        ))
    }

    fn turn_to_far(&mut self, context: &mut Context<'_>) -> Result<Step, Broken> {
        let ForwardParts {
            application,
            far,
            count,
            ..
        } = &mut self.forward;
        match far {
            Far::Plain(far) => {
                let sent = |bytes| count.to_far(bytes);
                self.to_far
                    .turn(context, application, far, sent)
                    .map_err(|error| error.blame(Broken::Application, Broken::Far))
            }
            Far::Tunnel { .. } if self.far_write_error.is_some() => Ok(Step::Waiting),
            Far::Tunnel { socket, session } => {
                let half = &mut self.to_far;
                match seal_turn(half, context, application, socket, session, *count) {
                    Err(Broken::Far(error)) if self.awaiting.is_some() => {
                        self.far_write_error = Some(error);
                        Ok(Step::Waiting)
                    }
                    turned => turned,
                }
            }
        }
    }

    fn turn_to_application(&mut self, context: &mut Context<'_>) -> Result<Step, Broken> {
        let ForwardParts {
            application,
            far,
            count,
            ..
        } = &mut self.forward;
        let half = &mut self.to_application;
        match far {
            Far::Plain(far) => {
                let received = |bytes| count.to_application(bytes);
                half.turn(context, far, application, received)
                    .map_err(|error| error.blame(Broken::Far, Broken::Application))
            }
            Far::Tunnel { socket, session } => {
                if let Some(step) = half
                    .settle(context, application)
                    .map_err(Broken::Application)?
                {
                    return Ok(step);
                }
                let opened = OPENED.with_borrow_mut(|plaintext| {
                    plaintext.clear();
                    open_turn(half, context, socket, session, plaintext)
                });
                let opened = opened.and_then(|state| match state {
                    None => Ok(Step::Waiting),
                    Some(state) => OPENED.with_borrow(|plaintext| self.opened(plaintext, state)),
                });
                match (opened, self.far_write_error.take()) {
                    (Err(Broken::Truncated), Some(error)) => Err(Broken::Far(error)),
                    (result, error) => {
                        self.far_write_error = error;
                        result
                    }
                }
            }
        }
    }

    /// What records held goes to the application, but for an answer that is still awaited.
    fn opened(&mut self, mut bytes: &[u8], state: Opened) -> Result<Step, Broken> {
        if let Some(awaiting) = &mut self.awaiting
            && awaiting.take_answer(&mut bytes)?
        {
            self.awaiting = None;
            self.timer = None;
        }
        self.forward.count.to_application(bytes.len() as u64);
        self.to_application
            .deliver(self.forward.application, bytes)
            .map_err(Broken::Application)?;
        if self.awaiting.is_none()
            && let Some(error) = self.far_write_error.take()
        {
            // it took the connection, but not what the application has sent
            return Err(Broken::Far(error));
        }
        if state == Opened::Ended {
            if self.awaiting.is_some() {
                return Err(Broken::Truncated);
            }
            self.to_application.end();
        }
        Ok(Step::Moved)
    }
}

impl Awaiting<'_> {
    /// Takes the answer from the front of what came first. False: all of it is taken, and the
    /// answer is not whole yet.
    fn take_answer(&mut self, bytes: &mut &[u8]) -> Result<bool, Broken> {
        let before = self.part.len();
        let come = if before == 0 {
            *bytes
        } else {
            // bounded: of what is not an answer yet, there is less than an answer
            let missing = MAX_ANSWER.saturating_sub(before).min(bytes.len());
            self.part
                .extend_from_slice(bytes.get(..missing).unwrap_or_default());
            self.part.as_slice()
        };
        let Some((answer, taken)) = Answer::decode(come)? else {
            if before == 0 {
                self.part.extend_from_slice(bytes);
            }
            *bytes = &[];
            return Ok(false);
        };
        (self.answered)(answer);
        *bytes = bytes
            .get(taken.saturating_sub(before)..)
            .unwrap_or_default();
        match answer.status {
            Status::Ok => Ok(true),
            refusal => Err(Broken::Status(refusal)),
        }
    }
}

/// One read from the application, sealed; and as much sent as the socket takes.
fn seal_turn(
    half: &mut Half,
    context: &mut Context<'_>,
    application: &mut TcpStream,
    socket: &TcpStream,
    session: &mut Session,
    count: Count<'_>,
) -> Result<Step, Broken> {
    while session.has_records() {
        if socket
            .poll_write_ready(context)
            .map_err(Broken::Far)?
            .is_pending()
        {
            return Ok(Step::Waiting);
        }
        send(session, socket)?;
    }
    if half.is_ending() {
        half.done();
    }
    if half.is_done() {
        return Ok(Step::Done);
    }
    let read = INCOMING.with_borrow_mut(|buffer| {
        let read = half.read(context, application, buffer)?;
        match read.and_then(|length| buffer.get(..length)) {
            Some([]) => session.seal_end(),
            Some(bytes) => session.seal(bytes),
            None => {}
        }
        Ok(read)
    });
    match read.map_err(Broken::Application)? {
        None => return Ok(Step::Waiting),
        Some(0) => half.end(),
        // taken from the application: whatever becomes of it, this is no fresh connection
        Some(length) => count.to_far(length as u64),
    }
    send(session, socket)?;
    Ok(Step::Moved)
}

fn send(session: &mut Session, socket: &TcpStream) -> Result<(), Broken> {
    match session.send_records(&mut Nonblocking(socket)) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(Broken::Far(error)),
        _ => Ok(()),
    }
}

/// One read from the tunnel, opened. `None` if there is nothing to read yet.
fn open_turn(
    half: &mut Half,
    context: &mut Context<'_>,
    socket: &mut TcpStream,
    session: &mut Session,
    plaintext: &mut Vec<u8>,
) -> Result<Option<Opened>, Broken> {
    // records that came with the handshake or the header are opened without a read
    let state = session.open(&[], plaintext)?;
    if state == Opened::Ended || !plaintext.is_empty() {
        return Ok(Some(state));
    }
    INCOMING.with_borrow_mut(|buffer| {
        match half.read(context, socket, buffer).map_err(Broken::Far)? {
            None => Ok(None),
            Some(0) => Err(Broken::Truncated),
            Some(length) => {
                let records = buffer.get(..length).unwrap_or_default();
                Ok(Some(session.open(records, plaintext)?))
            }
        }
    })
}

#[cfg(test)]
mod tests;
