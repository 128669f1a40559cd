//! One HTTP/2 connection: its limits, its age, and how it ends: GOAWAY, then streams end with
//! UNAVAILABLE, then the socket is closed (SDS-S22).

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use mesh_lite_proto::secret_discovery::request_rate::RequestRate;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{self, Instant},
};
use tonic::{Status, body::Body, service::Routes};
use tower::{Service as _, service_fn};

use super::{
    byte_budget::ByteBudget,
    places::{Place, Places},
    request_body::RequestBody,
    strangers::Stranger,
};
use crate::{
    caller::{Caller, Peer, Standing},
    certificate_authority::random::random_bytes,
};

/// Spread of the age, so that what connected together does not come back together: ± 20 %.
const AGE_SPREAD_PERCENT: u32 = 20;
/// Between GOAWAY and the end of the streams when the process ends.
const GRACE_AT_END: Duration = Duration::from_millis(200);
/// For the last words of the streams to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes that a client may send before they are read, on all streams and on one: the longest
/// message takes some round trips more.
const CONNECTION_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;
/// What one connection of a caller without a certificate makes the control plane hold. One that
/// proves itself by a token may say messages of full length on one stream, Envoy's on all.
const STRANGERS_BYTES: usize = 2 * 1024 * 1024;
/// A token and a few names.
const MAX_HEADERS: u32 = 32 * 1024;
/// A peer that is gone without a word is noticed within the sum of these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(20);

/// From the head of a request to the head of its answer. A unary request has arrived by then and
/// was answered, a stream has begun.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Tells whoever asks what there is to ask for.
const REFLECTION: &str = "/grpc.reflection.";

/// What a connection may take, by who opened it.
struct Allowance {
    age: Duration,
    /// Between GOAWAY and the end of the streams, so that the client can open the next
    /// connection first.
    grace: Duration,
    streams: u32,
    /// New requests, at once and then each second (SDS-S21).
    open_burst: u32,
    opens_per_second: u32,
    /// Bytes of one request, or of all that a client says on one stream.
    request: usize,
}

/// Long streams move to another replica, and to the current certificate, once within the age. A
/// sidecar has three streams; Envoy one per secret (SDS-S21).
static OF_PEERS: Allowance = Allowance {
    age: Duration::from_secs(30 * 60),
    grace: Duration::from_secs(10),
    streams: 256,
    open_burst: 300,
    opens_per_second: 20,
    request: usize::MAX,
};
/// A caller without a certificate asks for one and comes back with it: all in all within 30 s.
/// Its request is a certificate request, and 61 KB of node if it is Envoy's. One that opens a
/// stream by a reusable token becomes a peer but for the number of its streams, which was told
/// when the connection began: Envoy then opens another.
static OF_STRANGERS: Allowance = Allowance {
    age: Duration::from_secs(20),
    grace: Duration::from_secs(4),
    streams: 4,
    open_burst: 8,
    opens_per_second: 2,
    request: 128 * 1024,
};

/// Whether the control plane goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    NotYet,
    Now,
}

/// Who opened a connection.
pub(super) struct Opened {
    pub(super) address: SocketAddr,
    pub(super) peer: Option<Arc<Peer>>,
    /// The place among the strangers that it takes until it has proved itself.
    pub(super) stranger: Option<Stranger>,
    /// The place among the peers, if it is one.
    pub(super) place: Option<Place>,
    /// Where one that proves itself by a token takes its place.
    pub(super) places: Places,
}

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    routes: Routes,
    opened: Opened,
    mut ending: watch::Receiver<Ending>,
) {
    let Opened {
        address,
        peer,
        mut stranger,
        mut place,
        places,
    } = opened;
    let (allowance, standing) = match &peer {
        Some(_) => (&OF_PEERS, Standing::Peer),
        None => (&OF_STRANGERS, Standing::Unproved),
    };
    let (close, closing) = watch::channel(false);
    let (prove, proved) = watch::channel(standing);
    let bytes = match &place {
        Some(place) => place.bytes.clone(),
        None => ByteBudget::new(STRANGERS_BYTES),
    };
    let caller = Caller {
        address,
        peer,
        closing,
        proved: prove,
    };
    let requests = Requests::new(routes, caller, allowance, bytes);
    let service = service_fn(move |request| requests.clone().answer(request));
    let mut connection = pin!(
        http2(allowance).serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
    );
    let grace = tokio::select! {
        _ = connection.as_mut() => return,
        grace = until_old(proved, &mut stranger, &mut place, &places) => grace,
        _ = ending.wait_for(|ending| *ending == Ending::Now) => GRACE_AT_END,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => return,
        () = time::sleep(grace) => {}
        _ = ending.wait_for(|ending| *ending == Ending::Now), if grace != GRACE_AT_END => {}
    }
    close.send_replace(true);
    // An error here is the connection's end, which is what is wanted.
    let _ = time::timeout(LAST_WORDS, connection).await;
}

fn http2(allowance: &Allowance) -> http2::Builder<TokioExecutor> {
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(allowance.streams)
        .max_header_list_size(MAX_HEADERS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_DEADLINE);
    http2
}

/// Waits for the end of a connection's life, a stranger's until it has proved itself and a peer's
/// from then on, and answers how long its streams may still go on.
async fn until_old(
    mut proved: watch::Receiver<Standing>,
    stranger: &mut Option<Stranger>,
    place: &mut Option<Place>,
    places: &Places,
) -> Duration {
    let proof = proved.wait_for(|standing| *standing != Standing::Unproved);
    let standing = match time::timeout(age(OF_STRANGERS.age), proof).await {
        Ok(Ok(standing)) => standing.clone(),
        // its sender gone means that nobody asks any more
        Ok(Err(_)) | Err(_) => return OF_STRANGERS.grace,
    };
    if place.is_none()
        && let Standing::Workload(workload) = &standing
    {
        match places.of_workload(workload) {
            Ok(taken) => *place = Some(taken),
            Err(reason) => {
                tracing::info!(%workload, %reason, "a connection that proved itself by a token is closed");
                return GRACE_AT_END;
            }
        }
    }
    *stranger = None;
    time::sleep(age(OF_PEERS.age)).await;
    OF_PEERS.grace
}

/// All requests of one connection.
#[derive(Clone)]
struct Requests {
    routes: Routes,
    caller: Caller,
    allowance: &'static Allowance,
    bytes: ByteBudget,
    opened: Instant,
    rate: Arc<Mutex<RequestRate>>,
}

impl Requests {
    fn new(
        routes: Routes,
        caller: Caller,
        allowance: &'static Allowance,
        bytes: ByteBudget,
    ) -> Self {
        let rate = RequestRate::new(allowance.opens_per_second, allowance.open_burst);
        Self {
            routes,
            caller,
            allowance,
            bytes,
            opened: Instant::now(),
            rate: Mutex::new(rate).into(),
        }
    }

    async fn answer(mut self, request: http::Request<Incoming>) -> Answer {
        if let Err(status) = self.admit(request.uri().path()) {
            return Ok(status.into_http());
        }
        let Some(held) = self.bytes.begin() else {
            return Ok(Status::resource_exhausted(
                "the open streams of this workload hold as much as they may: close those not in use",
            )
            .into_http());
        };
        let proved = self.caller.proved.subscribe();
        let limit = self.allowance.request;
        let mut request = request.map(|body| RequestBody::new(body, limit, proved, held));
        request.extensions_mut().insert(self.caller);
        match time::timeout(REQUEST_DEADLINE, self.routes.call(request)).await {
            Ok(answer) => answer,
            Err(_) => Ok(Status::deadline_exceeded(format!(
                "the request was not here whole, or not answered, within {REQUEST_DEADLINE:?}"
            ))
            .into_http()),
        }
    }

    fn admit(&self, path: &str) -> Result<(), Status> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if !rate.take(1, self.opened.elapsed()) {
            return Err(Status::resource_exhausted(format!(
                "more than {} requests a second on one connection: back off",
                self.allowance.opens_per_second
            )));
        }
        if self.caller.peer.is_none() && path.starts_with(REFLECTION) {
            return Err(Status::unauthenticated(
                "reflection is for callers with a client certificate",
            ));
        }
        Ok(())
    }
}

type Answer = Result<http::Response<Body>, Infallible>;

/// Somewhere within the spread around `middle`.
fn age(middle: Duration) -> Duration {
    // Without random numbers everybody gets the same age, which is no reason to fail.
    let random = random_bytes::<2>().map_or(u16::MAX / 2, u16::from_be_bytes);
    let spread = middle.saturating_mul(AGE_SPREAD_PERCENT) / 100;
    let offset = spread.saturating_mul(2).saturating_mul(u32::from(random)) / u32::from(u16::MAX);
    middle.saturating_sub(spread).saturating_add(offset)
}

#[cfg(test)]
mod tests;
