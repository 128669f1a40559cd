//! What a caller without certificate can make the control plane hold.

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tonic::body::Body;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Service as _, ServiceExt as _};

use super::*;

const FETCH: &str = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// The gRPC status of a request that announces so many bytes, sends so many and then no more.
async fn status_of(channel: &Channel, path: &str, announced: u32, sent: usize) -> Code {
    let mut bytes = vec![0];
    bytes.extend(announced.to_be_bytes());
    bytes.resize(bytes.len() + sent, 0);
    let bytes: Vec<_> = bytes
        .chunks(16 * 1024)
        .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    let body = StreamBody::new(tokio_stream::iter(bytes).chain(tokio_stream::pending()));
    let request = http::Request::post(format!("http://control-plane{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .unwrap();
    let mut channel = channel.clone();
    let answer = channel.ready().await.unwrap().call(request).await.unwrap();
    let status = answer.headers().get("grpc-status").expect("an error");
    Code::from_bytes(status.as_bytes())
}

async fn stranger() -> Served {
    served(trust(&[&root()]), None).await
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_whole_ends_at_its_deadline() {
    let served = stranger().await;
    let began = time::Instant::now();
    for path in [FETCH, CHECK] {
        let ended = status_of(&served.channel, path, 60_000, 100).await;
        assert_eq!(ended, Code::DeadlineExceeded, "{path}");
    }
    assert!(
        began.elapsed() <= Duration::from_secs(21),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_announced_or_sent_is_bounded_before_the_deadline() {
    let served = stranger().await;
    let began = time::Instant::now();
    let announced = status_of(&served.channel, CHECK, 65 * 1024, 0).await;
    assert_eq!(announced, Code::OutOfRange);
    let announced = status_of(&served.channel, FETCH, 2 * 1024 * 1024, 0).await;
    assert_eq!(announced, Code::OutOfRange);
    let sent = status_of(&served.channel, FETCH, 900 * 1024, 200 * 1024).await;
    assert_ne!(sent, Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_fifth_stream_waits_until_another_ends() {
    let served = stranger().await;
    let watch = async || {
        let mut client = HealthClient::new(served.channel.clone());
        let opening = client.watch(HealthCheckRequest::default());
        time::timeout(Duration::from_secs(1), opening).await
    };
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(watch().await.unwrap().unwrap());
    }
    assert!(watch().await.is_err());
    open.pop();
    assert!(watch().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn reflection_is_for_callers_with_a_certificate() {
    let served = stranger().await;
    let refused = status_of(&served.channel, REFLECT, 0, 0).await;
    assert_eq!(refused, Code::Unauthenticated);
}
