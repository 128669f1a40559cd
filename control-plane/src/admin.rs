//! Port 15014, plain HTTP, reads only.
//!
//! | path | answers |
//! | --- | --- |
//! | `/metrics` | OpenMetrics |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 while it serves; the text names what is wrong, document by document |

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time,
};

use crate::{
    condition::{Conditions, Part},
    grpc::connection::Ending,
    metrics::Metrics,
};

/// Prometheus, a kubelet, a person or two.
const MAX_CONNECTIONS: usize = 64;
/// Nobody asks in pieces.
const HEADER_DEADLINE: Duration = Duration::from_secs(5);
/// A request and its answer, with room for a slow reader.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(60);
const BACK_OFF: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) metrics: Metrics,
    pub(crate) conditions: Conditions,
    /// True once workloads are served.
    pub(crate) serves: watch::Receiver<bool>,
    pub(crate) ending: watch::Receiver<Ending>,
}

impl Admin {
    pub(crate) async fn run(mut self, socket: TcpListener) {
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                _ = self.ending.wait_for(|ending| *ending == Ending::Now) => return,
                accepted = socket.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
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
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.ready(),
            "/metrics" => match self.metrics.encode() {
                Ok(metrics) => open_metrics(metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /healthz and /readyz\n".to_owned(),
            ),
        }
    }

    /// A broken document takes nobody's certificate away: the text says it, the status stays.
    fn ready(&self) -> Response<Full<Bytes>> {
        if *self.ending.borrow() == Ending::Now {
            return text(StatusCode::SERVICE_UNAVAILABLE, "ending\n".to_owned());
        }
        let problems: Vec<String> = Part::ALL
            .into_iter()
            .flat_map(|part| {
                let texts = self.conditions.of(part);
                texts
                    .into_iter()
                    .map(move |text| format!("{}: {text}\n", part.name()))
            })
            .collect();
        if !*self.serves.borrow() {
            let heading = "not serving yet: the objects of the cluster are being read\n".to_owned();
            return text(
                StatusCode::SERVICE_UNAVAILABLE,
                heading + &problems.concat(),
            );
        }
        if problems.is_empty() {
            return text(StatusCode::OK, "ok\n".to_owned());
        }
        let heading = match problems.len() {
            1 => "serving, with 1 problem:\n".to_owned(),
            count => format!("serving, with {count} problems:\n"),
        };
        text(StatusCode::OK, heading + &problems.concat())
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn open_metrics(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
