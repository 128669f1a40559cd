//! The service over connections in memory, with secrets and refusals by script.

use std::time::Duration;

use tokio::time;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Code;

use super::*;
use crate::{
    secret_discovery::SECRET_TYPE_URL,
    wire::{
        envoy::service::{
            discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
        google::rpc,
    },
};

mod limits;
mod scripted;
mod secrecy;

use scripted::{Delta, Event, Served, Stream};

const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn no(message: &str) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: 13,
        message: message.to_owned(),
        details: Vec::new(),
    })
}

/// SDS-S1, S2, S16
#[tokio::test]
async fn answers_and_pushes_by_each_method() {
    let served = Served::with(&["a"]).await;
    for aggregated in [false, true] {
        let mut stream = Stream::open(&served, aggregated, request(&["a"])).await;
        let mut delta = Delta::open(&served, aggregated, subscribe(&["a"])).await;
        let (first, second) = (stream.next().await.unwrap(), delta.next().await.unwrap());
        served.set("a", &format!("pushed, aggregated: {aggregated}"));
        let pushed = stream.next().await.unwrap();
        assert_eq!(pushed.resources.len(), 1);
        assert_ne!(pushed.resources, first.resources);
        let pushed = delta.next().await.unwrap();
        assert_eq!(pushed.resources[0].name, "a");
        assert_ne!(pushed.resources, second.resources);
    }
}

/// SDS-S2: an empty answer would mean "delete all".
#[tokio::test]
async fn leaves_other_types_unanswered_over_ads_and_serves_secrets_on() {
    let served = Served::with(&["a"]).await;
    let other = DiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..request(&[])
    };
    let mut stream = Stream::open(&served, true, other).await;
    let other = DeltaDiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..subscribe(&["a"])
    };
    let mut delta = Delta::open(&served, true, other).await;
    stream.send(request(&["a"])).await;
    delta.send(subscribe(&["a"])).await;
    // what comes first is about secrets, and is the first that was sent
    let (first, second) = (stream.next().await.unwrap(), delta.next().await.unwrap());
    assert_eq!((&*first.type_url, &*first.nonce), (SECRET_TYPE_URL, "1"));
    assert_eq!((&*second.type_url, &*second.nonce), (SECRET_TYPE_URL, "1"));
}

/// SDS-S1
#[tokio::test]
async fn fetches_once_with_a_version_and_without_a_nonce() {
    let served = Served::with(&["a", "b"]).await;
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let answer = client.fetch_secrets(request(&["a", "nobody", "b"])).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.resources.len(), &*answer.nonce), (2, ""));
    assert!(!answer.version_info.is_empty());
    let refused = client.fetch_secrets(request(&["nobody"])).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

/// SDS-S1, S7: as the first request of a stream.
#[tokio::test]
async fn fetches_an_svid_and_its_bundle_or_what_there_is_of_them_when_nothing_is_named() {
    for there in [&[DEFAULT_SVID, OWN_BUNDLE, "a"][..], &[OWN_BUNDLE, "a"]] {
        let served = Served::with(there).await;
        let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
        let answer = client.fetch_secrets(request(&[])).await.unwrap();
        let mut expected = vec![served.secret(OWN_BUNDLE).to_any()];
        if there.contains(&DEFAULT_SVID) {
            expected.insert(0, served.secret(DEFAULT_SVID).to_any());
        }
        assert_eq!(answer.into_inner().resources, expected);
    }
    let served = Served::with(&["a"]).await;
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let refused = client.fetch_secrets(request(&[])).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
}

/// SDS-S24: the source hears of the transport and the metadata, and of nothing a message says.
#[tokio::test]
async fn opens_no_stream_for_whom_the_sources_refuse() {
    let served = Served::with(&["a"]).await;
    served.refuse_to_open(Status::unauthenticated("who are you?"));
    let (_requests, open) = tokio::sync::mpsc::channel(1);
    let mut secrets = SecretDiscoveryServiceClient::new(served.channel.clone());
    let refused = secrets.stream_secrets(ReceiverStream::new(open)).await;
    assert_eq!(refused.err().unwrap().code(), Code::Unauthenticated);
    let (_requests, open) = tokio::sync::mpsc::channel(1);
    let refused = secrets.delta_secrets(ReceiverStream::new(open)).await;
    assert_eq!(refused.err().unwrap().code(), Code::Unauthenticated);
    let (_requests, open) = tokio::sync::mpsc::channel(1);
    let mut all = AggregatedDiscoveryServiceClient::new(served.channel.clone());
    let refused = all
        .stream_aggregated_resources(ReceiverStream::new(open))
        .await;
    assert_eq!(refused.err().unwrap().message(), "who are you?");
    let (_requests, open) = tokio::sync::mpsc::channel(1);
    let refused = all
        .delta_aggregated_resources(ReceiverStream::new(open))
        .await;
    assert_eq!(refused.err().unwrap().message(), "who are you?");
}

/// SDS-S26, S27
#[tokio::test]
async fn ends_a_stream_at_once_when_its_caller_loses_the_right() {
    let served = Served::with(&["a"]).await;
    let mut stream = Stream::open(&served, false, request(&["a"])).await;
    let mut delta = Delta::open(&served, false, subscribe(&["a"])).await;
    stream.next().await.unwrap();
    delta.next().await.unwrap();
    // neither is owed anything; and nothing of what changes with the right is sent
    served.lose_the_right_and_set(Status::permission_denied("no longer"), "a", "not for you");
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    assert_eq!(
        delta.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

/// SDS-S26: also if nothing said that it changed.
#[tokio::test]
async fn asks_for_the_right_before_every_response() {
    let served = Served::with(&["a", "b"]).await;
    let mut stream = Stream::open(&served, false, request(&["a"])).await;
    stream.next().await.unwrap();
    served.lose_the_right_unheard(Status::unauthenticated("expired"));
    stream.send(request(&["a", "b"])).await;
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

/// SDS-S8: the same on both methods, while the stream goes on.
#[tokio::test]
async fn pushes_an_unknown_name_when_it_appears_and_tells_of_it() {
    let mut served = Served::with(&[]).await;
    let mut stream = Stream::open(&served, false, request(&["later"])).await;
    assert_eq!(served.event().await, Event::Wanted(vec!["later".into()]));
    assert_eq!(served.event().await, Event::Unknown("later".into()));
    let mut delta = Delta::open(&served, false, subscribe(&["later"])).await;
    let removed = delta.next().await.unwrap();
    assert_eq!(removed.removed_resources, ["later"]);
    served.set("later", "here");
    assert_eq!(stream.next().await.unwrap().resources.len(), 1);
    assert_eq!(delta.next().await.unwrap().resources.len(), 1);
}

/// SDS-S8: a key takes a moment to make.
#[tokio::test]
async fn waits_for_what_is_being_made_without_calling_it_unknown() {
    let mut served = Served::with(&[]).await;
    served.store.begin_to_make("slow");
    let mut delta = Delta::open(&served, false, subscribe(&["slow"])).await;
    assert_eq!(served.event().await, Event::Wanted(vec!["slow".into()]));
    served.set("slow", "made");
    let first = delta.next().await.unwrap();
    assert_eq!(first.removed_resources, Vec::<String>::new());
    assert_eq!(first.resources[0].name, "slow");
    delta.ack(&first).await;
    assert_eq!(served.event().await, Event::Wanted(vec!["slow".into()]));
    let accepted = served.store.versions(&["slow"]);
    assert_eq!(served.event().await, Event::Accepted(accepted));
}

/// SDS-S14: Envoy rejects a bundle for the fault of the certificate beside it.
#[tokio::test]
async fn tells_of_a_rejected_secret_together_with_the_pair_it_may_be_about() {
    let mut served = Served::with(&[DEFAULT_SVID, OWN_BUNDLE]).await;
    let mut stream = Stream::open(&served, false, request(&[OWN_BUNDLE])).await;
    let first = stream.next().await.unwrap();
    stream
        .send(DiscoveryRequest {
            response_nonce: first.nonce,
            error_detail: no("KEY_VALUES_MISMATCH"),
            ..request(&[OWN_BUNDLE])
        })
        .await;
    let wanted = Event::Wanted(vec![OWN_BUNDLE.into()]);
    assert_eq!(served.event().await, wanted);
    assert_eq!(served.event().await, wanted);
    let rejected = Event::Rejected {
        secrets: served.store.versions(&[OWN_BUNDLE]),
        message: "KEY_VALUES_MISMATCH".to_owned(),
        pair: served.store.versions(&[DEFAULT_SVID, OWN_BUNDLE]),
    };
    assert_eq!(served.event().await, rejected);
}

#[tokio::test]
async fn tells_the_source_every_name_that_is_wanted_after_each_request() {
    let mut served = Served::with(&["a", "b", "c"]).await;
    let delta = Delta::open(&served, false, subscribe(&["b", "a"])).await;
    let wanted = |names: &[&str]| Event::Wanted(names.iter().map(ToString::to_string).collect());
    assert_eq!(served.event().await, wanted(&["a", "b"]));
    delta.send(subscribe(&["c"])).await;
    assert_eq!(served.event().await, wanted(&["a", "b", "c"]));
    delta
        .send(DeltaDiscoveryRequest {
            resource_names_unsubscribe: vec!["a".to_owned(), "b".to_owned()],
            ..subscribe(&[])
        })
        .await;
    assert_eq!(served.event().await, wanted(&["c"]));
}

/// As tools do that send one request and close their side.
#[tokio::test]
async fn answers_a_client_that_asks_once_and_then_ends_its_stream() {
    let served = Served::with(&["a"]).await;
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let once = tokio_stream::once(request(&["a"]));
    let responses = client.stream_secrets(once).await.unwrap().into_inner();
    let responses: Vec<_> = scripted::in_time("it ends", responses.collect()).await;
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].as_ref().unwrap().resources.len(), 1);
    let once = tokio_stream::once(subscribe(&["nobody"]));
    let responses = client.delta_secrets(once).await.unwrap().into_inner();
    let responses: Vec<_> = scripted::in_time("it ends", responses.collect()).await;
    assert_eq!(responses.len(), 1);
    let removed = &responses[0].as_ref().unwrap().removed_resources;
    assert_eq!(removed, &["nobody"]);
}

/// A key takes a moment to make, also for a tool.
#[tokio::test]
async fn answers_a_client_that_ended_its_stream_when_its_secret_is_made() {
    let mut served = Served::with(&[]).await;
    served.store.begin_to_make("slow");
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let once = tokio_stream::once(request(&["slow"]));
    let mut responses = client.stream_secrets(once).await.unwrap().into_inner();
    assert!(matches!(served.event().await, Event::Wanted(_)));
    // the end of its stream has come through when another's answer has
    Delta::open(&served, false, subscribe(&["nobody"]))
        .await
        .next()
        .await
        .unwrap();
    served.set("slow", "made");
    let first = scripted::in_time("an answer", responses.message()).await;
    assert_eq!(first.unwrap().unwrap().resources.len(), 1);
    let end = scripted::in_time("the end", responses.message()).await;
    assert_eq!(end.unwrap(), None);
}

/// What a source counts as open is closed when its stream is, whoever closed it.
#[tokio::test]
async fn drops_the_source_with_the_stream() {
    let mut served = Served::with(&["a"]).await;
    let mut stream = Stream::open(&served, false, request(&["a"])).await;
    stream.next().await.unwrap();
    assert!(matches!(served.event().await, Event::Wanted(_)));
    drop(stream);
    assert_eq!(served.event().await, Event::Dropped);
    let stream = Stream::open(&served, false, request(&["a"])).await;
    assert!(matches!(served.event().await, Event::Wanted(_)));
    served.lose_the_right_and_set(Status::unavailable("the end"), "a", "x");
    // also while nobody reads the status
    assert_eq!(served.event().await, Event::Dropped);
    drop(stream);
}

/// SDS-S20
#[tokio::test]
async fn a_slow_stream_costs_one_pending_response_and_holds_up_nobody() {
    const ROUNDS: usize = 100;
    let served = Served::with_window(&["a"], 1024).await;
    let big = |round: usize| format!("{round} ").repeat(16 * 1024);
    served.set("a", &big(0));
    // on the same connection, neither of the slow ones is read from
    let mut slow = Stream::open(&served, false, request(&["a"])).await;
    let mut slow_delta = Delta::open(&served, false, subscribe(&["a"])).await;
    let mut quick = Delta::open(&served, false, subscribe(&["a"])).await;
    for round in 1..=ROUNDS {
        served.set("a", &big(round));
        loop {
            let version = quick.next().await.unwrap().resources[0].version.clone();
            if version == served.store.versions(&["a"])[0].version {
                break;
            }
        }
    }
    let newest = &served.store.versions(&["a"])[0].version;
    // one was on its way, one in the encoder, one waited for it; then comes the newest
    let (mut read, mut seen) = (0, String::new());
    while seen != *newest {
        seen = slow_delta.next().await.unwrap().resources[0]
            .version
            .clone();
        read += 1;
    }
    assert!(read <= 4, "{read} of {ROUNDS} responses were kept");
    let mut nonce = String::new();
    let newest = served.secret("a").to_any();
    while nonce.is_empty() || slow.last != Some(newest.clone()) {
        nonce = slow.next().await.unwrap().nonce;
    }
    assert!(nonce.parse::<usize>().unwrap() <= 4, "{nonce}");
}

/// SDS-S20, SDS-S26: a client that does not read keeps nothing open by that.
#[tokio::test]
async fn a_slow_stream_ends_as_soon_as_its_caller_loses_the_right() {
    let mut served = Served::with_window(&["a"], 1024).await;
    let big = |round: usize| format!("{round} ").repeat(16 * 1024);
    served.set("a", &big(0));
    let slow = Stream::open(&served, false, request(&["a"])).await;
    assert!(matches!(served.event().await, Event::Wanted(_)));
    let mut quick = Delta::open(&served, false, subscribe(&["a"])).await;
    assert!(matches!(served.event().await, Event::Wanted(_)));
    for round in 0..10 {
        served.set("a", &big(round));
        quick.next().await.unwrap();
    }
    served.lose_the_right_and_set(Status::permission_denied("no longer"), "b", "x");
    assert_eq!(served.event().await, Event::Dropped);
    assert_eq!(served.event().await, Event::Dropped);
    drop(slow);
}

/// SDS-S22
#[tokio::test(start_paused = true)]
async fn a_stream_may_be_idle_for_ever() {
    let served = Served::with(&["a"]).await;
    let mut stream = Stream::open(&served, false, request(&["a"])).await;
    stream.next().await.unwrap();
    let silence = time::timeout(Duration::from_secs(90 * 24 * 3600), stream.responses.next());
    assert!(silence.await.is_err());
    served.set("a", "after three months");
    assert_eq!(stream.next().await.unwrap().nonce, "2");
}
