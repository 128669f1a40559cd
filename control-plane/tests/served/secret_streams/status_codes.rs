//! What a caller is told, fault by fault (SDS-S23).

use std::time::Duration;

use rcgen::KeyPair;
use tonic::{IntoRequest, Request};

use super::*;
use crate::served::client::{csr, fetch_request, with_token};

const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

fn asks_for_certificate(uris: &[&str]) -> DiscoveryRequest {
    fetch_request(&csr(&KeyPair::generate().unwrap(), uris))
}

fn with_header(message: DiscoveryRequest, header: &str) -> Request<DiscoveryRequest> {
    let mut request = Request::new(message);
    let header = header.parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

fn of_another_type() -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: LISTENERS.to_owned(),
        ..request_for(&[OWN_BUNDLE])
    }
}

fn many_names() -> DiscoveryRequest {
    let many: Vec<String> = (0..129).map(|number| format!("name-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    request_for(&many)
}

/// SDS-S23
#[tokio::test]
async fn fetch_names_each_fault_by_its_code() {
    let running = Running::start().await;
    let web = running.workload("shop/web").await;
    let nobody = running.anonymous().await;
    let expired = running.directories.token_for("shop/web", Duration::ZERO);
    let long = "n".repeat(2065);
    let faults: Vec<(&str, Channel, Request<DiscoveryRequest>, Code)> = vec![
        (
            "shows nothing, wants a bundle",
            nobody.clone(),
            request_for(&[OWN_BUNDLE]).into_request(),
            Code::Unauthenticated,
        ),
        (
            "shows nothing, wants a certificate",
            nobody.clone(),
            asks_for_certificate(&[]).into_request(),
            Code::Unauthenticated,
        ),
        (
            "a token that was never made",
            nobody.clone(),
            with_token(asks_for_certificate(&[]), "mesh-lite-join-00"),
            Code::Unauthenticated,
        ),
        (
            "an expired token",
            nobody.clone(),
            with_token(asks_for_certificate(&[]), &expired),
            Code::Unauthenticated,
        ),
        (
            "a header that is no token",
            nobody,
            with_header(asks_for_certificate(&[]), "Basic d2ViOndlYg=="),
            Code::Unauthenticated,
        ),
        (
            "wants to be somebody else",
            web.clone(),
            asks_for_certificate(&["spiffe://mesh.test/ns/shop/sa/api"]).into_request(),
            Code::PermissionDenied,
        ),
        (
            "a certificate request that is none",
            web.clone(),
            fetch_request("junk").into_request(),
            Code::InvalidArgument,
        ),
        (
            "another type",
            web.clone(),
            of_another_type().into_request(),
            Code::InvalidArgument,
        ),
        (
            "a long name",
            web.clone(),
            request_for(&[&long]).into_request(),
            Code::InvalidArgument,
        ),
        (
            "many names",
            web.clone(),
            many_names().into_request(),
            Code::ResourceExhausted,
        ),
        (
            "nothing that exists",
            web,
            request_for(&["nobody"]).into_request(),
            Code::NotFound,
        ),
    ];
    for (fault, channel, request, code) in faults {
        let refused = running.fetch(channel, request).await.unwrap_err();
        assert_eq!(refused.code(), code, "{fault}: {refused}");
        assert!(refused.message().len() > 20, "{fault}: {refused}");
    }
}

/// SDS-S23, SDS-S26
#[tokio::test]
async fn an_evicted_caller_is_denied_whatever_it_asks_for() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    running.directories.write(
        "evictions.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: web, namespace: shop}\n\
         spec: {spiffeId: 'spiffe://mesh.test/ns/shop/sa/web'}\n",
    );
    for request in [request_for(&[OWN_BUNDLE]), asks_for_certificate(&[])] {
        let refused = eventually("it is denied", async || {
            running.fetch(channel.clone(), request.clone()).await.err()
        })
        .await;
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
}
