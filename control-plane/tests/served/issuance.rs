use std::time::Duration;

use mesh_lite_proto::secret_discovery::OWN_BUNDLE;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use tonic::Code;

use super::{
    client::{Svid, chain_pem, csr, fetch_request, node, request_for, secrets, with_token},
    running::{Running, WORKLOADS, eventually},
};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";
const API: &str = "spiffe://mesh.test/ns/shop/sa/api";

/// CSR-C2, CSR-C7
#[tokio::test]
async fn issues_to_a_join_token_what_the_workload_document_says() {
    let running = Running::start().await;
    let svid = running.issue("shop/web").await;
    assert_eq!(svid.facts.id.as_str(), WEB);
    assert_eq!(svid.facts.common_name.as_deref(), Some("web"));
    assert_eq!(svid.chain.len(), 2);
    running
        .wait_for_metric(
            "mesh_lite_control_plane_issuances_total{outcome=\"granted\"}",
            1.0,
        )
        .await;
}

#[tokio::test]
async fn gives_the_same_key_the_same_certificate_again_and_another_key_none() {
    let running = Running::start().await;
    let (key, token) = (
        KeyPair::generate().unwrap(),
        running.directories.token("shop/web"),
    );
    let ask = |key: &KeyPair| with_token(fetch_request(&csr(key, &[])), &token);
    let first = running
        .fetch(running.anonymous().await, ask(&key))
        .await
        .unwrap();
    let again = running
        .fetch(running.anonymous().await, ask(&key))
        .await
        .unwrap();
    assert_eq!(chain_pem(&first), chain_pem(&again));
    let other = KeyPair::generate().unwrap();
    let refused = running
        .fetch(running.anonymous().await, ask(&other))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("was redeemed at"), "{refused}");
    assert!(
        refused
            .message()
            .contains("mesh-lite token create shop/web"),
        "{refused}"
    );
}

#[tokio::test]
async fn redeems_a_token_once_however_many_ask_at_the_same_time() {
    let running = Running::start().await;
    let token = running.directories.token("shop/web");
    let channel = running.anonymous().await;
    let attempts = (0..20).map(|_| {
        let request = with_token(
            fetch_request(&csr(&KeyPair::generate().unwrap(), &[])),
            &token,
        );
        running.fetch(channel.clone(), request)
    });
    let answers = futures::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
}

#[tokio::test]
async fn remembers_over_a_restart_that_a_token_was_redeemed() {
    let running = Running::start().await;
    let (key, token) = (
        KeyPair::generate().unwrap(),
        running.directories.token("shop/web"),
    );
    let ask = |key: &KeyPair| with_token(fetch_request(&csr(key, &[])), &token);
    let first = running
        .fetch(running.anonymous().await, ask(&key))
        .await
        .unwrap();
    let running = Running::start_in(running.end().await).await;
    let again = running
        .fetch(running.anonymous().await, ask(&key))
        .await
        .unwrap();
    assert_eq!(chain_pem(&first), chain_pem(&again));
    let other = KeyPair::generate().unwrap();
    let refused = running
        .fetch(running.anonymous().await, ask(&other))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// CSR-C8
#[tokio::test]
async fn refuses_an_unknown_token_and_says_what_to_do() {
    let running = Running::start().await;
    let key = KeyPair::generate().unwrap();
    for token in ["", "nonsense", "mesh-lite-join-00", "../../../etc/passwd"] {
        let request = with_token(fetch_request(&csr(&key, &[])), token);
        let refused = running
            .fetch(running.anonymous().await, request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{token}");
        assert!(
            refused.message().contains("mesh-lite token create"),
            "{refused}"
        );
    }
    let series = "mesh_lite_control_plane_issuances_total{outcome=\"bad_token\"}";
    assert!(running.metric(series).await >= 3.0);
}

/// CSR-C8
#[tokio::test]
async fn refuses_an_expired_token() {
    let running = Running::start().await;
    let token = running.directories.token_for("shop/web", Duration::ZERO);
    let request = with_token(
        fetch_request(&csr(&KeyPair::generate().unwrap(), &[])),
        &token,
    );
    let refused = running
        .fetch(running.anonymous().await, request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("expired at"), "{refused}");
}

#[tokio::test]
async fn keeps_a_token_good_while_its_workload_has_no_document() {
    let running = Running::start().await;
    let token = running.directories.token("shop/later");
    let key = KeyPair::generate().unwrap();
    let ask = || with_token(fetch_request(&csr(&key, &[])), &token);
    let refused = running
        .fetch(running.anonymous().await, ask())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(
        refused
            .message()
            .contains("no usable Workload document shop/later"),
        "{refused}"
    );
    running.directories.write(
        "later.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: later, namespace: shop}\n\
         spec: {serviceAccount: late, addresses: [10.0.0.9]}\n",
    );
    let response = eventually("the document is read", async || {
        running.fetch(running.anonymous().await, ask()).await.ok()
    })
    .await;
    let svid = Svid::new(&response, KeyPair::generate().unwrap());
    assert_eq!(svid.facts.id.as_str(), "spiffe://mesh.test/ns/shop/sa/late");
}

/// CSR-C2, SDS-S30
#[tokio::test]
async fn renews_by_the_current_certificate_with_a_new_key_only() {
    let running = Running::start().await;
    let first = running.issue("shop/web").await;
    let channel = running.connect(Some(&first)).await.unwrap();
    let key = KeyPair::generate().unwrap();
    let request = fetch_request(&csr(&key, &[WEB]));
    let response = running
        .fetch(channel.clone(), request.clone())
        .await
        .unwrap();
    let second = Svid::new(&response, key);
    assert_eq!(second.facts.id, first.facts.id);
    assert_ne!(second.facts.serial, first.facts.serial);

    let again = running.fetch(channel.clone(), request).await.unwrap_err();
    assert_eq!(again.code(), Code::InvalidArgument);
    assert!(again.message().contains("make a new key"), "{again}");
    let own_key = fetch_request(&csr(&first.key, &[]));
    let refused = running.fetch(channel, own_key).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

/// CSR-C2, CSR-C4 as design §3: a wrong name is refused, and nothing is spent.
#[tokio::test]
async fn refuses_a_certificate_request_for_another_identity() {
    let running = Running::start().await;
    let token = running.directories.token("shop/web");
    let key = KeyPair::generate().unwrap();
    for uris in [
        &[API][..],
        &[WEB, API],
        &[API, WEB],
        &["https://mesh.test/ns/shop/sa/web"],
    ] {
        let request = with_token(fetch_request(&csr(&key, uris)), &token);
        let refused = running
            .fetch(running.anonymous().await, request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{uris:?}");
    }
    let mut by_name = fetch_request(&csr(&key, &[]));
    by_name.resource_names = vec![API.to_owned()];
    let request = with_token(by_name.clone(), &token);
    let refused = running
        .fetch(running.anonymous().await, request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    // nothing of this used the token up
    by_name.resource_names = vec![WEB.to_owned()];
    let request = with_token(by_name, &token);
    let response = running
        .fetch(running.anonymous().await, request)
        .await
        .unwrap();
    assert_eq!(secrets(&response)[0].name, WEB);
}

/// CSR-C4, SPIFFE-L11
#[tokio::test]
async fn takes_nothing_from_a_certificate_request_but_its_key() {
    let running = Running::start().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["bank.example".to_owned()]).unwrap();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "admin");
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = parameters.serialize_request(&key).unwrap().pem().unwrap();
    let token = running.directories.token("shop/web");
    let request = with_token(fetch_request(&request), &token);
    let response = running
        .fetch(running.anonymous().await, request)
        .await
        .unwrap();
    // a CA or a leaf that may sign would not be read as a leaf here
    let svid = Svid::new(&response, key);
    assert_eq!(svid.facts.common_name.as_deref(), Some("web"));
    let (_, leaf) = x509_parser::parse_x509_certificate(&svid.chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(names.critical);
}

/// CSR-C3, CSR-C8, SPIFFE-L12
#[tokio::test]
async fn refuses_what_is_no_certificate_request() {
    let running = Running::start().await;
    let token = running.directories.token("shop/web");
    let good = csr(&KeyPair::generate().unwrap(), &[]);
    // one byte of the signature changed
    let mut forged = good.clone().into_bytes();
    let place = good.find("\n-----END").unwrap() - 6;
    forged[place] = if forged[place] == b'A' { b'B' } else { b'A' };
    let too_long = format!("{good}{}", "x".repeat(20_000));
    for bad in [
        "",
        "not PEM",
        &String::from_utf8(forged).unwrap(),
        &too_long,
    ] {
        let request = with_token(fetch_request(bad), &token);
        let refused = running
            .fetch(running.anonymous().await, request)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
    }
}

/// CSR-C2, CSR-C8, SDS-S23
#[tokio::test]
async fn refuses_callers_who_show_nothing() {
    let running = Running::start().await;
    let channel = running.anonymous().await;
    let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
    let refused = running.fetch(channel.clone(), request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = running
        .fetch(channel, request_for(&[OWN_BUNDLE]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

/// SDS-S28
#[tokio::test]
async fn makes_no_keys_for_callers_without_a_certificate_request() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let refused = running
        .fetch(channel, request_for(&["default"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("mesh-lite.io/csr"), "{refused}");
}

/// CSR-C2, CSR-C8
#[tokio::test]
async fn stops_renewing_when_the_workload_document_is_gone_or_means_somebody_else() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let ask = async || {
        let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
        running.fetch(channel.clone(), request).await
    };
    assert!(ask().await.is_ok());
    running.directories.write(
        "workloads.yaml",
        &WORKLOADS.replace("serviceAccount: web", "serviceAccount: other"),
    );
    let refused = eventually("the change is seen", async || ask().await.err()).await;
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("sa/other now, not"), "{refused}");
    running.directories.remove("workloads.yaml");
    eventually("the removal is seen", async || {
        let refused = ask().await.unwrap_err();
        refused
            .message()
            .contains("no usable Workload document")
            .then_some(())
    })
    .await;
}

/// CSR-C8
#[tokio::test]
async fn refuses_evicted_callers_by_identity_and_by_serial() {
    let running = Running::start().await;
    let (web, api) = (
        running.issue("shop/web").await,
        running.issue("shop/api").await,
    );
    let (web_channel, api_channel) = (
        running.connect(Some(&web)).await.unwrap(),
        running.connect(Some(&api)).await.unwrap(),
    );
    running.directories.write(
        "evictions.yaml",
        &format!(
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{spiffeId: '{WEB}'}}\n---\n\
             apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {{name: api, namespace: mesh-lite-system}}\n\
             spec: {{serial: '{}'}}\n",
            api.facts.serial
        ),
    );
    for (channel, by) in [
        (web_channel, "evicted by shop/web"),
        (api_channel, "evicted by mesh-lite-system/api"),
    ] {
        let refused = eventually("the eviction is seen", async || {
            let request = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
            running.fetch(channel.clone(), request).await.err()
        })
        .await;
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains(by), "{refused}");
    }
    // the serial was one certificate's; the workload may come back by a new token
    assert_eq!(running.issue("shop/api").await.facts.id.as_str(), API);
    let token = running.directories.token("shop/web");
    let request = with_token(
        fetch_request(&csr(&KeyPair::generate().unwrap(), &[])),
        &token,
    );
    let refused = running
        .fetch(running.anonymous().await, request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// SDS-S3, SDS-S21, CSR-C3
#[tokio::test]
async fn refuses_oversize_requests_and_other_types() {
    let running = Running::start().await;
    let channel = running.workload("shop/web").await;
    let mut other = request_for(&[OWN_BUNDLE]);
    other.type_url = "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned();
    let refused = running.fetch(channel.clone(), other).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let long = running
        .fetch(channel.clone(), request_for(&[&"n".repeat(2065)]))
        .await
        .unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    let huge = "x".repeat(1024 * 1024);
    let mut message = request_for(&[OWN_BUNDLE]);
    message.node = Some(node(&[("padding", &huge)]));
    let refused = running.fetch(channel.clone(), message).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    // Envoy's node has 61 KB, and is taken
    let mut message = request_for(&[OWN_BUNDLE]);
    message.node = Some(node(&[("padding", &"x".repeat(256 * 1024))]));
    assert!(running.fetch(channel, message).await.is_ok());
}
