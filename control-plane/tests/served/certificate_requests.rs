//! Certificate requests of every kind of key, over real connections (CSR-C1 to C9; C6 and C10 are
//! of Istio's API, which is not served yet).

use rcgen::KeyPair;
use tonic::Code;

use super::{
    client::{Svid, csr, fetch_request, with_token},
    leaf_profile::kinds,
    running::Running,
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
    let key = KeyPair::generate().unwrap();
    let ask = || with_token(fetch_request(&csr(&key, &[])), &token);
    assert!(running.fetch(channel, ask()).await.is_err());
    // the token was not even read
    let response = running.fetch(running.anonymous().await, ask()).await;
    assert!(response.is_ok());
}
