//! What a workload with a certificate can make the control plane hold.

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};

use super::*;

const WATCH: &str = "/mesh_lite.v1.WorkloadDirectory/Watch";
const MIB: u32 = 1024 * 1024;

/// How a stream ends whose only message lacks its last byte for ever.
async fn unfinished(mut channel: Channel, length: u32) -> Code {
    let mut bytes = vec![0];
    bytes.extend(length.to_be_bytes());
    bytes.resize(bytes.len() + length as usize - 1, 0);
    let bytes: Vec<_> = bytes
        .chunks(16 * 1024)
        .map(|chunk| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(chunk))))
        .collect();
    let body = StreamBody::new(tokio_stream::iter(bytes).chain(tokio_stream::pending()));
    let request = http::Request::post(format!("http://control-plane{WATCH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(body))
        .unwrap();
    let answer = channel.ready().await.unwrap().call(request).await.unwrap();
    let (head, body) = answer.into_parts();
    if let Some(status) = head.headers.get("grpc-status") {
        return Code::from_bytes(status.as_bytes());
    }
    let ended = body.collect().await.unwrap();
    let trailers = ended.trailers().expect("trailers");
    Code::from_bytes(trailers.get("grpc-status").expect("a status").as_bytes())
}

/// The streams that fit hold what they said for ten seconds, the others nothing.
#[tokio::test(start_paused = true)]
async fn messages_that_are_never_whole_hold_little_and_not_for_long() {
    const STREAMS: usize = 40;
    let trust = trust(&[&root()]);
    let peer = peer(&trust);
    let served = served(trust, Some(peer)).await;
    let ends: Vec<_> = (0..STREAMS)
        .map(|_| tokio::spawn(unfinished(served.channel.clone(), MIB)))
        .collect();
    let mut codes = Vec::new();
    for end in ends {
        let end = time::timeout(Duration::from_secs(60), end).await;
        codes.push(end.expect("the stream ends").unwrap());
    }
    let count = |code: Code| codes.iter().filter(|found| **found == code).count();
    let (late, refused) = (
        count(Code::DeadlineExceeded),
        count(Code::ResourceExhausted),
    );
    assert_eq!(late + refused, STREAMS, "{codes:?}");
    assert!((1..=32).contains(&late), "{late}");
    // and what they held is there for others
    let whole = unfinished(served.channel.clone(), MIB);
    assert_eq!(whole.await, Code::DeadlineExceeded);
}

/// Envoy's node of 61 KB, a stream per secret.
#[tokio::test(start_paused = true)]
async fn as_many_streams_as_a_connection_takes_may_say_what_envoy_says() {
    let trust = trust(&[&root()]);
    let peer = peer(&trust);
    let served = served(trust, Some(peer)).await;
    let mut open = Vec::new();
    for _ in 0..250 {
        let mut request = ask(&[OWN_BUNDLE], None);
        request.node = Some(Node {
            id: "x".repeat(61 * 1024),
            ..Node::default()
        });
        let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
        let mut stream = client
            .stream_secrets(saying(request))
            .await
            .unwrap()
            .into_inner();
        assert!(stream.message().await.unwrap().is_some());
        open.push(stream);
    }
}
