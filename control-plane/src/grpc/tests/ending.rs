//! How connections end under SDS streams.

use mesh_lite_proto::wire::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::*;

const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    let asked = ask(names, None);
    DeltaDiscoveryRequest {
        type_url: asked.type_url,
        resource_names_subscribe: asked.resource_names,
        ..DeltaDiscoveryRequest::default()
    }
}

/// SDS-S22: a client that hears GOAWAY first opens its next stream elsewhere, and keeps what it
/// has meanwhile.
#[tokio::test(start_paused = true)]
async fn says_goaway_and_then_ends_each_stream_with_unavailable() {
    let trust = trust(&[&root()]);
    let peer = peer(&trust);
    for at_its_age in [false, true] {
        let served = served(Arc::clone(&trust), Some(peer.clone())).await;
        let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
        let asked = saying(ask(&[OWN_BUNDLE], None));
        let mut stream = client.stream_secrets(asked).await.unwrap().into_inner();
        let asked = saying(subscribe(&[OWN_BUNDLE]));
        let mut delta = client.delta_secrets(asked).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        delta.message().await.unwrap().unwrap();
        if !at_its_age {
            served.end.send_replace(Ending::Now);
        }
        for status in [
            stream.message().await.unwrap_err(),
            delta.message().await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.message().contains("on a new one"), "{status}");
        }
        let frames = served.tapped.frames();
        let first = |found: &dyn Fn(&wire_tap::Frame) -> bool| frames.iter().position(found);
        let goaway = first(&|frame| frame.kind == GOAWAY).unwrap();
        let last_words =
            first(&|frame| frame.kind == HEADERS && frame.flags & END_STREAM > 0).unwrap();
        assert!(goaway < last_words, "{frames:?}");
    }
}
