//! A small HTTP/1.1 server for pages that only read: one GET a connection, every size and every
//! wait bounded.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use mesh_lite_proto::app_probes::{PATH_PREFIX, ProbeName};

use super::{Page, Pages};
use crate::{
    app_probes::{AppProber, Asked, NotAsked},
    metrics::Metrics,
};

/// A request line and headers of a probe, of Prometheus or of curl take a few hundred bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
/// A connection, from accept to its last byte. Prometheus gives up after 10 s by default.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
const HEADER_TIME: Duration = Duration::from_secs(3);
/// Open at a time. One more ends the oldest of the address that has most: somebody who holds all
/// of them open can thus not keep a probe of somebody else from being answered.
const MAX_CONNECTIONS: usize = 32;
/// After an accept that failed for want of files or memory: at once it would fail again.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// A listener with its pages.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    pages: Pages,
    metrics: Metrics,
    loopback_only: bool,
    app_probes: Option<Arc<AppProber>>,
}

/// What an answer depends on.
struct Served {
    pages: Pages,
    loopback_only: bool,
    app_probes: Option<Arc<AppProber>>,
    asked: Asked,
}

impl AdminServer {
    /// For health and metrics, on any address.
    ///
    /// # Errors
    /// If the address can't be bound.
    pub async fn bind(
        address: SocketAddr,
        pages: Pages,
        metrics: &Metrics,
    ) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError::Bind { address, source })?;
        Ok(Self {
            listener,
            pages,
            metrics: metrics.clone(),
            loopback_only: false,
            app_probes: None,
        })
    }

    /// Also answers probes of the application.
    #[must_use]
    pub fn with_app_probes(self, prober: &Arc<AppProber>) -> Self {
        Self {
            app_probes: Some(Arc::clone(prober)),
            ..self
        }
    }

    /// For what only people with a shell in the pod, or the right to forward its ports, may
    /// read. Also asks for a `Host` on loopback: a web page whose name somebody points at
    /// 127.0.0.1 reads nothing.
    ///
    /// # Errors
    /// If the address is not on loopback, or can't be bound.
    pub async fn bind_loopback(
        address: SocketAddr,
        pages: Pages,
        metrics: &Metrics,
    ) -> Result<Self, BindError> {
        if !address.ip().to_canonical().is_loopback() {
            return Err(BindError::NotLoopback(address));
        }
        Ok(Self {
            loopback_only: true,
            ..Self::bind(address, pages, metrics).await?
        })
    }

    /// # Errors
    /// If the system can't tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped, and with it every connection.
    pub async fn serve(self) {
        let mut tasks = JoinSet::new();
        let mut open: VecDeque<(IpAddr, AbortHandle)> = VecDeque::new();
        loop {
            let (stream, by) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.metrics.accept_failed(&error);
                    tracing::debug!(%error, "accepting on an admin listener failed");
                    sleep(ACCEPT_BACK_OFF).await;
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            open.retain(|(_, connection)| !connection.is_finished());
            if open.len() >= MAX_CONNECTIONS {
                end_one(&mut open);
            }
            if let Ok(at) = stream.local_addr() {
                let served = self.served(Asked { at, by });
                open.push_back((by.ip(), tasks.spawn(serve_one(stream, served))));
            }
        }
    }

    fn served(&self, asked: Asked) -> Served {
        Served {
            pages: self.pages.clone(),
            loopback_only: self.loopback_only,
            app_probes: self.app_probes.clone(),
            asked,
        }
    }
}

/// Ends the oldest connection of the address that has most.
fn end_one(open: &mut VecDeque<(IpAddr, AbortHandle)>) {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for (by, _) in open.iter() {
        *counts.entry(*by).or_default() += 1;
    }
    let most = counts.values().copied().max();
    let oldest = open
        .iter()
        .position(|(by, _)| counts.get(by).copied() == most);
    if let Some((_, connection)) = oldest.and_then(|oldest| open.remove(oldest)) {
        connection.abort();
    }
}

async fn serve_one(stream: TcpStream, served: Served) {
    let longest = served.app_probes.as_ref().map(|prober| prober.longest());
    let served = &served;
    let answer_one =
        service_fn(|request: Request<Incoming>| async move { answer(&request, served).await });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADER_TIME)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), answer_one);
    match timeout(CONNECTION_TIME + longest.unwrap_or_default(), connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a request to the admin pages failed"),
        Err(_) => tracing::debug!("a request to the admin pages took too long"),
    }
}

/// # Errors
/// Where no answer must be given: the connection ends without one.
async fn answer(
    request: &Request<Incoming>,
    served: &Served,
) -> Result<Response<Full<Bytes>>, NotAsked> {
    if request.method() != Method::GET {
        let mut response = plain(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET: this only reads\n",
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return Ok(response);
    }
    if !request.body().is_end_stream() {
        return Ok(plain(
            StatusCode::PAYLOAD_TOO_LARGE,
            "a request here has no body\n",
        ));
    }
    if served.loopback_only && !host_is_loopback(request) {
        return Ok(plain(
            StatusCode::FORBIDDEN,
            "ask for localhost, 127.0.0.1 or [::1]\n",
        ));
    }
    let path = request.uri().path();
    if let Some(prober) = &served.app_probes
        && path.starts_with(PATH_PREFIX)
    {
        return probed(prober, path, served.asked).await.map(shown);
    }
    Ok(match served.pages.at(path).await {
        Some(page) => shown(page),
        None => plain(
            StatusCode::NOT_FOUND,
            "no such page; / lists them where there are more\n",
        ),
    })
}

/// What the application answers to one of its probes. The kubelet takes every answer to a hook for
/// a success: one that was not run gets none.
async fn probed(prober: &AppProber, path: &str, asked: Asked) -> Result<Page, NotAsked> {
    let (status, words) = match prober.ask(path, asked).await {
        Ok(outcome) => (outcome.status, outcome.words),
        Err(failed) if is_hook(path) => {
            tracing::warn!(hook = path, by = %asked.by, "a hook failed: {failed}");
            return Err(failed);
        }
        Err(not @ NotAsked::Unknown) => (StatusCode::NOT_FOUND, not.to_string()),
        Err(hook @ (NotAsked::NotThePodsNode(..) | NotAsked::HookFailed(_))) => return Err(hook),
        Err(not @ NotAsked::Busy) => (StatusCode::SERVICE_UNAVAILABLE, not.to_string()),
    };
    Ok(Page::text(words + "\n").with_status(status))
}

fn is_hook(path: &str) -> bool {
    path.parse::<ProbeName>()
        .is_ok_and(|name| name.kind.is_hook())
}

fn host_is_loopback(request: &Request<Incoming>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(authority) = host
        .to_str()
        .unwrap_or_default()
        .parse::<http::uri::Authority>()
    else {
        return false;
    };
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn shown(page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(page.body));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = shown(Page::text(body.to_owned()));
    *response.status_mut() = status;
    response
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    #[error(
        "{0} is not a loopback address: the admin pages name identities and policies, so they \
         are on 127.0.0.0/8 or [::1] only; change --admin-listen"
    )]
    NotLoopback(SocketAddr),
    #[error("{address} can't be bound: {source}; is another program, or another sidecar, on it?")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
}
