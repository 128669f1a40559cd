//! What a client may ask for, and what it is told when it asks for more.

use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::*;
use crate::{secret_discovery::MAX_SECRET_NAME, wire::envoy::config::core::v3::Node};

/// One fault each, and what it is called.
fn faults() -> Vec<(DiscoveryRequest, Code)> {
    let many: Vec<String> = (0..129).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "n".repeat(MAX_SECRET_NAME + 1);
    let other_type = DiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..request(&["a"])
    };
    vec![
        (request(&many), Code::ResourceExhausted),
        (request(&["a", &long]), Code::InvalidArgument),
        (other_type, Code::InvalidArgument),
    ]
}

fn as_delta(request: DiscoveryRequest) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: request.resource_names,
        type_url: request.type_url,
        ..DeltaDiscoveryRequest::default()
    }
}

/// SDS-S3, S21, S23: by each method, and never INTERNAL.
#[tokio::test]
async fn names_each_fault_of_a_caller_by_its_status_code() {
    let served = Served::with(&["a"]).await;
    for (fault, code) in faults() {
        let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
        let refused = client.fetch_secrets(fault.clone()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        for aggregated in [false, true] {
            // another type is no fault over ADS
            if aggregated && fault.type_url == LISTENERS {
                continue;
            }
            let mut stream = Stream::open(&served, aggregated, fault.clone()).await;
            let refused = stream.next().await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            let mut delta = Delta::open(&served, aggregated, as_delta(fault.clone())).await;
            let refused = delta.next().await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
        }
    }
    let mut untyped = Stream::open(&served, true, DiscoveryRequest::default()).await;
    assert_eq!(
        untyped.next().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// SDS-S23: a message whose first field is a number where a text or a node should be.
#[tokio::test]
async fn calls_a_request_that_can_not_be_read_the_callers_fault() {
    let served = Served::with(&["a"]).await;
    for path in [
        "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
        "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    ] {
        let mut client = tonic::client::Grpc::new(served.channel.clone());
        client.ready().await.unwrap();
        let number = prost_types::Duration {
            seconds: 1,
            nanos: 0,
        };
        let codec = ProstCodec::<prost_types::Duration, prost_types::Duration>::default();
        let requests = Request::new(tokio_stream::once(number));
        let mut responses = client
            .streaming(requests, PathAndQuery::from_static(path), codec)
            .await
            .unwrap()
            .into_inner();
        let refused = responses.message().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}: {refused}");
        assert!(refused.message().contains("can't be read"), "{refused}");
    }
}

/// SDS-S21
#[tokio::test]
async fn takes_as_many_names_as_are_allowed_and_as_long() {
    let served = Served::with(&["a"]).await;
    let longest: Vec<String> = (0..127)
        .map(|number| format!("{number:0width$}", width = MAX_SECRET_NAME))
        .collect();
    let mut names: Vec<&str> = longest.iter().map(String::as_str).collect();
    names.push("a");
    let mut stream = Stream::open(&served, false, request(&names)).await;
    assert_eq!(stream.next().await.unwrap().resources.len(), 1);
    let mut delta = Delta::open(&served, false, subscribe(&names)).await;
    assert_eq!(delta.next().await.unwrap().removed_resources.len(), 127);
}

/// A request with a node of so many bytes.
fn with_node(bytes: usize) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node {
            id: "n".repeat(bytes),
            ..Node::default()
        }),
        ..request(&["a"])
    }
}

/// SDS-S21: Envoy's node has 61 KB, and metadata beside it.
#[tokio::test]
async fn takes_a_large_request_and_refuses_a_huge_one() {
    let served = Served::with(&["a"]).await;
    let large = || with_node(256 * 1024);
    let mut stream = Stream::open(&served, false, large()).await;
    stream.next().await.unwrap();
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    client.fetch_secrets(large()).await.unwrap();
    let huge = || with_node(1024 * 1024);
    let refused = client.fetch_secrets(huge()).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let mut stream = Stream::open(&served, false, huge()).await;
    let refused = stream.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
}

/// SDS-S21: a client that takes every response for a reason to ask again is stopped.
#[tokio::test(start_paused = true)]
async fn ends_a_stream_that_asks_faster_than_anybody_needs_to() {
    let served = Served::with(&["a"]).await;
    let mut stream = Stream::open(&served, false, request(&["a"])).await;
    let mut delta = Delta::open(&served, false, subscribe(&["a"])).await;
    stream.next().await.unwrap();
    delta.next().await.unwrap();
    // at the steady rate nothing happens, however long it lasts
    for _ in 0..200 {
        time::advance(Duration::from_millis(50)).await;
        stream.send(request(&["a"])).await;
        delta.send(subscribe(&["a"])).await;
        delta.next().await.unwrap();
    }
    for _ in 0..52 {
        stream.send(request(&["a"])).await;
        delta.send(subscribe(&[])).await;
    }
    for refused in [
        stream.next().await.unwrap_err(),
        delta.next().await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
}
