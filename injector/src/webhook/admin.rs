//! Port 15014, plain HTTP, reads only.
//!
//! | path | answers |
//! | --- | --- |
//! | `/metrics` | OpenMetrics |
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 while pods can be judged; else the text says what is missing |

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time,
};

use super::Ending;
use crate::{
    clock::Clock,
    metrics::Metrics,
    namespaces::Namespaces,
    serving_certificate::keeper::{Registered, Serving},
};

/// A kubelet, Prometheus, a person or two.
const MAX_CONNECTIONS: usize = 64;
/// A request and its answer, with room for a slow reader.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// Nobody asks in pieces.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
const BACK_OFF: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(super) struct Admin {
    pub(super) metrics: Metrics,
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) namespaces: Namespaces,
    pub(super) ending: watch::Receiver<Ending>,
    pub(super) clock: Clock,
}

impl Admin {
    /// Runs until the process ends: the kubelet asks until then.
    pub(super) async fn run(self, socket: TcpListener) {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let Ok((stream, _)) = socket.accept().await else {
                time::sleep(BACK_OFF).await;
                continue;
            };
            open.retain(|connection| !connection.is_finished());
            // Whoever holds all of them open must not keep the kubelet, whose request takes
            // milliseconds, from its answer: it would end the process.
            if open.len() >= MAX_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            let admin = self.clone();
            let connection = tokio::spawn(async move {
                // an error here is a client that went away
                let _ = time::timeout(CONNECTION_DEADLINE, admin.serve(stream)).await;
            });
            open.push_back(connection.abort_handle());
        }
    }

    async fn serve(self, stream: TcpStream) -> Result<(), hyper::Error> {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.method(), request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .serve_connection(TokioIo::new(stream), service)
            .await
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez and /readyz\n".to_owned(),
            ),
        }
    }

    /// Once ready, an API server that is away takes nothing from it: what was known still is.
    fn ready(&self) -> Response<Full<Bytes>> {
        let serving = self.serving.borrow().clone();
        let missing = [
            (*self.ending.borrow() != Ending::NotYet, "ending"),
            (
                serving.tls.is_none(),
                "the webhook has no certificate yet: the Secret mesh-lite-injector-serving could not be read or made; the log says why",
            ),
            (
                !self.namespaces.listed(),
                "the namespaces could not be listed yet; the log says why",
            ),
            (
                serving.registered == Registered::Unknown,
                "it is not known yet whether the API server trusts the webhook's certificate; the log says why",
            ),
        ];
        let missing: String = missing
            .into_iter()
            .filter(|(is_missing, _)| *is_missing)
            .flat_map(|(_, text)| [text, "\n"])
            .collect();
        if !missing.is_empty() {
            return text(StatusCode::SERVICE_UNAVAILABLE, missing);
        }
        let said = match serving.registered {
            Registered::Unknown | Registered::Current => "ok\n",
            Registered::Absent => {
                "serving, but there is no MutatingWebhookConfiguration mesh-lite-injector: nobody calls. Apply what `mesh-lite install` prints\n"
            }
            Registered::Behind => {
                "serving, but the MutatingWebhookConfiguration mesh-lite-injector does not carry the CA yet; the log says why\n"
            }
        };
        text(StatusCode::OK, said.to_owned())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let serving = self.serving.borrow().clone();
        match self.metrics.encode(&serving, (self.clock)()) {
            Ok(metrics) => open_metrics(metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn open_metrics(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
