//! One HTTP/2 connection at the workload socket: who it is, how much it may ask, how it ends.

use std::{
    convert::Infallible,
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
    net::UnixStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tonic::{Status, body::Body, service::Routes};
use tower::{Service as _, service_fn};

use super::shares::{MAX_REQUESTS, Place, Share};
use crate::metrics::{Metrics, SocketRefusal};

/// Envoy opens one for each secret, of which there are five (SDS-S21).
const MAX_STREAMS: u32 = 32;
/// A connection without a stream, and without a request that waits for its answer, gives its
/// place back; a client that was about to ask connects again.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// New requests on one connection: an Envoy that starts opens all of its streams (SDS-S21).
const OPENS_PER_SECOND: u32 = 10;
const OPEN_BURST: u32 = 300;
/// A few names; nobody brings a token here.
const MAX_HEADERS: u32 = 16 * 1024;
/// From the head of a request to the head of its answer; a stream has begun by then.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// For a stranger to ask and to hear that it may not.
const STRANGER_TIME: Duration = Duration::from_secs(5);
const STRANGER_STREAMS: u32 = 4;
/// At the end: for the streams' last words to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Who opened a connection, by the kernel's word at that moment (SDS-S24).
#[derive(Debug, Clone)]
pub(super) struct OpenedBy {
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
    /// Becomes true when the sidecar ends.
    pub(super) closing: watch::Receiver<bool>,
}

/// Who asks, and what it holds here until its stream has ended or its request is answered.
#[derive(Debug, Clone)]
pub(super) struct LocalCaller {
    pub(super) opened_by: OpenedBy,
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    _place: Place,
    _counted: Counted,
}

pub(super) enum Welcome {
    In {
        routes: Routes,
        share: Share,
        metrics: Metrics,
    },
    /// Every request is answered with PERMISSION_DENIED.
    Not,
}

pub(super) async fn serve(stream: UnixStream, opened_by: OpenedBy, welcome: Welcome) {
    let mut closing = opened_by.closing.clone();
    let (streams, stay) = match &welcome {
        Welcome::In { .. } => (MAX_STREAMS, Duration::MAX),
        Welcome::Not => (STRANGER_STREAMS, STRANGER_TIME),
    };
    let open = Arc::new(watch::Sender::new(0));
    let requests = Requests {
        welcome: Arc::new(welcome),
        opened_by,
        open: Arc::clone(&open),
        opened: Instant::now(),
        rate: Arc::new(Mutex::new(RequestRate::new(OPENS_PER_SECOND, OPEN_BURST))),
    };
    let service = service_fn(move |request| requests.clone().answer(request));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .max_header_list_size(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(stay) => {}
        () = idle(open.subscribe()) => {}
        () = closed(&mut closing) => {}
    }
    connection.as_mut().graceful_shutdown();
    // an error here is the connection's end, which is what is wanted
    let _ = timeout(LAST_WORDS, connection).await;
}

/// Completes when nothing has been open for a while.
async fn idle(mut open: watch::Receiver<usize>) {
    while open.wait_for(|open| *open == 0).await.is_ok() {
        if timeout(IDLE, open.changed()).await.is_err() {
            return;
        }
    }
}

/// Counts what is open on a connection, until dropped.
#[derive(Debug)]
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn by(open: &Arc<watch::Sender<usize>>) -> Self {
        open.send_modify(|open| *open = open.saturating_add(1));
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// Completes when the sidecar ends.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // its sender gone means the same
    let _ = closing.wait_for(|closing| *closing).await;
}

/// All requests of one connection.
#[derive(Clone)]
struct Requests {
    welcome: Arc<Welcome>,
    opened_by: OpenedBy,
    open: Arc<watch::Sender<usize>>,
    opened: Instant,
    rate: Arc<Mutex<RequestRate>>,
}

impl Requests {
    async fn answer(
        self,
        mut request: http::Request<Incoming>,
    ) -> Result<http::Response<Body>, Infallible> {
        let (mut routes, caller) = match self.admit() {
            Ok(admitted) => admitted,
            Err(status) => return Ok(status.into_http()),
        };
        request.extensions_mut().insert(caller);
        match timeout(REQUEST_DEADLINE, routes.call(request)).await {
            Ok(answer) => answer,
            Err(_) => Ok(Status::deadline_exceeded(format!(
                "the request was not here whole within {REQUEST_DEADLINE:?}"
            ))
            .into_http()),
        }
    }

    fn admit(&self) -> Result<(Routes, LocalCaller), Status> {
        let uid = self.opened_by.uid;
        let Welcome::In {
            routes,
            share,
            metrics,
        } = &*self.welcome
        else {
            return Err(Status::permission_denied(format!(
                "user {uid} may not have this workload's key: the sidecar's --workload-socket-uids names who may"
            )));
        };
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if !rate.take(1, self.opened.elapsed()) {
            return Err(Status::resource_exhausted(format!(
                "more than {OPENS_PER_SECOND} requests a second on one connection: back off"
            )));
        }
        let place = share.request().ok_or_else(|| {
            metrics.socket_refused(SocketRefusal::Streams);
            Status::resource_exhausted(format!(
                "user {uid} has {MAX_REQUESTS} streams and requests open here: it may not have more"
            ))
        })?;
        let caller = LocalCaller {
            opened_by: self.opened_by.clone(),
            _held: Arc::new(Held {
                _place: place,
                _counted: Counted::by(&self.open),
            }),
        };
        Ok((routes.clone(), caller))
    }
}
