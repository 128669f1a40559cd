//! Keeping one stream with the control plane open for ever: opened again when it ends, moved to
//! a new channel when the identity changes (the new stream first, then the old one goes).
//!
//! What a stream means is its [`Subscription`]'s business; what it taught is kept there, so
//! nothing is forgotten while no stream is open.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, transport::Channel};

use super::in_words;
use crate::{back_off::BackOff, identity::token_file::bearer};

/// From the call to the server's response headers, connection included.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A server that takes no request for this long is treated as gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one stream that wait for the server to take them.
const QUEUED_REQUESTS: usize = 64;
/// A stream that lived this long and ends is opened again at once: servers end connections for
/// good reasons. A shorter one waits, or a confused server would be hammered.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// One kind of stream.
pub(crate) trait Subscription: Send + 'static {
    type Request: Clone + Send + 'static;
    type Response: Send + 'static;

    /// Opens it on a channel.
    fn open(
        channel: Channel,
        requests: Request<ReceiverStream<Self::Request>>,
    ) -> impl Future<Output = Result<Response<Streaming<Self::Response>>, Status>> + Send + 'static;

    /// What a new stream begins with, in far fewer than [`QUEUED_REQUESTS`] messages.
    fn first_requests(&mut self) -> Vec<Self::Request>;

    /// Takes what the server sent; returns what to answer.
    fn received(&mut self, response: Self::Response) -> Vec<Self::Request>;

    /// Waits until this side has something to ask. Dropping the future loses nothing. Polled
    /// without a stream, too: what it returns then is not sent, [`Self::first_requests`] is.
    fn next_requests(&mut self) -> impl Future<Output = Vec<Self::Request>> + Send;

    /// What the server said of itself when the stream was opened.
    fn answered(&mut self, _answer: &MetadataMap) {}

    /// The stream is open and the server has answered.
    fn connected(&mut self);

    /// There is no stream, for this reason.
    fn disconnected(&mut self, reason: &str);
}

/// How streams get to the control plane.
#[derive(Clone)]
pub(crate) struct Way {
    /// `None` there: no channel yet.
    pub(crate) channels: watch::Receiver<Option<Channel>>,
    /// Shown by each stream: the file of a pod's service-account token.
    pub(crate) token: Option<Arc<Path>>,
}

struct Live<S: Subscription> {
    requests: mpsc::Sender<S::Request>,
    responses: Streaming<S::Response>,
    opened: Instant,
    answered: bool,
    /// The server takes no more requests.
    clogged: bool,
}

impl<S: Subscription> Live<S> {
    fn has_lived_long(&self) -> bool {
        self.opened.elapsed() >= LONG_LIFE
    }
}

/// How long to wait after a stream has ended before the next one is opened.
fn wait_after<S: Subscription>(ended: Option<&Live<S>>, back_off: &mut BackOff) -> Duration {
    if ended.is_some_and(Live::has_lived_long) {
        back_off.succeeded();
        Duration::ZERO
    } else {
        back_off.after_failure()
    }
}

/// Runs until the sender of channels is gone.
pub(crate) async fn keep_open<S: Subscription>(
    mut subscription: S,
    Way {
        mut channels,
        token,
    }: Way,
    mut back_off: BackOff,
) {
    let mut live: Option<Live<S>> = None;
    // when to open a stream, if one is wanted: at start, after an end, for a new channel
    let mut open_at = Some(Instant::now());
    loop {
        let channel = channels.borrow_and_update().clone();
        if let (Some(channel), Some(at)) = (&channel, open_at)
            && at <= Instant::now()
        {
            let opened = open(
                &mut subscription,
                channel.clone(),
                token.as_deref(),
                live.as_ref(),
            );
            match opened.await {
                Ok(opened) => {
                    live = Some(opened);
                    open_at = None;
                }
                Err(reason) => {
                    if live.is_none() {
                        subscription.disconnected(&reason);
                    }
                    open_at = Some(Instant::now() + back_off.after_failure());
                }
            }
            continue;
        }
        match next_event(&mut subscription, &mut live, &mut channels, open_at).await {
            Event::Response(response) => {
                let answers = receive(&mut subscription, live.as_mut(), response, &mut back_off);
                send(&mut live, answers).await;
            }
            Event::Requests(requests) => send(&mut live, requests).await,
            Event::Ended(reason) => {
                let ended = live.take();
                subscription.disconnected(&reason);
                open_at = Some(Instant::now() + wait_after(ended.as_ref(), &mut back_off));
            }
            Event::ChannelChanged => {
                back_off.succeeded();
                open_at = Some(Instant::now());
            }
            Event::TimeToOpen => {}
            Event::Over => return,
        }
    }
}

enum Event<S: Subscription> {
    Response(S::Response),
    Requests(Vec<S::Request>),
    Ended(String),
    ChannelChanged,
    TimeToOpen,
    Over,
}

async fn next_event<S: Subscription>(
    subscription: &mut S,
    live: &mut Option<Live<S>>,
    channels: &mut watch::Receiver<Option<Channel>>,
    open_at: Option<Instant>,
) -> Event<S> {
    // without a channel there is nothing to open: only a change of channels helps
    let open_at = open_at.filter(|_| channels.borrow().is_some());
    let response = async {
        match live {
            Some(live) => response(live).await,
            None => std::future::pending().await,
        }
    };
    let open = async {
        match open_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        event = response => event,
        requests = subscription.next_requests() => Event::Requests(requests),
        changed = channels.changed() => match changed {
            Ok(()) => Event::ChannelChanged,
            Err(_) => Event::Over,
        },
        () = open => Event::TimeToOpen,
    }
}

async fn response<S: Subscription>(live: &mut Live<S>) -> Event<S> {
    let next = live.responses.message();
    let next = if live.clogged {
        // most often the stream has ended and the reason is on its way
        match tokio::time::timeout(Duration::from_secs(1), next).await {
            Ok(next) => next,
            Err(_) => return Event::Ended("the control plane takes no more requests".to_owned()),
        }
    } else {
        next.await
    };
    match next {
        Ok(Some(response)) => Event::Response(response),
        Ok(None) => Event::Ended("the control plane ended the stream".to_owned()),
        Err(status) => Event::Ended(in_words(&status)),
    }
}

/// Opens a stream while the old one, if any, still carries what is asked meanwhile.
async fn open<S: Subscription>(
    subscription: &mut S,
    channel: Channel,
    token: Option<&Path>,
    old: Option<&Live<S>>,
) -> Result<Live<S>, String> {
    // read before anything is asked: what is said meanwhile waits in its queue
    let bearer = match token {
        Some(path) => Some(bearer(path).await.map_err(|error| error.to_string())?),
        None => None,
    };
    let (requests, waiting) = mpsc::channel(QUEUED_REQUESTS);
    for request in subscription.first_requests() {
        if requests.try_send(request).is_err() {
            return Err("there is too much to ask for on one stream".to_owned());
        }
    }
    let mut request = Request::new(ReceiverStream::new(waiting));
    if let Some(bearer) = bearer {
        request.metadata_mut().insert("authorization", bearer);
    }
    let mut opening = Box::pin(tokio::time::timeout(
        OPEN_TIMEOUT,
        S::open(channel, request),
    ));
    let answer = loop {
        tokio::select! {
            opened = &mut opening => match opened {
                Ok(Ok(opened)) => break opened,
                Ok(Err(status)) => return Err(in_words(&status)),
                Err(_) => return Err(format!("no answer from the control plane within {OPEN_TIMEOUT:?}")),
            },
            asked = subscription.next_requests() => for request in asked {
                if let Some(old) = old {
                    // if the new stream fails, the old one stays and must know of it
                    let _ = old.requests.try_send(request.clone());
                }
                if requests.try_send(request).is_err() {
                    return Err("the control plane is slow to take requests".to_owned());
                }
            },
        }
    };
    subscription.answered(answer.metadata());
    Ok(Live {
        requests,
        responses: answer.into_inner(),
        opened: Instant::now(),
        answered: false,
        clogged: false,
    })
}

/// Returns what to answer. The first response says that the stream is one.
fn receive<S: Subscription>(
    subscription: &mut S,
    live: Option<&mut Live<S>>,
    response: S::Response,
    back_off: &mut BackOff,
) -> Vec<S::Request> {
    let answers = subscription.received(response);
    if let Some(stream) = live {
        if !std::mem::replace(&mut stream.answered, true) {
            subscription.connected();
        }
        if stream.has_lived_long() {
            back_off.succeeded();
        }
    }
    answers
}

async fn send<S: Subscription>(live: &mut Option<Live<S>>, requests: Vec<S::Request>) {
    let Some(stream) = live else { return };
    for request in requests {
        if stream
            .requests
            .send_timeout(request, SEND_TIMEOUT)
            .await
            .is_err()
        {
            stream.clogged = true;
            return;
        }
    }
}

#[cfg(test)]
mod tests;
