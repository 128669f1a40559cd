//! What a caller is told, fault by fault (SDS-S23).

use std::time::Duration;

use rcgen::KeyPair;
use tonic::{IntoRequest as _, Request};

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

type Fault = (&'static str, Request<DiscoveryRequest>, Code);

/// Of a caller without a certificate.
fn faults_of_nobody(expired: &str) -> Vec<Fault> {
    let code = Code::Unauthenticated;
    vec![
        (
            "shows nothing, wants a bundle",
            request_for(&[OWN_BUNDLE]).into_request(),
            code,
        ),
        (
            "shows nothing, wants a certificate",
            asks_for_certificate(&[]).into_request(),
            code,
        ),
        (
            "a token that was never made",
            with_token(asks_for_certificate(&[]), "mesh-lite-join-00"),
            code,
        ),
        (
            "an expired token",
            with_token(asks_for_certificate(&[]), expired),
            code,
        ),
        (
            "a header that is no token",
            with_header(asks_for_certificate(&[]), "Basic d2ViOndlYg=="),
            code,
        ),
    ]
}

/// Of a workload with its certificate.
fn faults_of_web() -> Vec<Fault> {
    let somebody_else = "spiffe://mesh.test/ns/shop/sa/api";
    let long = "n".repeat(2065);
    let faults = [
        (
            "wants to be somebody else",
            asks_for_certificate(&[somebody_else]),
            Code::PermissionDenied,
        ),
        (
            "a certificate request that is none",
            fetch_request("junk"),
            Code::InvalidArgument,
        ),
        ("another type", of_another_type(), Code::InvalidArgument),
        ("a long name", request_for(&[&long]), Code::InvalidArgument),
        ("many names", many_names(), Code::ResourceExhausted),
        (
            "nothing that exists",
            request_for(&["nobody"]),
            Code::NotFound,
        ),
    ];
    faults
        .map(|(fault, request, code)| (fault, request.into_request(), code))
        .into()
}

/// SDS-S23, CSR-C8
#[tokio::test]
async fn fetch_names_each_fault_by_its_code() {
    let running = Running::start().await;
    let expired = running.directories.token_for("shop/web", Duration::ZERO);
    let (web, nobody) = (
        running.workload("shop/web").await,
        running.anonymous().await,
    );
    for (channel, faults) in [(nobody, faults_of_nobody(&expired)), (web, faults_of_web())] {
        for (fault, request, code) in faults {
            let refused = running.fetch(channel.clone(), request).await.unwrap_err();
            assert_eq!(refused.code(), code, "{fault}: {refused}");
            assert!(refused.message().len() > 20, "{fault}: {refused}");
        }
    }
}

/// SDS-S23, SDS-S26, CSR-C8
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
