//! Certificate requests of every kind of key, over real connections (CSR-C1 to C9; C6 and C10 are
//! of Istio's API, which is not served yet).

use rcgen::KeyPair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use super::{
    client::{Svid, csr, fetch_request, with_token},
    leaf_profile::kinds,
    running::{Running, in_time},
};

/// CSR-C3: what is issued proves its holder at a handshake, and renews. Another workload for each
/// kind, so that no rate is met.
#[tokio::test]
async fn every_kind_of_key_is_certified_proves_its_holder_and_renews() {
    let running = Running::start().await;
    for kind in kinds() {
        let key = KeyPair::generate_for(kind).unwrap();
        let token = running.directories.token("shop/web");
        let request = with_token(fetch_request(&csr(&key, &[])), &token);
        let response = running
            .fetch(running.anonymous().await, request)
            .await
            .unwrap();
        let first = Svid::new(&response, key);
        let channel = running.connect(Some(&first)).await.unwrap();
        let key = KeyPair::generate_for(kind).unwrap();
        let response = running
            .fetch(channel, fetch_request(&csr(&key, &[])))
            .await
            .unwrap();
        let second = Svid::new(&response, key);
        assert_ne!(first.facts.serial, second.facts.serial);
        // and the renewed one proves its holder as well
        running.connect(Some(&second)).await.unwrap();
    }
}

/// CSR-C8, CSR-C9: a workload in a hot loop is slowed, its neighbour is not.
#[tokio::test]
async fn slows_a_workload_that_renews_without_end_and_no_other() {
    let running = Running::start().await;
    let (web, api) = (
        running.workload("shop/web").await,
        running.workload("shop/api").await,
    );
    let mut refused = None;
    for _ in 0..20 {
        let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
        refused = running.fetch(web.clone(), request).await.err();
        if refused.is_some() {
            break;
        }
    }
    let refused = refused.expect("twenty at once are too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        refused.message().contains("Compare the clocks"),
        "{refused}"
    );
    let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
    assert!(running.fetch(api, request).await.is_ok());
    let series = "mesh_lite_control_plane_issuances_total{outcome=\"too_often\"}";
    assert!(running.metric(series).await >= 1.0);
}

/// CSR-C1: a connection in the clear gets nothing, not even an answer in HTTP/2.
#[tokio::test]
async fn answers_nobody_without_tls() {
    let running = Running::start().await;
    let address = format!("http://{}", running.bound.grpc);
    let endpoint = tonic::transport::Endpoint::from_shared(address).unwrap();
    let channel = endpoint.connect_lazy();
    let token = running.directories.token("shop/web");
    let ask = || {
        let key = KeyPair::generate().unwrap();
        with_token(fetch_request(&csr(&key, &[])), &token)
    };
    assert!(running.fetch(channel, ask()).await.is_err());
    // the token was not even read: it is good for another key
    let response = running.fetch(running.anonymous().await, ask()).await;
    assert!(response.is_ok());
}

/// A ClientHello of the days before TLS 1.3: what it speaks is its version, not an extension.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    // random, and no session
    body.extend([7; 32]);
    body.push(0);
    // ECDHE-ECDSA-AES128-GCM-SHA256, no compression
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    // P-256, and its ECDSA with SHA-256
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 23, //
        0, 13, 0, 4, 0, 2, 4, 3,
    ];
    body.extend([0, 16]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).unwrap();
    let mut hello = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    hello.extend(body);
    hello
}

/// SDS-S25, CSR-C1
#[tokio::test]
async fn refuses_every_tls_before_1_3() {
    const ALERT: u8 = 21;
    const PROTOCOL_VERSION: u8 = 70;
    let running = Running::start().await;
    for version in [[3, 3], [3, 2], [3, 1], [3, 0]] {
        let mut old = TcpStream::connect(running.bound.grpc).await.unwrap();
        old.write_all(&old_hello(version)).await.unwrap();
        let mut answer = Vec::new();
        let read = old.read_to_end(&mut answer);
        in_time("it hangs up", read).await.unwrap();
        let said = (answer.first().copied(), answer.last().copied());
        assert_eq!(said, (Some(ALERT), Some(PROTOCOL_VERSION)), "{answer:?}");
    }
}
