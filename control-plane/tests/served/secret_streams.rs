use std::time::Duration;

use mesh_lite_proto::{
    secret_discovery::{ACTIVE_AUTHORITY, ALL_BUNDLES, OWN_BUNDLE},
    sidecar::VALIDATOR_METADATA_KEY,
    trust_bundle::TrustBundle,
    wire::{
        envoy::{
            extensions::transport_sockets::tls::v3::{SpiffeCertValidatorConfig, secret},
            service::{
                discovery::v3::{
                    DiscoveryRequest, DiscoveryResponse,
                    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
                },
                secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
            },
        },
        google::rpc,
    },
};
use prost::Message;
use tokio::{sync::mpsc, time};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    client::{inline, node, request_for, secrets},
    log::heard,
    running::{Running, bundle_at, eventually, in_time, trust_domain},
};

mod delta;
mod status_codes;

/// A StreamSecrets stream and its two ends.
pub(super) struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    pub(super) async fn open(channel: Channel, first: DiscoveryRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let opening = client.stream_secrets(ReceiverStream::new(receiver));
        let responses = in_time("the stream opens", opening).await?.into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    /// The same over ADS.
    async fn open_aggregated(channel: Channel, first: DiscoveryRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let opening = client.stream_aggregated_resources(ReceiverStream::new(receiver));
        let responses = in_time("the stream opens", opening).await?.into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    pub(super) async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let next = in_time("a response", self.responses.message()).await;
        next.map(|response| response.expect("the stream ended without a status"))
    }

    pub(super) async fn send(&self, request: DiscoveryRequest) {
        // a stream that the server ended takes no more; what it said comes from `next`
        let _ = self.requests.send(request).await;
    }
}

pub(super) fn answer(names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..request_for(names)
    }
}

fn trusted_ca(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node(&[(VALIDATOR_METADATA_KEY, "trusted_ca")])),
        ..request_for(names)
    }
}

pub(super) fn bundle_of(response: &DiscoveryResponse) -> TrustBundle {
    let content = secrets(response)
        .into_iter()
        .find(|secret| secret.name == OWN_BUNDLE);
    let Some(secret::Type::ValidationContext(context)) = content.unwrap().r#type else {
        panic!("no bundle: {response:?}")
    };
    TrustBundle::from_pem(trust_domain(), &inline(context.trusted_ca)).unwrap()
}

pub(super) fn active_authority(response: &DiscoveryResponse) -> Option<String> {
    let content = secrets(response)
        .into_iter()
        .find(|secret| secret.name == ACTIVE_AUTHORITY)?;
    let Some(secret::Type::GenericSecret(generic)) = content.r#type else {
        panic!("no key id: {response:?}")
    };
    Some(String::from_utf8(inline(generic.secret)).unwrap())
}

/// SDS-S1, SDS-S9, SDS-S16
#[tokio::test]
async fn streams_bundle_and_active_authority_and_pushes_their_changes() {
    let running = Running::start().await;
    let names = [OWN_BUNDLE, ACTIVE_AUTHORITY];
    let channel = running.workload("shop/web").await;
    let mut stream = Stream::open(channel, trusted_ca(&names)).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(bundle_of(&first), running.directories.trust_bundle());
    let before = active_authority(&first).unwrap();
    stream.send(answer(&names, &first)).await;

    let renewed = running.directories.renew_root();
    assert_ne!(renewed.issuing_key_id, before);
    // SDS-S16: a second is the aim
    let pushed = time::timeout(Duration::from_secs(10), stream.next()).await;
    let second = pushed.expect("pushed at once").unwrap();
    assert_eq!(active_authority(&second), Some(renewed.issuing_key_id));
    assert_ne!(second.version_info, first.version_info);
    assert_ne!(second.nonce, first.nonce);
    // the bundle did not change, and is not sent again
    assert_eq!(secrets(&second).len(), 1);
    stream.send(answer(&names, &second)).await;

    let other = running.directories.init_root("other-root");
    assert_eq!(bundle_at(&other.trust_bundle).authorities().len(), 2);
    let third = stream.next().await.unwrap();
    assert_eq!(bundle_of(&third), running.directories.trust_bundle());
    // the new root must be known everywhere before anything of it is used
    assert_eq!(active_authority(&third), None);
}

/// SDS-S5, SDS-S6
#[tokio::test]
async fn sends_the_spiffe_validator_unless_the_node_asks_otherwise() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    for name in [OWN_BUNDLE, ALL_BUNDLES, "spiffe://mesh.test"] {
        let mut stream = Stream::open(channel.clone(), request_for(&[name]))
            .await
            .unwrap();
        let response = stream.next().await.unwrap();
        let [secret] = secrets(&response).try_into().unwrap();
        assert_eq!(secret.name, name);
        let Some(secret::Type::ValidationContext(context)) = secret.r#type else {
            panic!("{secret:?}")
        };
        assert_eq!(context.trusted_ca, None);
        let config = context.custom_validator_config.unwrap();
        assert_eq!(config.name, "envoy.tls.cert_validator.spiffe");
        let config = SpiffeCertValidatorConfig::decode(&*config.typed_config.unwrap().value);
        let [entry] = config.unwrap().trust_domains.try_into().unwrap();
        assert_eq!(entry.name, "mesh.test");
        let roots = TrustBundle::from_pem(trust_domain(), &inline(entry.trust_bundle)).unwrap();
        assert_eq!(roots, running.directories.trust_bundle());
    }
}

/// SDS-S10, SDS-S11
#[tokio::test]
async fn names_equal_content_equally_over_a_restart() {
    let running = Running::start().await;
    let names = [OWN_BUNDLE, ACTIVE_AUTHORITY];
    let channel = running.workload("shop/web").await;
    let mut stream = Stream::open(channel, trusted_ca(&names)).await.unwrap();
    let before = stream.next().await.unwrap();
    let running = Running::start_in(running.end().await).await;
    let channel = running.workload("shop/web").await;
    // as a client comes back: with the version it has, and no nonce; it gets everything again
    let first = DiscoveryRequest {
        version_info: before.version_info.clone(),
        ..trusted_ca(&names)
    };
    let mut stream = Stream::open(channel, first).await.unwrap();
    let after = stream.next().await.unwrap();
    assert_eq!(after.version_info, before.version_info);
    assert_eq!(after.resources, before.resources);
}

/// SDS-S23, SDS-S24
#[tokio::test]
async fn opens_no_stream_for_callers_without_a_certificate() {
    let running = Running::start().await;
    let channel = running.anonymous().await;
    let opened = Stream::open(channel, request_for(&[OWN_BUNDLE])).await;
    let refused = opened.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("client certificate"),
        "{refused}"
    );
}

/// SDS-S14
#[tokio::test]
async fn logs_and_counts_a_rejection_and_does_not_send_the_same_again() {
    heard();
    let running = Running::start().await;
    let names = [OWN_BUNDLE, ACTIVE_AUTHORITY];
    let channel = running.workload("shop/web").await;
    let mut stream = Stream::open(channel, trusted_ca(&names)).await.unwrap();
    let first = stream.next().await.unwrap();
    // told from what other tests make it log
    let message = "no good, and this is why: 5e1f".to_owned();
    let error_detail = Some(rpc::Status {
        code: 13,
        message: message.clone(),
        details: Vec::new(),
    });
    stream
        .send(DiscoveryRequest {
            error_detail,
            ..answer(&names, &first)
        })
        .await;
    running
        .wait_for_metric(
            "mesh_lite_control_plane_rejected_total{stream=\"secrets\"}",
            1.0,
        )
        .await;
    let told = async || {
        heard()
            .lines(&[" WARN ", "secrets rejected", &message])
            .pop()
    };
    let line = eventually("it is logged", told).await;
    for part in [
        "spiffe://mesh.test/ns/shop/sa/web",
        OWN_BUNDLE,
        ACTIVE_AUTHORITY,
        "version",
        "pair=",
    ] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }
    // the next response is about the next content, not about the rejected one
    let renewed = running.directories.renew_root();
    let second = stream.next().await.unwrap();
    assert_eq!(active_authority(&second), Some(renewed.issuing_key_id));
    assert_eq!(second.nonce, "2");
}

/// SDS-S4, SDS-S8: another workload's SVID is as unknown as nobody's.
#[tokio::test]
async fn keeps_a_stream_with_unknown_names_and_counts_them() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let names = [
        "nobody",
        "spiffe://mesh.test/ns/shop/sa/api",
        "spiffe://other.test",
        OWN_BUNDLE,
    ];
    let mut stream = Stream::open(channel, trusted_ca(&names)).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(secrets(&first).len(), 1);
    assert_eq!(bundle_of(&first), running.directories.trust_bundle());
    running
        .wait_for_metric("mesh_lite_control_plane_unknown_secrets_total", 3.0)
        .await;
}

/// SDS-S3, SDS-S21, SDS-S23
#[tokio::test]
async fn ends_streams_that_break_the_limits() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let many: Vec<String> = (0..129).map(|number| format!("name-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let long = "n".repeat(2065);
    let mut type_url = request_for(&[OWN_BUNDLE]);
    type_url.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    for (request, code) in [
        (request_for(&many), Code::ResourceExhausted),
        (request_for(&[&long]), Code::InvalidArgument),
        (type_url, Code::InvalidArgument),
    ] {
        let mut stream = Stream::open(channel.clone(), request).await.unwrap();
        assert_eq!(stream.next().await.unwrap_err().code(), code);
    }
    let mut stream = Stream::open(channel, request_for(&[OWN_BUNDLE]))
        .await
        .unwrap();
    let first = stream.next().await.unwrap();
    for _ in 0..200 {
        stream.send(answer(&[OWN_BUNDLE], &first)).await;
    }
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
}

/// SDS-S26
#[tokio::test]
async fn ends_the_streams_of_an_evicted_caller_and_opens_no_other() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut stream = Stream::open(channel.clone(), request_for(&[OWN_BUNDLE]))
        .await
        .unwrap();
    stream.next().await.unwrap();
    running.directories.write(
        "evictions.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: web, namespace: shop}\n\
         spec: {spiffeId: 'spiffe://mesh.test/ns/shop/sa/web'}\n",
    );
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let opened = Stream::open(channel, request_for(&[OWN_BUNDLE])).await;
    assert_eq!(opened.err().unwrap().code(), Code::PermissionDenied);
    eventually("the stream is counted as closed", async || {
        let open = running
            .metric("mesh_lite_control_plane_streams{stream=\"secrets\"}")
            .await;
        (open < 0.5).then_some(())
    })
    .await;
}
