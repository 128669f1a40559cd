//! Callers without an identity, and what keeps their way open.

use super::*;

#[test]
fn callers_that_can_have_no_identity_are_named() {
    let service =
        |spec: Value| json!([{"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}]);
    finds(
        &namespace_with(Kind::Services, service(json!({"type": "NodePort"}))),
        Severity::Warning,
        "NodePort",
    );
    finds(
        &namespace_with(Kind::Services, service(json!({"type": "LoadBalancer"}))),
        Severity::Warning,
        "LoadBalancer",
    );
    assert!(namespace_with(Kind::Services, service(json!({"type": "ClusterIP"}))).is_empty());
    let webhook = |namespace: &str| json!([{"metadata": {"name": "v"}, "webhooks": [{"clientConfig": {"service": {"name": "w", "namespace": namespace}}}]}]);
    finds(
        &namespace_with(Kind::ValidatingWebhooks, webhook("shop")),
        Severity::Warning,
        "the API server calls it",
    );
    assert!(namespace_with(Kind::ValidatingWebhooks, webhook("other")).is_empty());
    let api = json!([{"metadata": {"name": "v1.x"}, "spec": {"service": {"name": "w", "namespace": "shop"}}}]);
    finds(
        &namespace_with(Kind::ApiServices, api),
        Severity::Warning,
        "APIService v1.x",
    );
    let host_port = json!([pod(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]})
    )]);
    finds(
        &namespace_with(Kind::Pods, host_port),
        Severity::Warning,
        "hostPort 80",
    );
}

/// The document in a hint, as it is.
fn document(findings: &[Finding]) -> Value {
    let next = &findings[0].next;
    let text = next.split_once("of this document: ");
    serde_json::from_str(text.unwrap_or_else(|| panic!("{next}")).1).unwrap()
}

fn with_pods(service: Value, kind: Kind, found: Value) -> Vec<Finding> {
    let mut objects = Objects::default();
    let pod = json!({"metadata": {"name": "p", "namespace": "shop", "labels": {"app": "web", "x": "y"}},
        "spec": {"containers": [{"name": "a", "image": "a", "ports": [{"name": "http", "containerPort": 8080}]}]}});
    objects.put(
        Kind::Namespaces,
        Ok(vec![json!({"metadata": {"name": "shop"}})]),
    );
    objects.put(Kind::Pods, Ok(vec![pod]));
    objects.put(Kind::Services, Ok(vec![service]));
    if kind != Kind::Services {
        objects.put(kind, Ok(found.as_array().unwrap().clone()));
    }
    of_namespace(&objects, &settings(), "shop")
}

#[test]
fn the_hint_is_a_whole_document_for_that_workload_and_port() {
    let service = |kind: &str| {
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"type": kind,
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}, {"port": 443, "targetPort": 8443}]}})
    };
    let made = document(&with_pods(service("NodePort"), Kind::Services, json!([])));
    let wanted = json!({
        "apiVersion": "mesh-lite.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "web-open", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}, "8443": {"mode": "PERMISSIVE"}}},
    });
    assert_eq!(made, wanted);
    let webhook = json!([{"metadata": {"name": "v"}, "webhooks": [{"clientConfig": {"service": {"name": "web", "namespace": "shop"}}}]}]);
    let made = document(&with_pods(
        service("ClusterIP"),
        Kind::ValidatingWebhooks,
        webhook,
    ));
    assert_eq!(
        made["spec"]["portLevelMtls"],
        json!({"8443": {"mode": "PERMISSIVE"}})
    );
    let pod = json!([{"metadata": {"name": "p", "namespace": "shop", "labels": {"app": "web", "pod-template-hash": "1"}},
        "spec": {"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 8080, "hostPort": 80}]}]}}]);
    let made = document(&namespace_with(Kind::Pods, pod));
    assert_eq!(
        made["spec"]["selector"]["matchLabels"],
        json!({"app": "web"})
    );
    assert_eq!(
        made["spec"]["portLevelMtls"],
        json!({"8080": {"mode": "PERMISSIVE"}})
    );
}

#[test]
fn a_hint_is_never_wider_than_what_is_called() {
    let no_selector = json!([{"metadata": {"name": "web", "namespace": "shop"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}]);
    let findings = namespace_with(Kind::Services, no_selector);
    assert!(
        !findings[0].next.contains("apiVersion"),
        "{}",
        said(&findings)
    );
    let unknown_name = json!([{"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "NodePort", "selector": {"app": "gone"}, "ports": [{"port": 80, "targetPort": "http"}]}}]);
    let findings = namespace_with(Kind::Services, unknown_name);
    assert!(
        !findings[0].next.contains("apiVersion"),
        "{}",
        said(&findings)
    );
}

#[test]
fn a_pod_of_the_nodes_network_gets_no_hint_about_modes() {
    let host = json!([pod(
        json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]})
    )]);
    let findings = namespace_with(Kind::Pods, host);
    assert!(
        !said(&findings).contains("PERMISSIVE"),
        "{}",
        said(&findings)
    );
    finds(&findings, Severity::Warning, "stays out of the mesh");
}
