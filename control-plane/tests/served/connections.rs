use std::time::Duration;

use mesh_lite_control_plane::{RunError, run, settings::Settings};
use mesh_lite_proto::secret_discovery::OWN_BUNDLE;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use super::{
    client::request_for,
    remote_keys::{TokenStream, stream_token},
    running::{Directories, Running, eventually, in_time},
    secret_streams::Stream,
};

async fn start_and_fail(settings: Settings) -> RunError {
    let started = run(settings, std::future::pending(), |_| panic!("it started"));
    in_time("it refuses to start", started).await.unwrap_err()
}

#[tokio::test]
async fn refuses_a_caller_whose_certificate_another_root_signed() {
    let running = Running::start().await;
    let elsewhere = Running::start().await;
    let stranger = elsewhere.issue("shop/web").await;
    // with TLS 1.3 the client learns of it at its first request, if not at the handshake
    if let Ok(channel) = running.connect(Some(&stranger)).await {
        assert!(
            Stream::open(channel, request_for(&[OWN_BUNDLE]))
                .await
                .is_err()
        );
    }
    running
        .wait_for_metric(
            "mesh_lite_control_plane_handshakes_total{outcome=\"tls\"}",
            1.0,
        )
        .await;
}

/// SDS-S25
#[tokio::test]
async fn hangs_up_on_plaintext() {
    let running = Running::start().await;
    let mut plain = TcpStream::connect(running.bound.grpc).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    in_time("it hangs up", plain.read_to_end(&mut answer))
        .await
        .unwrap_or_default();
    // at most an alert: 0x15 is its type
    assert!(
        answer.first().is_none_or(|first| *first == 0x15),
        "{answer:?}"
    );
    running
        .wait_for_metric(
            "mesh_lite_control_plane_handshakes_total{outcome=\"tls\"}",
            1.0,
        )
        .await;
}

/// SDS-S22, SDS-S23
#[tokio::test]
async fn ends_streams_with_unavailable_when_it_ends() {
    let mut running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut stream = Stream::open(channel, request_for(&[OWN_BUNDLE]))
        .await
        .unwrap();
    stream.next().await.unwrap();
    running.tell_to_end();
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("open the stream on a new one"),
        "{status}"
    );
    let address = running.bound.grpc;
    let directories = running.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
    // the data directory is free again
    Running::start_in(directories).await.end().await;
}

#[tokio::test]
async fn serves_health_and_reflection() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let running = Running::start().await;
    let health = HealthClient::new(running.anonymous().await)
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(
        health.unwrap().into_inner().status(),
        ServingStatus::Serving
    );
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let channel = running.workload("shop/web").await;
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = services
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for name in [
        "envoy.service.secret.v3.SecretDiscoveryService",
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "mesh_lite.v1.WorkloadDirectory",
        "mesh_lite.v1.AuthorizationPolicies",
        "grpc.health.v1.Health",
    ] {
        assert!(
            names.iter().any(|found| found == name),
            "{name} is missing in {names:?}"
        );
    }
}

#[tokio::test]
async fn refuses_to_start_twice_on_one_data_directory() {
    let running = Running::start().await;
    let error = start_and_fail(running.directories.settings()).await;
    assert!(
        error
            .to_string()
            .contains("another control plane uses the data directory"),
        "{error}"
    );
}

#[tokio::test]
async fn refuses_to_start_with_leaves_too_long_for_the_issuing_authority() {
    let directories = Directories::new();
    let mut settings = directories.settings();
    settings.leaf_lifetime = Duration::from_secs(16 * 24 * 3600);
    let error = start_and_fail(settings).await;
    assert!(
        error
            .to_string()
            .contains("must live at least 2 times as long"),
        "{error}"
    );
}

#[tokio::test]
async fn refuses_to_start_without_an_issuing_authority_and_says_what_to_run() {
    let directories = Directories::new();
    std::fs::remove_file(directories.data.join("issuing/issuing-ca.pem")).unwrap();
    let error = start_and_fail(directories.settings()).await;
    assert!(error.to_string().contains("mesh-lite root init"), "{error}");
}

#[tokio::test]
async fn refuses_to_start_for_another_trust_domain() {
    let directories = Directories::new();
    let mut settings = directories.settings();
    settings.trust_domain = spiffe::TrustDomain::new("other.test").unwrap();
    let error = start_and_fail(settings).await;
    assert!(
        error.to_string().contains("mesh.test, not other.test"),
        "{error}"
    );
}

#[tokio::test]
async fn serves_without_ever_opening_the_root_key() {
    let directories = Directories::new();
    let root = directories.data.join("root");
    std::fs::remove_dir_all(&root).unwrap();
    let running = Running::start_in(directories).await;
    assert_eq!(running.issue("shop/web").await.chain.len(), 2);
}

const TOO_MANY: &str = "mesh_lite_control_plane_handshakes_total{outcome=\"too_many_connections\"}";

/// A workload that holds all the connections it gets keeps nobody else out.
#[tokio::test]
async fn one_certificate_takes_no_more_than_its_places() {
    let running = Running::start().await;
    let svid = running.issue("shop/web").await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let channel = running.connect(Some(&svid)).await.unwrap();
        let mut stream = Stream::open(channel, request_for(&[OWN_BUNDLE]))
            .await
            .unwrap();
        stream.next().await.unwrap();
        open.push(stream);
    }
    // with TLS 1.3 the client learns of it at its first request, if not at the handshake
    if let Ok(channel) = running.connect(Some(&svid)).await {
        let refused = Stream::open(channel, request_for(&[OWN_BUNDLE])).await;
        assert!(refused.is_err());
    }
    running.wait_for_metric(TOO_MANY, 1.0).await;
    let other = running.workload("shop/api").await;
    let answer = running.fetch(other, request_for(&[OWN_BUNDLE])).await;
    assert!(answer.is_ok());
    // what is closed is free again
    open.clear();
    eventually("a place is free", async || {
        let channel = running.connect(Some(&svid)).await.ok()?;
        let answer = running.fetch(channel, request_for(&[OWN_BUNDLE])).await;
        answer.ok().map(drop)
    })
    .await;
}

/// Neither does a reusable token: its connections are the workload's.
#[tokio::test]
async fn one_token_takes_no_more_than_its_workloads_places() {
    let running = Running::start().await;
    let token = stream_token(&running.directories, "shop/web");
    let mut open = Vec::new();
    let mut refused = None;
    for number in 0..65 {
        let channel = running.anonymous().await;
        let mut stream = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), &token)
            .await
            .unwrap();
        // one that has no place is told at its first answer or after it
        if let Err(status) = stream.next().await {
            refused = Some(status);
        } else if number == 64 {
            refused = stream.next().await.err();
        }
        open.push(stream);
    }
    assert_eq!(
        refused.expect("the last one ends").code(),
        Code::Unavailable
    );
    let other = stream_token(&running.directories, "shop/api");
    let channel = running.anonymous().await;
    let mut stream = TokenStream::open(channel, request_for(&[OWN_BUNDLE]), &other)
        .await
        .unwrap();
    assert!(stream.next().await.is_ok());
}
