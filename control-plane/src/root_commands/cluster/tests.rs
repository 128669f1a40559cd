use std::time::Duration;

use mesh_lite_test_support::api_server::{ApiServer, Trouble};
use serde_json::{Value, json};

use super::*;
use crate::{clock::from_unix_seconds, root_commands::ROOT_LIFETIME};

const NAMESPACE: &str = "mesh-lite-system";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn new() -> NewRoot {
    NewRoot {
        trust_domain: trust_domain(),
        root_lifetime: ROOT_LIFETIME,
        mode: None,
        issuing_lifetime: None,
    }
}

async fn mesh(server: &ApiServer) -> MeshInCluster {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    MeshInCluster {
        client: connect(Some(&server.kubeconfig())).await.unwrap(),
        mesh_namespace: NAMESPACE.to_owned(),
        root_dir: None,
    }
}

async fn init(server: &ApiServer) -> Result<ClusterReport, RootCommandError> {
    init_cluster_root(&mesh(server).await, &new(), now()).await
}

async fn renew(
    server: &ApiServer,
    when: When,
    now: SystemTime,
) -> Result<ClusterReport, RootCommandError> {
    let mesh = mesh(server).await;
    renew_cluster_root(&mesh, Renewal::default(), when, &trust_domain(), now).await
}

fn data(server: &ApiServer, kind: &str, name: &str) -> Value {
    let object = server.get(kind, NAMESPACE, name);
    object.unwrap_or_else(|| panic!("no {kind} {name}"))["data"].clone()
}

/// All three objects, to be compared.
fn state(server: &ApiServer) -> [Value; 3] {
    [
        data(server, "Secret", "mesh-lite-root"),
        data(server, "Secret", "mesh-lite-issuing-ca"),
        data(server, "ConfigMap", "mesh-lite-trust-bundle"),
    ]
}

fn writes(server: &ApiServer) -> usize {
    let calls = server.calls();
    calls.iter().filter(|call| call.method != "GET").count()
}

#[tokio::test]
async fn makes_a_mesh_once_and_changes_nothing_the_second_time() {
    let server = ApiServer::start();
    let first = init(&server).await.unwrap();
    assert!(first.root_made && first.issuing_made && first.bundle_written);
    assert_eq!(
        first.issuing_until,
        now() + RootMode::Kept.issuing_lifetime()
    );
    let made = state(&server);
    assert_eq!(made[1]["root-mode"], "a2VwdAo=");

    server.forget_calls();
    let second = init(&server).await.unwrap();
    assert!(!(second.root_made || second.issuing_made || second.bundle_written));
    assert_eq!(second.issuing_key_id, first.issuing_key_id);
    assert_eq!(state(&server), made);
    assert_eq!(writes(&server), 0);
}

#[tokio::test]
async fn what_a_broken_off_run_left_out_is_made_by_the_next_under_the_same_root() {
    for lost in ["bundle", "issuing", "both"] {
        let server = ApiServer::start();
        init(&server).await.unwrap();
        let before = state(&server);
        if lost != "issuing" {
            server.remove("ConfigMap", NAMESPACE, "mesh-lite-trust-bundle");
        }
        if lost != "bundle" {
            server.remove("Secret", NAMESPACE, "mesh-lite-issuing-ca");
        }
        let report = init(&server).await.unwrap();
        assert!(!report.root_made, "{lost}");
        let after = state(&server);
        assert_eq!(after[0], before[0], "{lost}");
        assert_eq!(after[2], before[2], "{lost}");
        assert_eq!(after[1] == before[1], lost == "bundle", "{lost}");
    }
}

#[tokio::test]
async fn many_jobs_at_once_make_one_root() {
    let server = ApiServer::start();
    let jobs: Vec<_> = (0..8).map(|_| init(&server)).collect();
    let reports = futures::future::join_all(jobs).await;
    let reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
    assert_eq!(reports.iter().filter(|report| report.root_made).count(), 1);
    let key_ids: std::collections::BTreeSet<_> = reports
        .iter()
        .map(|report| &report.issuing_key_id)
        .collect();
    assert_eq!(key_ids.len(), 1, "{key_ids:?}");
    assert!(reports.iter().all(|report| report.roots == 1));
}

#[tokio::test]
async fn a_mesh_whose_root_is_out_of_reach_never_gets_a_second_one() {
    let server = ApiServer::start();
    init(&server).await.unwrap();
    server.remove("Secret", NAMESPACE, "mesh-lite-root");
    // with an issuing CA: nothing to do
    let report = init(&server).await.unwrap();
    assert_eq!(report.root, None);
    // without one: in words
    server.remove("Secret", NAMESPACE, "mesh-lite-issuing-ca");
    let refused = init(&server).await.unwrap_err().to_string();
    assert!(
        refused.contains("a second root would part this mesh"),
        "{refused}"
    );
    assert!(server.get("Secret", NAMESPACE, "mesh-lite-root").is_none());
}

#[tokio::test]
async fn a_root_of_another_trust_domain_is_left_alone() {
    let server = ApiServer::start();
    init(&server).await.unwrap();
    let before = state(&server);
    server.remove("Secret", NAMESPACE, "mesh-lite-issuing-ca");
    let other = NewRoot {
        trust_domain: TrustDomain::new("other.test").unwrap(),
        ..new()
    };
    let refused = init_cluster_root(&mesh(&server).await, &other, now()).await;
    assert!(refused.unwrap_err().to_string().contains("mesh.test"));
    assert_eq!(data(&server, "Secret", "mesh-lite-root"), before[0]);
    assert!(
        server
            .get("Secret", NAMESPACE, "mesh-lite-issuing-ca")
            .is_none()
    );
}

#[tokio::test]
async fn renews_from_half_life_on_and_keeps_what_others_wrote_beside() {
    let server = ApiServer::start();
    let first = init(&server).await.unwrap();
    let early = renew(&server, When::Due, first.renewal_due - DAY)
        .await
        .unwrap();
    assert!(!early.issuing_made);
    assert_eq!(early.issuing_key_id, first.issuing_key_id);

    let mut secret = server
        .get("Secret", NAMESPACE, "mesh-lite-issuing-ca")
        .unwrap();
    secret["metadata"]["annotations"] = json!({"backup": "yes"});
    server.put(secret);
    let late = renew(&server, When::Due, first.renewal_due).await.unwrap();
    assert!(late.issuing_made);
    assert_ne!(late.issuing_key_id, first.issuing_key_id);
    let secret = server
        .get("Secret", NAMESPACE, "mesh-lite-issuing-ca")
        .unwrap();
    assert_eq!(secret["metadata"]["annotations"]["backup"], "yes");
    assert_eq!(late.roots, 1);
}

#[tokio::test]
async fn timers_at_once_sign_one_next_issuing_ca() {
    let server = ApiServer::start();
    let first = init(&server).await.unwrap();
    let due = first.renewal_due;
    let (one, other) = tokio::join!(
        renew(&server, When::Due, due),
        renew(&server, When::Due, due)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.issuing_key_id, other.issuing_key_id);
    assert_ne!(one.issuing_key_id, first.issuing_key_id);
}

#[tokio::test]
async fn a_timer_repairs_the_trust_bundle_and_drops_no_root_from_it() {
    let server = ApiServer::start();
    init(&server).await.unwrap();
    let other = Root::create(&trust_domain(), ROOT_LIFETIME, now()).unwrap();
    let other = TrustBundle::new(trust_domain(), vec![other.certificate().clone()]).unwrap();
    let mut bundle = server
        .get("ConfigMap", NAMESPACE, "mesh-lite-trust-bundle")
        .unwrap();
    bundle["data"]["trust-bundle.pem"] = json!(other.to_pem());
    server.put(bundle);
    let report = renew(&server, When::Due, now()).await.unwrap();
    assert!(report.bundle_written && !report.issuing_made);
    assert_eq!(report.roots, 2);
    let pem = data(&server, "ConfigMap", "mesh-lite-trust-bundle");
    let pem = pem["trust-bundle.pem"].as_str().unwrap();
    assert!(pem.contains(&other.to_pem()), "{pem}");
}

#[tokio::test]
async fn an_offline_root_is_brought_by_a_person_and_a_timer_signs_nothing() {
    let server = ApiServer::start();
    let directory = tempfile::tempdir().unwrap();
    let offline = MeshInCluster {
        root_dir: Some(directory.path().join("root")),
        ..mesh(&server).await
    };
    let new = NewRoot {
        mode: Some(RootMode::Offline),
        ..new()
    };
    let first = init_cluster_root(&offline, &new, now()).await.unwrap();
    assert!(first.root_made);
    assert!(server.get("Secret", NAMESPACE, "mesh-lite-root").is_none());
    assert_eq!(
        first.issuing_until,
        now() + RootMode::Offline.issuing_lifetime()
    );

    let late = first.renewal_due + DAY;
    let timer = renew(&server, When::Due, late).await.unwrap_err();
    assert!(timer.to_string().contains("a person renews it"), "{timer}");
    let forced = renew(&server, When::Now, late).await.unwrap_err();
    assert!(forced.to_string().contains("there is no root"), "{forced}");
    let renewal = Renewal::default();
    let brought = renew_cluster_root(&offline, renewal, When::Now, &trust_domain(), late).await;
    assert_ne!(brought.unwrap().issuing_key_id, first.issuing_key_id);
}

#[tokio::test]
async fn an_issuing_ca_that_cert_manager_keeps_is_not_touched_but_its_root_is_announced() {
    let server = ApiServer::start();
    let root = Root::create(&trust_domain(), ROOT_LIFETIME, now()).unwrap();
    let issuing = root.sign_issuing_authority(90 * DAY, now()).unwrap();
    let pem = |label, der: &[u8]| mesh_lite_proto::trust_bundle::pem(label, der);
    let encoded = |text: String| {
        let mut encoded = String::new();
        mesh_lite_proto::trust_bundle::base64(text.as_bytes(), &mut encoded);
        encoded
    };
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "mesh-lite-issuing-ca", "namespace": NAMESPACE},
        "data": {
            "tls.crt": encoded(pem("CERTIFICATE", &issuing.certificate)),
            "tls.key": encoded(pem("PRIVATE KEY", issuing.key.serialized_der())),
            "ca.crt": encoded(pem("CERTIFICATE", root.certificate()))}});
    server.put(secret.clone());
    let report = init(&server).await.unwrap();
    assert!(report.plugged_in && !report.root_made && report.bundle_written);
    assert_eq!(
        data(&server, "Secret", "mesh-lite-issuing-ca"),
        secret["data"]
    );
    let again = renew(&server, When::Due, now() + 60 * DAY).await.unwrap();
    assert!(!again.issuing_made && !again.bundle_written);
    let forced = renew(&server, When::Now, now()).await.unwrap_err();
    assert!(forced.to_string().contains("cert-manager"), "{forced}");

    let mut both = secret;
    both["data"]["issuing-ca.pem"] = json!("");
    server.put(both);
    let refused = init(&server).await.unwrap_err().to_string();
    assert!(
        refused.contains("only one can be the issuing CA"),
        "{refused}"
    );
}

/// What is there and can't be read must not be taken for something that is missing.
#[tokio::test]
async fn nothing_is_made_while_the_api_server_refuses_or_an_object_is_broken() {
    let server = ApiServer::start();
    for status in [401, 403, 429, 500] {
        let path = "/api/v1/namespaces/mesh-lite-system/secrets/mesh-lite-root";
        server.trouble("GET", path, Trouble::Status(status));
        let refused = init(&server).await.unwrap_err().to_string();
        assert!(
            refused.contains("Secret mesh-lite-system/mesh-lite-root"),
            "{refused}"
        );
        server.heal();
    }
    assert_eq!(writes(&server), 0);
    init(&server).await.unwrap();
    for name in ["mesh-lite-root", "mesh-lite-issuing-ca"] {
        let whole = server.get("Secret", NAMESPACE, name).unwrap();
        let mut broken = whole.clone();
        broken["data"] = json!({});
        server.put(broken);
        server.forget_calls();
        let refused = init(&server).await.unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
        assert_eq!(writes(&server), 0);
        let mut back = whole;
        back["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        server.put(back);
    }
}

#[tokio::test]
async fn a_rights_problem_says_who_lacks_what_and_shows_no_key() {
    let server = ApiServer::start();
    server.trouble(
        "POST",
        "/api/v1/namespaces/mesh-lite-system/secrets",
        Trouble::Status(403),
    );
    let refused = init(&server).await.unwrap_err().to_string();
    assert!(
        refused.contains("can't create Secret mesh-lite-system/mesh-lite-root"),
        "{refused}"
    );
    assert!(refused.contains("mesh-lite install"), "{refused}");
    assert!(!refused.contains("LS0t"), "{refused}");
}
