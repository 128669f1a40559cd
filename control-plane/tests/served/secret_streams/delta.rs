//! DeltaSecrets and ADS over a real connection.

use mesh_lite_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use rcgen::KeyPair;
use tonic::Request;

use super::*;
use crate::served::client::{Svid, csr, fetch_request};

/// Both ends of a stream of changes.
struct Delta {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

#[derive(Debug, Clone, Copy)]
enum By {
    DeltaSecrets,
    Ads,
}

impl Delta {
    async fn open(by: By, channel: Channel, first: DeltaDiscoveryRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let receiver = ReceiverStream::new(receiver);
        let opened = match by {
            By::DeltaSecrets => {
                let mut client = SecretDiscoveryServiceClient::new(channel);
                in_time("it opens", client.delta_secrets(receiver)).await?
            }
            By::Ads => {
                let mut client = AggregatedDiscoveryServiceClient::new(channel);
                in_time("it opens", client.delta_aggregated_resources(receiver)).await?
            }
        };
        Ok(Self {
            requests,
            responses: opened.into_inner(),
        })
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let next = in_time("a response", self.responses.message()).await;
        next.map(|response| response.expect("the stream ended without a status"))
    }

    async fn send(&self, request: DeltaDiscoveryRequest) {
        let _ = self.requests.send(request).await;
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    let request = trusted_ca(names);
    DeltaDiscoveryRequest {
        node: request.node,
        type_url: request.type_url,
        resource_names_subscribe: request.resource_names,
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    let resources = response.resources.iter();
    resources.map(|resource| resource.name.as_str()).collect()
}

/// As the state of the world would say it.
fn content(response: &DeltaDiscoveryResponse) -> DiscoveryResponse {
    let resources = response.resources.iter();
    DiscoveryResponse {
        resources: resources
            .map(|resource| resource.resource.clone().unwrap())
            .collect(),
        type_url: response.type_url.clone(),
        ..DiscoveryResponse::default()
    }
}

/// SDS-S1, SDS-S2, SDS-S16
#[tokio::test]
async fn delta_streams_bundle_and_active_authority_and_pushes_their_changes() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let subscription = subscribe(&[OWN_BUNDLE, ACTIVE_AUTHORITY]);
    let mut streams = Vec::new();
    for by in [By::DeltaSecrets, By::Ads] {
        let mut stream = Delta::open(by, channel.clone(), subscription.clone())
            .await
            .unwrap();
        let first = stream.next().await.unwrap();
        assert_eq!(names(&first), [OWN_BUNDLE, ACTIVE_AUTHORITY], "{by:?}");
        assert_eq!(
            bundle_of(&content(&first)),
            running.directories.trust_bundle()
        );
        streams.push((by, stream));
    }
    let renewed = running.directories.renew_root();
    for (by, stream) in &mut streams {
        let second = stream.next().await.unwrap();
        // the bundle did not change, and is not sent again
        assert_eq!(names(&second), [ACTIVE_AUTHORITY], "{by:?}");
        let announced = active_authority(&content(&second));
        assert_eq!(announced.as_ref(), Some(&renewed.issuing_key_id));
    }
    running.directories.init_root("other-root");
    for (by, stream) in &mut streams {
        let third = stream.next().await.unwrap();
        assert_eq!(names(&third), [OWN_BUNDLE], "{by:?}");
        assert_eq!(bundle_of(&content(&third)).authorities().len(), 2);
    }
}

/// SDS-S10, SDS-S11: Envoy comes back with the versions it has, and is answered in full.
#[tokio::test]
async fn delta_versions_are_those_of_before_the_restart_and_all_is_sent_again() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let subscription = subscribe(&[OWN_BUNDLE, ACTIVE_AUTHORITY]);
    let mut stream = Delta::open(By::DeltaSecrets, channel, subscription.clone())
        .await
        .unwrap();
    let before = stream.next().await.unwrap();
    let running = Running::start_in(running.end().await).await;
    let channel = running.workload("shop/web").await;
    let has = before.resources.iter();
    let returning = DeltaDiscoveryRequest {
        initial_resource_versions: has
            .map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect(),
        ..subscription
    };
    let mut stream = Delta::open(By::DeltaSecrets, channel, returning)
        .await
        .unwrap();
    let after = stream.next().await.unwrap();
    assert_eq!(after.resources, before.resources);
    assert_eq!(after.system_version_info, before.system_version_info);
}

/// SDS-S8: one answer for what does not exist and for what is somebody else's.
#[tokio::test]
async fn delta_lists_unknown_names_as_removed_and_counts_them() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let unknown = [
        "nobody",
        "spiffe://mesh.test/ns/shop/sa/api",
        "spiffe://other.test",
    ];
    let mut stream = Delta::open(By::DeltaSecrets, channel, subscribe(&unknown))
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.removed_resources, unknown);
    stream.send(subscribe(&[OWN_BUNDLE])).await;
    assert_eq!(names(&stream.next().await.unwrap()), [OWN_BUNDLE]);
    running
        .wait_for_metric("mesh_lite_control_plane_unknown_secrets_total", 3.0)
        .await;
}

/// SDS-S14
#[tokio::test]
async fn delta_counts_words_on_each_response() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut stream = Delta::open(By::DeltaSecrets, channel, subscribe(&[OWN_BUNDLE]))
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    stream.send(subscribe(&[ACTIVE_AUTHORITY])).await;
    let second = stream.next().await.unwrap();
    let word = |response: &DeltaDiscoveryResponse, error: Option<&str>| DeltaDiscoveryRequest {
        response_nonce: response.nonce.clone(),
        error_detail: error.map(|message| rpc::Status {
            code: 13,
            message: message.to_owned(),
            details: Vec::new(),
        }),
        ..subscribe(&[])
    };
    stream.send(word(&second, None)).await;
    stream.send(word(&first, Some("no good"))).await;
    for (series, count) in [("acknowledged", 1.0), ("rejected", 1.0)] {
        let series = format!("mesh_lite_control_plane_{series}_total{{stream=\"secrets\"}}");
        running.wait_for_metric(&series, count).await;
    }
}

/// SDS-S2: an empty answer about listeners would delete them all.
#[tokio::test]
async fn ads_answers_about_secrets_alone() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut listeners = trusted_ca(&[]);
    listeners.type_url = "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned();
    let mut stream = Stream::open_aggregated(channel.clone(), listeners.clone())
        .await
        .unwrap();
    // the node came with the listeners, and not again
    stream.send(request_for(&[OWN_BUNDLE])).await;
    let first = stream.next().await.unwrap();
    assert_eq!(bundle_of(&first), running.directories.trust_bundle());
    assert_eq!(first.nonce, "1");
    // as Envoy adds a name: before its first word on the response, which is stale when it comes
    stream
        .send(request_for(&[OWN_BUNDLE, ACTIVE_AUTHORITY]))
        .await;
    let second = stream.next().await.unwrap();
    stream.send(answer(&[OWN_BUNDLE], &first)).await;
    assert!(active_authority(&second).is_some() && secrets(&second).len() == 1);
    let renewed = running.directories.renew_root();
    let third = stream.next().await.unwrap();
    assert_eq!(active_authority(&third), Some(renewed.issuing_key_id));
    let mut untyped = Stream::open_aggregated(channel, DiscoveryRequest::default())
        .await
        .unwrap();
    let refused = untyped.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// SDS-S26: by whatever method, and none is opened after it.
#[tokio::test]
async fn every_method_ends_with_the_caller_and_opens_for_it_no_more() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut streams = Vec::new();
    for by in [By::DeltaSecrets, By::Ads] {
        let mut stream = Delta::open(by, channel.clone(), subscribe(&[OWN_BUNDLE]))
            .await
            .unwrap();
        stream.next().await.unwrap();
        streams.push((by, stream));
    }
    let mut aggregated = Stream::open_aggregated(channel.clone(), trusted_ca(&[OWN_BUNDLE]))
        .await
        .unwrap();
    aggregated.next().await.unwrap();
    running.directories.write(
        "evictions.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: web, namespace: shop}\n\
         spec: {spiffeId: 'spiffe://mesh.test/ns/shop/sa/web'}\n",
    );
    for (by, stream) in &mut streams {
        let ended = stream.next().await.unwrap_err();
        assert_eq!(ended.code(), Code::PermissionDenied, "{by:?}");
        let opened = Delta::open(*by, channel.clone(), subscribe(&[OWN_BUNDLE])).await;
        assert_eq!(opened.err().unwrap().code(), Code::PermissionDenied);
    }
    let ended = aggregated.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
}

/// Every place of a message and of its headers where a caller could claim to be another.
fn disguised<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (header, value) in [
        ("x-forwarded-for", "10.0.0.2"),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://mesh.test/ns/shop/sa/api",
        ),
        ("x-envoy-internal", "true"),
    ] {
        request
            .metadata_mut()
            .insert(header, value.parse().unwrap());
    }
    request
}

/// SDS-S24: identity comes from the transport, never from what a message says.
#[tokio::test]
async fn takes_nobody_for_who_it_says_it_is() {
    const API: &str = "spiffe://mesh.test/ns/shop/sa/api";
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let key = KeyPair::generate().unwrap();
    let mut message = fetch_request(&csr(&key, &[]));
    let node = message.node.as_mut().unwrap();
    node.id = API.to_owned();
    node.cluster = "api".to_owned();
    let response = running.fetch(channel.clone(), disguised(message)).await;
    let svid = Svid::new(&response.unwrap(), key);
    assert_eq!(svid.facts.id.as_str(), "spiffe://mesh.test/ns/shop/sa/web");
    let mut subscription = subscribe(&[API]);
    subscription.node.as_mut().unwrap().id = API.to_owned();
    let requests = tokio_stream::once(subscription);
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut responses = client
        .delta_secrets(disguised(requests))
        .await
        .unwrap()
        .into_inner();
    let first = in_time("a response", responses.message()).await.unwrap();
    assert_eq!(first.unwrap().removed_resources, [API]);
}
