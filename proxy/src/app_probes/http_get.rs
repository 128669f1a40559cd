//! An `httpGet` as the kubelet does it: its headers, its redirects, its idea of success.

use std::{net::SocketAddr, pin::pin};

use bytes::Bytes;
use futures::future::{Either, select};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{
        ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, LOCATION, TE, TRAILER, TRANSFER_ENCODING,
        USER_AGENT,
    },
};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_lite_proto::app_probes::{HttpProbe, ProbePort, Scheme};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Failure, Outcome, connect, tls};

/// As the kubelet: it follows ten, to the same host.
const MAX_REDIRECTS: usize = 10;
/// As the kubelet: the rest of a longer body is not read.
const MAX_BODY: usize = 10 * 1024;
/// Of the answer's head.
const MAX_HEAD: usize = 64 * 1024;
/// What the connection says itself, whatever the probe's author wrote.
const OURS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING];

/// Where the next request goes.
struct Place {
    scheme: Scheme,
    target: SocketAddr,
    path: String,
}

pub(super) async fn ask(
    probe: &HttpProbe,
    target: SocketAddr,
    is_hook: bool,
    deadline: Instant,
) -> Result<Outcome, Failure> {
    let headers = headers(probe, is_hook)?;
    let mut place = Place {
        scheme: probe.scheme(),
        target,
        path: probe.path().to_owned(),
    };
    for _ in 0..=MAX_REDIRECTS {
        let answer = get(&place, &headers, deadline).await?;
        match redirected(&answer, &place)? {
            Some(next) => place = next,
            None => return Ok(judged(answer.status(), target, is_hook)),
        }
    }
    Err(Failure::Said(format!(
        "{target} redirects more than {MAX_REDIRECTS} times"
    )))
}

/// Any answer to a hook is a success: it has been asked.
fn judged(status: StatusCode, target: SocketAddr, is_hook: bool) -> Outcome {
    let good = is_hook || status.is_success() || status.is_redirection();
    Outcome {
        status: if good { StatusCode::OK } else { status },
        words: format!("{target} answers with status {}", status.as_u16()),
    }
}

fn headers(probe: &HttpProbe, is_hook: bool) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in probe.headers() {
        let unusable = || Failure::Said(format!("no request can have the header {name:?}"));
        let parsed = HeaderName::try_from(name).map_err(|_| unusable())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unusable())?;
        if !OURS.contains(&parsed) {
            headers.append(parsed, value);
        }
    }
    if headers.get(ACCEPT).is_some_and(HeaderValue::is_empty) {
        headers.remove(ACCEPT);
    } else {
        or_insert(&mut headers, ACCEPT, "*/*");
    }
    let agent = if is_hook {
        "kube-lifecycle/mesh-lite"
    } else {
        "kube-probe/mesh-lite"
    };
    or_insert(&mut headers, USER_AGENT, agent);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

fn or_insert(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers
        .entry(name)
        .or_insert(HeaderValue::from_static(value));
}

/// The answer's head, once its body (or the beginning of a long one) has come.
async fn get(
    place: &Place,
    headers: &HeaderMap,
    deadline: Instant,
) -> Result<Response<()>, Failure> {
    let Place {
        scheme,
        target,
        path,
    } = place;
    let unusable = |error: &dyn std::fmt::Display| Failure::Said(format!("{target}: {error}"));
    let mut request = Request::get(path.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| unusable(&error))?;
    *request.headers_mut() = headers.clone();
    if !headers.contains_key(HOST) {
        let host = HeaderValue::try_from(target.to_string()).map_err(|error| unusable(&error))?;
        request.headers_mut().insert(HOST, host);
    }
    let (socket, _own) = connect(*target, deadline).await?.into_parts();
    let stream: Box<dyn Stream> = match scheme {
        Scheme::Http => Box::new(socket),
        Scheme::Https => Box::new(tls::connect(*target, socket).await?),
    };
    exchange(stream, request)
        .await
        .map_err(|error| Failure::Said(format!("{target} gave no answer in HTTP: {error}")))
}

/// One type for both schemes: this is the same code.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<Response<()>> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let asking = async move {
        let answer = sender.send_request(request).await?;
        let (head, mut body) = answer.into_parts();
        let mut read = 0;
        while read < MAX_BODY
            && let Some(frame) = body.frame().await
        {
            read += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(Response::from_parts(head, ()))
    };
    match select(pin!(asking), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        Either::Right((_, asking)) => asking.await,
    }
}

/// Where the answer leads, if the kubelet would go there.
fn redirected(answer: &Response<()>, from: &Place) -> Result<Option<Place>, Failure> {
    let follows = matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = answer.headers().get(LOCATION).filter(|_| follows) else {
        return Ok(None);
    };
    let said = |words: &str| Failure::Said(format!("{} redirects {words}", from.target));
    let location = location
        .to_str()
        .map_err(|_| said("to what is no address"))?;
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with("//") || location.contains("://") {
        return elsewhere(location, from);
    }
    let path = if location.starts_with('/') {
        location.to_owned()
    } else {
        let (path, _) = from.path.split_once('?').unwrap_or((&from.path, ""));
        let folder = match location.strip_prefix('?') {
            Some(_) => path,
            None => path.rsplit_once('/').map_or("", |(folder, _)| folder),
        };
        let slash = if location.starts_with('?') { "" } else { "/" };
        format!("{folder}{slash}{location}")
    };
    Ok(Some(Place {
        scheme: from.scheme,
        target: from.target,
        path,
    }))
}

/// A whole URL: followed if its host is the pod's address. At another host the kubelet stops, and
/// is content.
fn elsewhere(location: &str, from: &Place) -> Result<Option<Place>, Failure> {
    let said = |words: &str| Failure::Said(format!("{} redirects {words}", from.target));
    let whole = match (location.strip_prefix("//"), from.scheme) {
        (None, _) => location.to_owned(),
        (Some(rest), Scheme::Http) => format!("http://{rest}"),
        (Some(rest), Scheme::Https) => format!("https://{rest}"),
    };
    let uri: Uri = whole.parse().map_err(|_| said("to what is no address"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    if host.parse() != Ok(from.target.ip()) {
        return Ok(None);
    }
    let (scheme, standard) = match uri.scheme_str() {
        Some("http") => (Scheme::Http, 80),
        Some("https") => (Scheme::Https, 443),
        _ => return Err(said("to something else than HTTP")),
    };
    let port = uri.port_u16().unwrap_or(standard);
    ProbePort::new(port).map_err(|_| said("to a port of the sidecar"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Some(Place {
        scheme,
        target: SocketAddr::new(from.target.ip(), port),
        path: path.to_owned(),
    }))
}
