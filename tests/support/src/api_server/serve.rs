//! Requests and watches over HTTP/1.1.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::answer::{Answer, Asked, answer};
use super::failure::Failure;
use super::kinds::Kind;
use super::patch::metadata_only;
use super::selector::Selector;
use super::store::Change;
use super::{Call, Shared, Signal, Trouble};

type Body = BoxBody<Bytes, Infallible>;

/// Events that wait for a slow reader of a watch.
const WAITING: usize = 64;

pub(super) async fn accept(shared: Arc<Shared>, listener: tokio::net::TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(respond(shared, request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let header = |name: &str| {
        let value = parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let body = match body.collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(error) => return refusal(&Failure::bad_request(error.to_string())),
    };
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        accept: header("accept"),
        content_type: header("content-type"),
        body,
    };
    let trouble = shared.record(Call {
        method: asked.method.clone(),
        path: asked.path.clone(),
        query: asked.query.clone(),
        body: serde_json::from_slice(&asked.body).unwrap_or(Value::Null),
        authorization: header("authorization"),
    });
    match trouble {
        Some(Trouble::Hang) => std::future::pending().await,
        Some(Trouble::Status(code)) => {
            return refusal(&Failure::scripted(code, &asked.method, &asked.path));
        }
        None => {}
    }
    let (answered, signal) = shared.change(|state| answer(state, &asked));
    match answered {
        Ok(Answer::Document(code, document)) => document_response(code, &document),
        Ok(Answer::Text(text)) => Response::new(Full::new(Bytes::from(text)).boxed()),
        Ok(Answer::Watch(kind, namespace)) => watch(shared, signal, &asked, kind, namespace),
        Err(failure) => refusal(&failure),
    }
}

fn refusal(failure: &Failure) -> Response<Body> {
    document_response(failure.code, &failure.status())
}

fn document_response(code: u16, document: &Value) -> Response<Body> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(document.to_string())).boxed())
        .unwrap()
}

/// One running watch.
struct Watch {
    shared: Arc<Shared>,
    signal: tokio::sync::watch::Receiver<Signal>,
    kind: Kind,
    namespace: String,
    selector: Selector,
    metadata_only: bool,
    bookmarks: bool,
    /// Everything up to here was sent.
    revision: u64,
    events: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
}

fn watch(
    shared: Arc<Shared>,
    signal: tokio::sync::watch::Receiver<Signal>,
    asked: &Asked,
    kind: Kind,
    namespace: String,
) -> Response<Body> {
    let (events, receiver) = mpsc::channel(WAITING);
    let from = asked.parameter("resourceVersion");
    let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or(0);
    let initial = asked.is_true("sendInitialEvents");
    let patience = asked
        .parameter("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let patience = Duration::from_secs(patience.unwrap_or(3600));
    let watch = Watch {
        shared,
        signal,
        kind,
        namespace,
        selector: asked.selector(),
        metadata_only: asked.metadata_only(),
        bookmarks: asked.is_true("allowWatchBookmarks"),
        revision: from,
        events,
    };
    tokio::spawn(async move {
        let _ = tokio::time::timeout_at(Instant::now() + patience, watch.run(initial)).await;
    });
    Response::builder()
        .header("content-type", "application/json")
        .body(StreamBody::new(ReceiverStream::new(receiver)).boxed())
        .unwrap()
}

impl Watch {
    /// Until the reader is gone or the script ends it.
    async fn run(mut self, initial: bool) -> Option<()> {
        let begun = self.signal.borrow_and_update().clone();
        let mut bookmarks = begun.bookmarks;
        if initial || self.revision == 0 {
            self.send_present(initial).await?;
        }
        loop {
            // before the changes are read: one that comes meanwhile then wakes this again
            let now = self.signal.borrow_and_update().clone();
            let (changes, forgotten, revision) = self.shared.changes_since(self.revision);
            if self.revision < forgotten {
                let failure = Failure::expired(self.revision, forgotten);
                return self.send("ERROR", failure.status()).await;
            }
            self.revision = revision;
            for change in changes {
                self.send_change(&change).await?;
            }
            if now.ended != begun.ended {
                return None;
            }
            if now.expired != begun.expired {
                let failure = Failure::expired(self.revision, revision);
                return self.send("ERROR", failure.status()).await;
            }
            if now.bookmarks != bookmarks {
                bookmarks = now.bookmarks;
                self.send_bookmark(json!({})).await?;
            }
            tokio::select! {
                changed = self.signal.changed() => changed.ok()?,
                () = self.events.closed() => return None,
            }
        }
    }

    async fn send_present(&mut self, marked: bool) -> Option<()> {
        let (objects, revision) = self.shared.present(self.kind, &self.namespace);
        self.revision = revision;
        for object in objects {
            if self.selector.matches(&object) {
                self.send("ADDED", self.shape(&object)).await?;
            }
        }
        if marked {
            self.send_bookmark(json!({"k8s.io/initial-events-end": "true"}))
                .await?;
        }
        Some(())
    }

    async fn send_change(&self, change: &Change) -> Option<()> {
        let mine = |object: &&Arc<Value>| {
            let there = self.namespace.is_empty()
                || object["metadata"]["namespace"] == self.namespace.as_str();
            there && self.selector.matches(object)
        };
        if change.kind != self.kind {
            return Some(());
        }
        let (before, after) = (
            change.before.as_ref().filter(mine),
            change.after.as_ref().filter(mine),
        );
        match (before, after) {
            (None, None) => Some(()),
            (None, Some(after)) => self.send("ADDED", self.shape(after)).await,
            (Some(_), Some(after)) => self.send("MODIFIED", self.shape(after)).await,
            (Some(before), None) => {
                let mut last = (**before).clone();
                last["metadata"]["resourceVersion"] = json!(change.revision.to_string());
                self.send("DELETED", self.shape(&last)).await
            }
        }
    }

    async fn send_bookmark(&self, annotations: Value) -> Option<()> {
        if !self.bookmarks {
            return Some(());
        }
        let bookmark = json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind,
            "metadata": {"resourceVersion": self.revision.to_string(),
                "creationTimestamp": null, "annotations": annotations}});
        self.send("BOOKMARK", self.shape(&bookmark)).await
    }

    fn shape(&self, object: &Value) -> Value {
        if self.metadata_only {
            metadata_only(object)
        } else {
            object.clone()
        }
    }

    async fn send(&self, kind: &str, object: Value) -> Option<()> {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.events
            .send(Ok(Frame::data(Bytes::from(line))))
            .await
            .ok()
    }
}
