//! A client in a hot loop: a stream is opened as soon as the last one ended.

use super::*;

/// SDS-S21: the connection itself would take some more.
#[tokio::test(start_paused = true)]
async fn refuses_a_caller_that_opens_stream_after_stream() {
    let trust = trust(&[&root()]);
    let peer = peer(&trust);
    let served = served(trust, Some(peer)).await;
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let mut open = async || {
        let once = tokio_stream::once(ask(&[OWN_BUNDLE], None));
        let mut stream = client.stream_secrets(once).await?.into_inner();
        stream.message().await
    };
    for _ in 0..256 {
        assert!(open().await.unwrap().is_some());
    }
    let refused = open().await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("one caller"), "{refused}");
    time::advance(Duration::from_millis(100)).await;
    assert!(open().await.unwrap().is_some());
}
