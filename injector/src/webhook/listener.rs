//! The API server's connections: TLS 1.3, HTTP/1.1, one POST after the other.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Ending, LAST_ANSWERS,
    places::{Place, Places},
    review::Reviews,
};
use crate::{metrics::Metrics, serving_certificate::keeper::Serving};

/// A handshake is two messages; the API server waits three seconds for everything.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// The API server connects when it has something to ask: who says nothing only takes a place.
const FIRST_REQUEST: Duration = Duration::from_secs(5);
/// After an answer. The API server keeps a connection for 90 s and must be the one who closes it:
/// its next call on a closed one would fail. It also bounds how long the head of a request may
/// take, which costs no more than a connection that says nothing.
const IDLE: Duration = Duration::from_secs(120);
/// From the head of a request to its answer: the API server has given up by then.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// The API server sends less than 1 KB of headers.
const MAX_HEAD: usize = 16 * 1024;
const BACK_OFF: Duration = Duration::from_millis(100);
const PATH: &str = "/inject";

#[derive(Clone)]
pub(super) struct Listener {
    pub(super) serving: watch::Receiver<Serving>,
    pub(super) reviews: Arc<Reviews>,
    pub(super) metrics: Metrics,
    pub(super) ending: watch::Receiver<Ending>,
}

impl Listener {
    /// Accepts until the end, and then answers what was asked.
    pub(super) async fn run(mut self, socket: TcpListener) {
        let places = Places::default();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = self.ending.wait_for(|ending| *ending == Ending::Now) => break,
                // those that ended, so that they are forgotten
                Some(_) = connections.join_next() => continue,
                accepted = socket.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            match places.take(from.ip()) {
                Some(place) => {
                    connections.spawn(self.clone().serve(stream, place));
                }
                // closed at once: a flood must not keep others from being accepted
                None => self.metrics.handshake("no_place"),
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }

    async fn serve(self, stream: TcpStream, place: Place) {
        tokio::select! {
            () = place.lost() => self.metrics.handshake("no_place"),
            () = self.converse(stream, &place) => {}
        }
    }

    async fn converse(&self, stream: TcpStream, place: &Place) {
        let tls = self.serving.borrow().tls.clone();
        let Some(tls) = tls else {
            return self.metrics.handshake("no_certificate");
        };
        let stream = match handshake(tls, stream).await {
            Ok(stream) => stream,
            Err(outcome) => return self.metrics.handshake(outcome),
        };
        self.metrics.handshake("ok");
        let _open = self.metrics.connection();
        let asked = Notify::new();
        let service = service_fn(|request| {
            asked.notify_one();
            async { Ok::<_, Infallible>(self.answer(place, request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .max_buf_size(MAX_HEAD)
                // head and body in one write: two cost 48 ms per pod
                .writev(false)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut ending = self.ending.clone();
        // an error is a client that went away or speaks no HTTP, and the connection's end
        tokio::select! {
            _ = connection.as_mut() => return,
            () = never_asked(&asked) => return,
            _ = ending.wait_for(|ending| *ending == Ending::Now) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = time::timeout(LAST_ANSWERS, connection).await;
    }

    async fn answer(&self, place: &Place, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let routed = self.route(place, request);
        let mut response = match time::timeout(REQUEST_DEADLINE, routed).await {
            Ok(response) => response,
            Err(_) => said(
                StatusCode::REQUEST_TIMEOUT,
                "the request was not here whole within 5 s\n",
            ),
        };
        if *self.ending.borrow() != Ending::NotYet || response.status() != StatusCode::OK {
            // another replica next time; and whoever sends what we do not take starts anew
            close_after(&mut response);
        }
        response
    }

    /// By the path alone: the API server adds `?timeout=3s`.
    async fn route(&self, place: &Place, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return said(StatusCode::NOT_FOUND, "there is POST /inject\n");
        }
        if request.method() != Method::POST {
            return said(StatusCode::METHOD_NOT_ALLOWED, "only POST\n");
        }
        let answered = self.reviews.answer(place.source(), request.into_body());
        match answered.await {
            Ok(reply) => {
                let mut response = Response::new(Full::new(reply.json));
                if reply.is_to_review {
                    place.prove();
                } else {
                    close_after(&mut response);
                }
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                response
            }
            Err(error) => said(error.status(), &format!("{error}\n")),
        }
    }
}

/// Ends when the first request is late; never if there was one.
async fn never_asked(asked: &Notify) {
    if time::timeout(FIRST_REQUEST, asked.notified()).await.is_ok() {
        std::future::pending().await
    }
}

fn close_after(response: &mut Response<Full<Bytes>>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
}

async fn handshake(
    tls: Arc<ServerConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, &'static str> {
    let accepting = async {
        stream.set_nodelay(true)?;
        TlsAcceptor::from(tls).accept(stream).await
    };
    match time::timeout(HANDSHAKE_DEADLINE, accepting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err("closed"),
        Ok(Err(error)) => {
            tracing::debug!(error = %error.to_string().escape_debug(), "a TLS handshake failed");
            Err("tls")
        }
        Err(_) => Err("deadline"),
    }
}

fn said(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
