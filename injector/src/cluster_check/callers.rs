//! Callers that have no sidecar and never will: the API server, nodes, what is outside.

use serde_json::Value;

use super::{
    Finding, list, name,
    objects::{Kind, Objects},
    subject, text,
};

/// What helps wherever a caller can't have an identity.
const KEEP_OPEN: &str = "before STRICT: a PeerAuthentication with portLevelMtls PERMISSIVE for that port, or the pod label mesh-lite.io/inject: disabled";

pub(super) fn findings(objects: &Objects, namespace: &str) -> Vec<Finding> {
    let mut findings = called_by_the_api_server(objects, namespace);
    for service in objects.of(Kind::Services) {
        let what = match text(service, "/spec/type") {
            "NodePort" => "NodePort: its callers have no identity, and often the node's address",
            "LoadBalancer" => "LoadBalancer: its callers have no identity",
            _ if !list(service, "/spec/externalIPs").is_empty() => {
                "external addresses: its callers have no identity"
            }
            _ => continue,
        };
        findings.push(Finding::warning(
            subject("Service", service),
            what,
            KEEP_OPEN,
        ));
    }
    for pod in objects.of(Kind::Pods) {
        if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
            findings.push(Finding::warning(
                subject("Pod", pod),
                "hostNetwork: it gets no sidecar; where it calls, it has no identity",
                KEEP_OPEN,
            ));
        } else if let Some(port) = host_port(pod) {
            findings.push(Finding::warning(
                subject("Pod", pod),
                format!("hostPort {port}: whoever calls the node has no identity"),
                KEEP_OPEN,
            ));
        }
    }
    findings
}

fn host_port(pod: &Value) -> Option<u64> {
    let containers = list(pod, "/spec/containers").iter();
    let mut ports = containers.flat_map(|container| list(container, "/ports"));
    ports.find_map(|port| {
        port.get("hostPort")
            .and_then(Value::as_u64)
            .filter(|port| *port != 0)
    })
}

/// Webhooks and aggregated APIs: the API server speaks TLS to them, and has no certificate of ours.
fn called_by_the_api_server(objects: &Objects, namespace: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let kinds = [
        (Kind::MutatingWebhooks, "MutatingWebhookConfiguration"),
        (Kind::ValidatingWebhooks, "ValidatingWebhookConfiguration"),
    ];
    for (kind, word) in kinds {
        for configuration in objects.of(kind) {
            for webhook in list(configuration, "/webhooks") {
                let service = webhook.pointer("/clientConfig/service");
                findings.extend(called(service, namespace, word, configuration));
            }
        }
    }
    for api in objects.of(Kind::ApiServices) {
        findings.extend(called(
            api.pointer("/spec/service"),
            namespace,
            "APIService",
            api,
        ));
    }
    findings.dedup();
    findings
}

fn called(service: Option<&Value>, namespace: &str, word: &str, by: &Value) -> Option<Finding> {
    let service = service.filter(|service| text(service, "/namespace") == namespace)?;
    Some(Finding::warning(
        format!("Service {namespace}/{}", text(service, "/name")),
        format!(
            "the API server calls it ({word} {}), and has no identity",
            name(by)
        ),
        KEEP_OPEN,
    ))
}
