use std::time::SystemTime;

use mesh_lite_proto::{document::Dialect, kubernetes::PROXY_CONTAINER};
use mesh_lite_test_support::ApiServer;
use serde_json::{Value, json};
use spiffe::TrustDomain;

use super::*;
use crate::{
    outbound_rules::OutboundRules,
    policy_index::ShippedDefaults,
    policy_review::{Documents, ReviewSettings, strict_readiness},
};

const CAPTURED_PODS: &str = include_str!("../captured/watch-pods.jsonl");
const CAPTURED_SERVICES: &str = include_str!("../captured/watch-services.jsonl");

fn everywhere() -> Scope {
    Scope {
        namespace: None,
        mesh_namespace: "mesh-lite-system".to_owned(),
    }
}

fn only(namespace: &str) -> Scope {
    Scope {
        namespace: Some(namespace.to_owned()),
        ..everywhere()
    }
}

async fn read(server: &ApiServer, scope: &Scope) -> ClusterDocuments {
    let kubeconfig = server.kubeconfig();
    read_cluster(Some(&kubeconfig), scope).await.unwrap()
}

fn pod(name: &str, address: &str, more: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "uid": name,
            "labels": {"app": "web", "on": "true", "empty": ""},
            "annotations": {"noise": "x"},
        },
        "spec": {
            "serviceAccountName": "web", "nodeName": "node-1",
            "initContainers": [{"name": PROXY_CONTAINER}],
            "containers": [{"name": "web", "ports": [
                {"name": "http", "containerPort": 8080},
                {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            ]}],
        },
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    });
    for (pointer, value) in more.as_object().unwrap() {
        let (above, key) = pointer.rsplit_once('/').unwrap();
        pod.pointer_mut(above).unwrap()[key] = value.clone();
    }
    pod
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"],
            "selector": {"app": "web"}, "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}]},
    })
}

fn policy(namespace: &str, more: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "mesh-lite.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": namespace, "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": "{\"spec\": {}}"}},
        "spec": {"mtls": {"mode": "PERMISSIVE"}},
        "status": {"conditions": [{"type": "Loaded", "status": "True"}]},
    });
    let fields = policy.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    policy
}

/// As a tool reads what was written to a directory.
fn reviewed(written: &ClusterDocuments) -> Documents {
    let directory = tempfile::tempdir().unwrap();
    for file in written.files() {
        std::fs::write(directory.path().join(file.name), file.text).unwrap();
    }
    let settings = ReviewSettings {
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        mesh_namespace: "mesh-lite-system".to_owned(),
        dialect: Dialect::default(),
        shipped: ShippedDefaults::PERMISSIVE,
        outbound: OutboundRules::default(),
    };
    Documents::read_directory(directory.path(), &settings).unwrap()
}

fn problems(documents: &Documents) -> Vec<String> {
    documents.errors().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn captured_pods_and_services_load_without_a_problem() {
    let server = ApiServer::start();
    for (captured, until) in [(CAPTURED_PODS, 16), (CAPTURED_SERVICES, 2)] {
        for line in captured.lines().take(until) {
            let event: Value = serde_json::from_str(line).unwrap();
            if matches!(event["type"].as_str(), Some("ADDED" | "MODIFIED")) {
                server.put(event["object"].clone());
            }
        }
    }
    let written = read(&server, &everywhere()).await;
    let documents = reviewed(&written);
    assert_eq!(problems(&documents), [""; 0]);
    let workloads: Vec<_> = documents.workloads().iter().collect();
    assert!(!workloads.is_empty(), "{written:?}");
    let alone = written.one_file().unwrap();
    assert!(!alone.contains("managedFields"), "{alone}");
}

#[tokio::test]
async fn pods_services_and_policy_are_documents_that_the_tools_take() {
    let server = ApiServer::start();
    server.put(pod("web-1", "10.244.0.7", json!({})));
    server.put(pod(
        "old-1",
        "10.244.0.8",
        json!({"/spec/initContainers": []}),
    ));
    server.put(service());
    server.put(policy("shop", json!({})));
    let written = read(&server, &everywhere()).await;
    assert_eq!(written.left_out, []);
    let text = written.one_file().unwrap();
    for dropped in ["status", "last-applied", "noise", "uid", "resourceVersion"] {
        assert!(!text.contains(dropped), "{dropped}: {text}");
    }
    let documents = reviewed(&written);
    assert_eq!(problems(&documents), [""; 0]);
    let mut workloads = documents.workloads().iter();
    let (old, web) = (workloads.next().unwrap(), workloads.next().unwrap());
    assert_eq!((old.meshed, web.meshed), (false, true));
    assert_eq!(web.id.to_string(), "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(web.ports, [("http".to_owned(), 8080)].into());
    assert_eq!((&*web.labels["on"], &*web.labels["empty"]), ("true", ""));
    // and without recordings STRICT is not blessed
    let week = Duration::from_secs(7 * 24 * 3600);
    let found = strict_readiness(&documents, &[], None, week, SystemTime::UNIX_EPOCH + week);
    assert!(!found.is_ready());
    let gaps: Vec<String> = found.gaps.iter().map(ToString::to_string).collect();
    assert!(gaps.len() == 1 && gaps[0].contains("web-1"), "{gaps:?}");
}

#[tokio::test]
async fn what_has_no_identity_is_left_out_and_what_is_missed_is_said() {
    let server = ApiServer::start();
    let long = format!("web-{}", "x".repeat(70));
    server.put(pod(
        "ended",
        "10.244.0.1",
        json!({"/status/phase": "Failed"}),
    ));
    server.put(pod("host", "10.0.0.1", json!({"/spec/hostNetwork": true})));
    let none = json!({"/status/podIP": "", "/status/podIPs": []});
    server.put(pod("waits", "", none));
    server.put(pod(&long, "10.244.0.2", json!({})));
    let written = read(&server, &everywhere()).await;
    assert_eq!((written.count(), written.files()), (0, Vec::new()));
    let said = written.left_out.iter();
    let said: Vec<_> = said
        .map(|one| (one.object.as_str(), one.is_missed))
        .collect();
    let long = format!("Pod shop/{long}");
    assert_eq!(said, [("Pod shop/host", false), (long.as_str(), true)]);
}

#[tokio::test]
async fn a_policy_that_is_refused_in_the_cluster_is_refused_here() {
    let server = ApiServer::start();
    server.put(policy("shop", json!({"exempt": true})));
    let documents = reviewed(&read(&server, &everywhere()).await);
    let problems = problems(&documents);
    assert!(
        problems.iter().any(|one| one.contains("exempt")),
        "{problems:?}"
    );
}

#[tokio::test]
async fn one_namespace_comes_with_the_policy_that_holds_for_all() {
    let server = ApiServer::start();
    server.put(pod("web-1", "10.244.0.7", json!({})));
    let mut elsewhere = pod("api-1", "10.244.0.9", json!({}));
    elsewhere["metadata"]["namespace"] = json!("billing");
    server.put(elsewhere);
    for namespace in ["shop", "billing", "mesh-lite-system"] {
        server.put(policy(namespace, json!({})));
    }
    let written = read(&server, &only("shop")).await;
    let names: Vec<String> = written.files().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["mesh-lite-system.yaml", "shop.yaml"]);
    let lists = server.calls();
    let of_pods = lists.iter().filter(|call| call.path.contains("pods"));
    for call in of_pods {
        assert!(call.path.contains("/namespaces/shop/"), "{call:?}");
    }
    assert_eq!(read(&server, &only("mesh-lite-system")).await.count(), 1);
}

#[tokio::test]
async fn a_kind_that_can_not_be_listed_leaves_nothing() {
    for plural in ["pods", "services", "evictions"] {
        let server = ApiServer::start();
        server.unserve(plural);
        let kubeconfig = server.kubeconfig();
        let error = read_cluster(Some(&kubeconfig), &everywhere()).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{plural} can't be listed")),
            "{error}"
        );
    }
}

#[test]
fn what_one_file_can_not_hold_becomes_several() {
    let mut documents = ClusterDocuments::default();
    let many = vec!["a: b\n".to_owned(); MAX_DOCUMENTS + 1];
    let large = vec![format!("a: {}\n", "b".repeat(MAX_FILE / 2)); 2];
    documents.documents.insert("many".to_owned(), many);
    documents.documents.insert("large".to_owned(), large);
    assert_eq!(documents.one_file(), None);
    let files = documents.files();
    let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let expected = ["large.yaml", "large.1.yaml", "many.yaml", "many.1.yaml"];
    assert_eq!(names, expected);
    assert!(files.iter().all(|file| file.text.len() <= MAX_FILE));
}
