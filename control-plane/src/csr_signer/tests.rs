use k8s_openapi::ByteString;
use mesh_lite_proto::{document::split, identity::WorkloadId, svid::inspect_leaf};
use mesh_lite_test_support::{api_server::Trouble, eventually};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::*;
use crate::{clock, cluster_fixture::Fixture};

const KIND: &str = "CertificateSigningRequest";
const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

fn request_for(uri: &str) -> String {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let request = parameters.serialize_request(&key).unwrap().pem().unwrap();
    encoded(&request)
}

/// As an API server stores one that the pod `shop/web-0` made.
fn object(name: &str, uri: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": KIND,
        "metadata": {"name": name, "creationTimestamp": readable(clock::now())},
        "spec": {
            "request": request_for(uri),
            "signerName": "mesh-lite.io/spiffe",
            "usages": ["digital signature", "client auth", "server auth"],
            "username": "system:serviceaccount:shop:web",
            "groups": ["system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-name": ["web-0"],
                "authentication.kubernetes.io/pod-uid": ["uid-1"]},
        },
    })
}

fn condition_of(fixture: &Fixture, name: &str, kind: &str) -> Option<String> {
    let request = fixture.server.get(KIND, "", name)?;
    let conditions = request["status"]["conditions"].as_array()?.clone();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    Some(found["message"].as_str().unwrap().to_owned())
}

fn wait_for_condition(fixture: &Fixture, name: &str, kind: &str) -> String {
    eventually(&format!("{name} is {kind}"), || {
        let request = fixture.server.get(KIND, "", name);
        condition_of(fixture, name, kind).ok_or(request)
    })
}

fn certificate_of(fixture: &Fixture, name: &str) -> Option<Vec<u8>> {
    let request = fixture.server.get(KIND, "", name)?;
    let certificate: ByteString =
        serde_json::from_value(request["status"]["certificate"].clone()).ok()?;
    (!certificate.0.is_empty()).then_some(certificate.0)
}

fn wait_for_certificate(fixture: &Fixture, name: &str) -> Vec<CertificateDer<'static>> {
    let pem = eventually(&format!("the certificate of {name}"), || {
        let request = fixture.server.get(KIND, "", name);
        certificate_of(fixture, name).ok_or(request)
    });
    CertificateDer::pem_slice_iter(&pem)
        .map(Result::unwrap)
        .collect()
}

/// Every request before it in the watch was looked at once this one has its certificate.
fn wait_until_looked_at(fixture: &Fixture) {
    fixture.server.put(object("last", WEB));
    wait_for_certificate(fixture, "last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_gets_an_x509_svid_of_its_own_identity() {
    let fixture = Fixture::new().await;
    fixture.server.put(object("before", WEB));
    tokio::spawn(run(fixture.cluster.clone()));
    fixture.server.put(object("after", WEB));
    for name in ["before", "after"] {
        let chain = wait_for_certificate(&fixture, name);
        assert_eq!(chain.len(), 2);
        let leaf = inspect_leaf(&chain[0]).unwrap();
        assert_eq!(leaf.id, WEB.parse::<WorkloadId>().unwrap());
        assert_eq!(leaf.common_name, None, "it must renew nothing with us");
        assert!(condition_of(&fixture, name, "Approved").is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_is_denied_in_words_and_once() {
    let fixture = Fixture::new().await;
    tokio::spawn(run(fixture.cluster.clone()));
    fixture
        .server
        .put(object("other", "spiffe://mesh.test/ns/shop/sa/admin"));
    let said = wait_for_condition(&fixture, "other", "Denied");
    assert!(
        said.contains("whoever made it is spiffe://mesh.test/ns/shop/sa/web"),
        "{said}"
    );
    wait_until_looked_at(&fixture);
    assert_eq!(certificate_of(&fixture, "other"), None);
    let calls = fixture.server.calls();
    let writes = calls
        .iter()
        .filter(|call| call.method == "PATCH" && call.path.contains("/other"));
    assert_eq!(writes.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_somebody_else_approved_although_it_is_wrong_fails() {
    let fixture = Fixture::new().await;
    let mut wrong = object("wrong", "spiffe://mesh.test/ns/shop/sa/admin");
    wrong["status"] = json!({"conditions": [condition("Approved", "Kubectl", "by hand")]});
    let mut right = object("right", WEB);
    right["status"] = wrong["status"].clone();
    fixture.server.put(wrong);
    fixture.server.put(right);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_condition(&fixture, "wrong", "Failed");
    wait_for_certificate(&fixture, "right");
    assert_eq!(certificate_of(&fixture, "wrong"), None);
    assert_eq!(
        condition_of(&fixture, "wrong", "Approved").as_deref(),
        Some("by hand")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_not_touched() {
    let fixture = Fixture::new().await;
    let mut other = object("other-signer", WEB);
    other["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client");
    let mut old = object("old", WEB);
    old["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    let mut denied = object("denied", WEB);
    denied["status"] = json!({"conditions": [condition("Denied", "Kubectl", "by hand")]});
    let mut failed = object("failed", WEB);
    failed["status"] = json!({"conditions": [condition("Failed", "X", "before")]});
    let mut signed = object("signed", WEB);
    signed["status"] = json!({"certificate": encoded("x")});
    let untouched: Vec<Value> = [other, old, denied, failed, signed]
        .into_iter()
        .map(|object| fixture.server.put(object))
        .collect();
    tokio::spawn(run(fixture.cluster.clone()));
    wait_until_looked_at(&fixture);
    for object in untouched {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert_eq!(
            fixture.server.get(KIND, "", name).unwrap(),
            object,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_evicted_gets_nothing() {
    let fixture = Fixture::new().await;
    let document = format!(
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {{name: web, namespace: mesh-lite-system}}\n\
         spec: {{spiffeId: \"{WEB}\"}}\n"
    );
    let document = split("e.yaml", document.as_bytes()).readable.remove(0);
    fixture
        .policies
        .send_modify(|index| index.upsert(&document));
    fixture.server.put(object("evicted", WEB));
    tokio::spawn(run(fixture.cluster.clone()));
    let said = wait_for_condition(&fixture, "evicted", "Denied");
    assert!(said.contains("evicted by"), "{said}");
    assert_eq!(certificate_of(&fixture, "evicted"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_an_api_server_that_fails_and_for_a_leader() {
    let fixture = Fixture::new().await;
    fixture.leads.send_replace(false);
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests/web/status";
    fixture.server.trouble("PATCH", path, Trouble::Status(500));
    fixture.server.put(object("web", WEB));
    tokio::spawn(run(fixture.cluster.clone()));
    assert_eq!(condition_of(&fixture, "web", "Approved"), None);
    fixture.leads.send_replace(true);
    wait_for_condition(&fixture, "web", "Approved");
    assert_eq!(certificate_of(&fixture, "web"), None);
    fixture.server.heal();
    wait_for_certificate(&fixture, "web");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_fail_hold_up_no_other_and_are_told_of() {
    const STUCK: usize = 10;
    let fixture = Fixture::new().await;
    let path = |name: &str, what: &str| {
        format!("/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/{what}")
    };
    for number in 0..STUCK {
        let name = format!("stuck-{number}");
        let approval = path(&name, "approval");
        fixture
            .server
            .trouble("PATCH", &approval, Trouble::Status(500));
        fixture.server.put(object(&name, WEB));
    }
    fixture.server.put(object("well", WEB));
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_certificate(&fixture, "well");
    let calls = fixture.server.calls();
    let tries = calls
        .iter()
        .filter(|call| call.method == "PATCH" && call.path.contains("/stuck-"));
    // five of each, one second apart, would be fifty
    assert!(tries.count() < 3 * STUCK, "the others were waited for");
    let said = eventually("what waits is told of", || {
        let said = fixture.problems(Part::SigningRequests);
        if said.contains("waits:") {
            Ok(said)
        } else {
            Err(said)
        }
    });
    assert!(
        said.contains("other CertificateSigningRequests wait too"),
        "{said}"
    );
    fixture.server.heal();
    for number in 0..STUCK {
        wait_for_certificate(&fixture, &format!("stuck-{number}"));
    }
}
