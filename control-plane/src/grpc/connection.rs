//! One HTTP/2 connection: its limits, its age, and how it ends: GOAWAY, then streams end with
//! UNAVAILABLE, then the socket is closed (SDS-S22).

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http2;
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

use crate::{
    caller::{Caller, Peer},
    certificate_authority::random::random_bytes,
};

/// Long streams move to another replica, and to the current certificate, at least this often.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// A caller without a certificate asks for one and comes back with it.
const MAX_AGE_OF_STRANGERS: Duration = Duration::from_secs(60);
/// Spread of the age, so that what connected together does not come back together: ± 20 %.
const AGE_SPREAD_PERCENT: u32 = 20;
/// Between GOAWAY and the end of the streams, so that the client can open the next connection
/// first.
const GRACE: Duration = Duration::from_secs(10);
/// The same when the process ends.
const GRACE_AT_END: Duration = Duration::from_millis(200);
/// For the last words of the streams to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A sidecar has three streams; Envoy one per secret (SDS-S21).
const MAX_STREAMS: u32 = 256;
/// New requests on one connection: a client that restarts opens a handful (SDS-S21).
const OPENS_PER_SECOND: u32 = 20;
const OPEN_BURST: u32 = 300;
/// A token and a few names.
const MAX_HEADERS: u32 = 32 * 1024;
/// A peer that is gone without a word is noticed within the sum of these.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_DEADLINE: Duration = Duration::from_secs(20);

/// Whether the control plane goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    NotYet,
    Now,
}

pub(super) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    routes: Routes,
    peer: Option<Arc<Peer>>,
    mut ending: watch::Receiver<Ending>,
) {
    let age = age(if peer.is_some() {
        MAX_AGE
    } else {
        MAX_AGE_OF_STRANGERS
    });
    let (close, closing) = watch::channel(false);
    let caller = Caller { peer, closing };
    let opened = Instant::now();
    let rate = Arc::new(std::sync::Mutex::new(RequestRate::new(
        OPENS_PER_SECOND,
        OPEN_BURST,
    )));
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        let mut routes = routes.clone();
        let admitted = rate
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take(1, opened.elapsed());
        request.extensions_mut().insert(caller.clone());
        async move {
            if admitted {
                routes.call(request).await
            } else {
                Ok(too_many_requests())
            }
        }
    });
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_DEADLINE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
    );
    let grace = tokio::select! {
        _ = connection.as_mut() => return,
        () = time::sleep(age) => GRACE,
        _ = ending.wait_for(|ending| *ending == Ending::Now) => GRACE_AT_END,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection.as_mut() => return,
        () = time::sleep(grace) => {}
        _ = ending.wait_for(|ending| *ending == Ending::Now), if grace == GRACE => {}
    }
    close.send_replace(true);
    // An error here is the connection's end, which is what is wanted.
    let _ = time::timeout(LAST_WORDS, connection).await;
}

fn too_many_requests() -> http::Response<Body> {
    Status::resource_exhausted(format!(
        "more than {OPENS_PER_SECOND} requests a second on one connection: back off"
    ))
    .into_http()
}

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
