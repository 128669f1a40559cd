//! How much a client may say in one request or on one stream, how much of it is held, and for how
//! long a message may be on its way.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use mesh_lite_proto::sidecar::MAX_GRPC_MESSAGE;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use tonic::Status;

use super::byte_budget::Held;
use crate::caller::Standing;

mod framing;

use framing::Framing;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// From the first byte of a message to its last: the longest one, at a tenth of a megabyte a second.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(10);

/// A body with a limit that falls away once the caller has proved itself. What is held of its
/// messages is bounded for everybody.
pub(super) struct RequestBody<B> {
    body: B,
    left: usize,
    proved: watch::Receiver<Standing>,
    held: Held,
    framing: Framing,
    /// When the message that is not here whole began.
    began: Option<Instant>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> RequestBody<B> {
    pub(super) fn new(
        body: B,
        limit: usize,
        proved: watch::Receiver<Standing>,
        held: Held,
    ) -> Self {
        Self {
            body,
            left: limit,
            proved,
            held,
            framing: Framing::default(),
            began: None,
            deadline: None,
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        if *self.proved.borrow() == Standing::Unproved {
            self.left = self.left.checked_sub(data.len()).ok_or_else(|| {
                Status::resource_exhausted(
                    "more is sent than a caller may say who has not proved itself",
                )
            })?;
        }
        let seen = self.framing.read(data);
        // longer ones are refused as soon as their head is read
        let longest = seen.longest.min(MAX_GRPC_MESSAGE);
        if !self.held.grow_to(longest) {
            return Err(Status::resource_exhausted(
                "the messages of this workload's streams are too long, all in all: open fewer, or say less at a time",
            ));
        }
        if !self.framing.is_inside() {
            self.began = None;
            self.deadline = None;
        } else if seen.begun || self.began.is_none() {
            self.began = Some(Instant::now());
            self.deadline = None;
        }
        Ok(())
    }

    /// Whether the message that is on its way takes too long.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let Some(began) = self.began else {
            return false;
        };
        let deadline = self.deadline.get_or_insert_with(|| {
            let at = began.checked_add(MESSAGE_DEADLINE).unwrap_or(began);
            Box::pin(sleep_until(at))
        });
        deadline.as_mut().poll(context).is_ready()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(frame)) => frame.map_err(Into::into)?,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if this.is_late(context) => {
                let late = format!("a message was not here whole within {MESSAGE_DEADLINE:?}");
                return Poll::Ready(Some(Err(Status::deadline_exceeded(late).into())));
            }
            Poll::Pending => return Poll::Pending,
        };
        if let Some(data) = frame.data_ref() {
            this.take(data)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
