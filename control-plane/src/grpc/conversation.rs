//! How a long stream runs: requests are taken as they come, what is owed to the client is made
//! from the newest facts at the moment the client can take it. So a slow client costs one
//! pending message, and never holds up anybody else (SDS-S20).

use std::future::Future;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{caller::Caller, metrics::OpenGauge};

pub(super) type Responses<T> = ReceiverStream<Result<T, Status>>;

/// One side of a stream: what to do with a request, what is owed, and when that may change.
pub(super) trait Conversation: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// # Errors
    /// Ends the stream with this status.
    fn receive(&mut self, request: Self::Request) -> Result<(), Status>;

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
    caller: Caller,
    open: OpenGauge,
) -> Responses<C::Response> {
    // One message that waits for the client; the next is made when it has left.
    let (responses, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Err(status) = run(requests, conversation, caller, &responses).await {
            // gone already is the client's right
            let _ = responses.send(Err(status)).await;
        }
        drop(open);
    });
    ReceiverStream::new(receiver)
}

async fn run<C: Conversation>(
    mut requests: Streaming<C::Request>,
    mut conversation: C,
    mut caller: Caller,
    responses: &mpsc::Sender<Result<C::Response, Status>>,
) -> Result<(), Status> {
    let mut maybe_owed = false;
    loop {
        tokio::select! {
            biased;
            () = responses.closed() => return Ok(()),
            () = closing(&mut caller) => return Err(Status::unavailable(
                "the control plane closes this connection: open the stream on a new one",
            )),
            request = requests.message() => match request? {
                Some(request) => {
                    conversation.receive(request)?;
                    maybe_owed = true;
                }
                None => return Ok(()),
            },
            permit = responses.reserve(), if maybe_owed => {
                let Ok(permit) = permit else { return Ok(()) };
                match conversation.owed()? {
                    Some(response) => permit.send(Ok(response)),
                    None => maybe_owed = false,
                }
            }
            () = conversation.changed() => maybe_owed = true,
        }
    }
}

async fn closing(caller: &mut Caller) {
    // its sender gone means the same: the connection ends
    let _ = caller.closing.wait_for(|closing| *closing).await;
}

/// A fact whose writer is gone changes no more.
pub(super) async fn wait_for_change<T>(fact: &mut watch::Receiver<T>) {
    if fact.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
