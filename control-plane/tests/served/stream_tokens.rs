//! Reusable tokens, which open streams, and join tokens, which do not.

use std::time::Duration;

use mesh_lite_proto::secret_discovery::OWN_BUNDLE;
use rcgen::KeyPair;
use tonic::{Code, Status};

use super::{
    client::{csr, fetch_request, node, request_for, secrets, with_token},
    remote_keys::{TokenStream, stream_token, stream_token_for},
    running::Running,
};

/// SDS-S24: any number of times, on any number of connections.
#[tokio::test]
async fn opens_streams_again_and_again_and_answers_a_fetch() {
    let running = Running::start().await;
    let token = stream_token(&running.directories, "shop/web");
    let channel = running.anonymous().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let opening = TokenStream::open(channel.clone(), request_for(&[OWN_BUNDLE]), &token);
        let mut stream = opening.await.unwrap();
        assert_eq!(secrets(&stream.next().await.unwrap()).len(), 1);
        open.push(stream);
    }
    let request = with_token(request_for(&[OWN_BUNDLE]), &token);
    let response = running.fetch(channel, request).await.unwrap();
    assert_eq!(secrets(&response).len(), 1);
    let other = running.anonymous().await;
    assert!(
        TokenStream::open(other, request_for(&[OWN_BUNDLE]), &token)
            .await
            .is_ok()
    );
}

/// SDS-S27: what was open ends, what is new is refused, and both say what to do.
#[tokio::test]
async fn ends_its_streams_when_a_token_expires() {
    let running = Running::start().await;
    let token = stream_token_for(&running.directories, "shop/web", Duration::from_secs(5));
    let channel = running.anonymous().await;
    let mut stream = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), &token)
        .await
        .unwrap();
    stream.next().await.unwrap();
    let ended = stream.next().await.unwrap_err();
    let channel = running.anonymous().await;
    let refused = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), &token).await;
    for status in [ended, refused.err().unwrap()] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("expired at"), "{status}");
        assert!(
            status
                .message()
                .contains("mesh-lite token create shop/web --reusable"),
            "{status}"
        );
    }
}

/// Removing its record takes a token back: also what is open ends, and the streams of others do not.
#[tokio::test]
async fn ends_the_streams_of_a_token_that_is_taken_back() {
    let running = Running::start().await;
    let taken = stream_token(&running.directories, "shop/web");
    let mut records = std::fs::read_dir(running.directories.data.join("join-tokens")).unwrap();
    let record = records.next().unwrap().unwrap().path();
    let kept = stream_token(&running.directories, "shop/api");
    let open = async |token: &str| {
        let channel = running.anonymous().await;
        let mut stream = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), token).await?;
        stream.next().await?;
        Ok::<_, Status>(stream)
    };
    let mut others = open(&kept).await.unwrap();
    let mut stream = open(&taken).await.unwrap();
    std::fs::remove_file(record).unwrap();
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    assert!(ended.message().contains("taken back"), "{ended}");
    let refused = open(&taken).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    running.directories.init_root("other-root");
    assert!(others.next().await.is_ok());
}

/// Neither does what the other is for.
#[tokio::test]
async fn a_join_token_opens_no_stream_and_a_reusable_one_signs_nothing() {
    let running = Running::start().await;
    let (join, reusable) = (
        running.directories.token("shop/web"),
        stream_token(&running.directories, "shop/web"),
    );
    let channel = running.anonymous().await;
    let opened = TokenStream::open(channel.clone(), request_for(&[OWN_BUNDLE]), &join).await;
    let refused = opened.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--reusable"), "{refused}");
    let fetched = with_token(request_for(&[OWN_BUNDLE]), &join);
    let refused = running.fetch(channel.clone(), fetched).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let request = csr(&KeyPair::generate().unwrap(), &[]);
    let signed = with_token(fetch_request(&request), &reusable);
    let refused = running.fetch(channel.clone(), signed).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("signs no"), "{refused}");
    // and the join token is as good as before
    let signed = with_token(fetch_request(&request), &join);
    assert!(running.fetch(channel, signed).await.is_ok());
}

/// SDS-S23: nothing that is no token opens anything.
#[tokio::test]
async fn opens_nothing_for_what_is_no_token() {
    let running = Running::start().await;
    let token = stream_token(&running.directories, "shop/web");
    let cut = token.get(..token.len() - 1).unwrap();
    for text in ["", "nonsense", "../../../etc/passwd", cut] {
        let channel = running.anonymous().await;
        let opened = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), text).await;
        let refused = opened.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated, "{text}");
    }
}

/// SDS-S21: a stranger may say 128 KiB; who has proved itself by a token says as much as a peer.
/// Envoy repeats its node of 61 KB in every request.
#[tokio::test]
async fn takes_the_requests_of_a_plain_envoy() {
    let running = Running::start().await;
    let token = stream_token(&running.directories, "shop/web");
    let envoy = |names: &[&str]| {
        let mut request = request_for(names);
        request.node = Some(node(&[("padding", &"x".repeat(61 * 1024))]));
        request
    };
    let channel = running.anonymous().await;
    let mut stream = TokenStream::open(channel, envoy(&[OWN_BUNDLE]), &token)
        .await
        .unwrap();
    stream.next().await.unwrap();
    for number in 0..10 {
        let name = format!("unknown-{number}");
        stream.say(envoy(&[OWN_BUNDLE, &name])).await;
    }
    running
        .wait_for_metric("mesh_lite_control_plane_unknown_secrets_total", 10.0)
        .await;
}
