//! How a long stream runs: requests are taken as they come, what is owed to the client is made
//! from the newest facts at the moment the client can take it. So a slow client costs one
//! pending message, and never holds up anybody else (SDS-S20).

use std::future::Future;

use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use crate::{caller::Caller, metrics::OpenGauge};

pub(super) type Responses<T> = ReceiverStream<Result<T, Status>>;

/// One side of a stream: what to do with a request, what is owed, and when that may change.
pub(super) trait Conversation: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// # Errors
    /// Ends the stream with this status.
    fn receive(&mut self, request: Self::Request) -> Result<(), Status>;

    /// Whether the caller may still have anything. Asked at each change, whatever its client
    /// takes meanwhile, and before each response.
    ///
    /// # Errors
    /// Ends the stream with this status.
    fn check(&mut self) -> Result<(), Status>;

    /// What to send now, from the newest facts; `None` if nothing is owed.
    ///
    /// # Errors
    /// Ends the stream with this status.
    fn owed(&mut self) -> Result<Option<Self::Response>, Status>;

    /// Waits until something may be owed that was not. Cancelled and called again at will.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// Runs the conversation in a task of its own until either side ends it.
pub(super) fn start<C: Conversation>(
    requests: Streaming<C::Request>,
    conversation: C,
    mut caller: Caller,
    open: OpenGauge,
) -> Responses<C::Response> {
    // One message that waits for the client; the next is made when it has left.
    let (responses, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = run(requests, conversation, &mut caller.closing, &responses).await;
        // what is left is one last word, for whenever the client takes it
        drop(open);
        if let Err(status) = ended {
            // gone already is the client's right
            let _ = responses.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

async fn run<C: Conversation>(
    mut requests: impl Stream<Item = Result<C::Request, Status>> + Unpin,
    mut conversation: C,
    closing: &mut watch::Receiver<bool>,
    responses: &mpsc::Sender<Result<C::Response, Status>>,
) -> Result<(), Status> {
    let (mut asks, mut maybe_owed) = (true, false);
    // one that asks no more is answered still, as a tool in a terminal expects
    while asks || maybe_owed {
        tokio::select! {
            biased;
            () = responses.closed() => return Ok(()),
            () = told_to_close(closing) => return Err(Status::unavailable(
                "the control plane closes this connection: open the stream on a new one",
            )),
            () = conversation.changed() => {
                conversation.check()?;
                maybe_owed = true;
            }
            request = requests.next(), if asks => match request.transpose().map_err(unreadable)? {
                Some(request) => {
                    conversation.receive(request)?;
                    maybe_owed = true;
                }
                None => asks = false,
            },
            permit = responses.reserve(), if maybe_owed => {
                let Ok(permit) = permit else { return Ok(()) };
                conversation.check()?;
                match conversation.owed()? {
                    Some(response) => permit.send(Ok(response)),
                    None => maybe_owed = false,
                }
            }
        }
    }
    Ok(())
}

/// What can't be decoded is the caller's fault, which tonic calls INTERNAL (SDS-S23).
fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::Internal => {
            Status::invalid_argument(format!("the request can't be read: {}", status.message()))
        }
        _ => status,
    }
}

async fn told_to_close(closing: &mut watch::Receiver<bool>) {
    // its sender gone means the same: the connection ends
    let _ = closing.wait_for(|closing| *closing).await;
}

/// A fact whose writer is gone changes no more.
pub(super) async fn wait_for_change<T>(fact: &mut watch::Receiver<T>) {
    if fact.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
