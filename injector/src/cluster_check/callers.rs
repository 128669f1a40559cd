//! Callers that have no sidecar and never will: the API server, nodes, what is outside.

use mesh_lite_proto::kubernetes::{API_GROUP, API_VERSION, INJECT_DISABLED, INJECT_LABEL};
use serde_json::{Map, Value, json};

use super::{
    Finding, list, name, number,
    objects::{Kind, Objects},
    pods::texts,
    subject, text,
};

/// Of a webhook or an aggregated API that names no port.
const HTTPS: u64 = 443;
/// Labels by which controllers tell their own pods apart.
const OF_CONTROLLERS: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
];

/// What helps wherever a caller can't have an identity: a whole document to apply before STRICT.
fn keep_open(namespace: &str, name: &str, labels: &[(&str, &str)], ports: &[u64]) -> String {
    let out = format!("the pod label {INJECT_LABEL}: {INJECT_DISABLED}");
    if labels.is_empty() || ports.is_empty() {
        // for everybody, or for every port, would be wider than what is called
        return format!(
            "before STRICT: a PeerAuthentication with a selector and portLevelMtls PERMISSIVE for the port, or {out}"
        );
    }
    let labels: Map<String, Value> = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
        .collect();
    let modes: Map<String, Value> = ports
        .iter()
        .map(|port| (port.to_string(), json!({"mode": "PERMISSIVE"})))
        .collect();
    let document = json!({
        "apiVersion": format!("{API_GROUP}/{API_VERSION}"),
        "kind": "PeerAuthentication",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "portLevelMtls": modes},
    });
    format!("before STRICT: {out}, or kubectl apply -f - of this document: {document}")
}

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
            for_service(objects, namespace, service, None),
        ));
    }
    for pod in objects.of(Kind::Pods) {
        // one of the node's network has no sidecar whose mode could be changed
        if pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)) {
            continue;
        }
        if let Some((host_port, port)) = host_port(pod) {
            // what a controller adds differs from pod to pod
            let mut labels = texts(pod, "/metadata/labels");
            labels.retain(|(key, _)| !OF_CONTROLLERS.contains(key));
            findings.push(Finding::warning(
                subject("Pod", pod),
                format!("hostPort {host_port}: whoever calls the node has no identity"),
                keep_open(namespace, &format!("{}-open", name(pod)), &labels, &[port]),
            ));
        }
    }
    findings
}

/// For the pods behind it, on one port of the service or on all of them.
fn for_service(objects: &Objects, namespace: &str, service: &Value, only: Option<u64>) -> String {
    let labels = texts(service, "/spec/selector");
    let ports = list(service, "/spec/ports").iter();
    let asked = ports.filter(|port| only.is_none_or(|only| number(port, "/port") == only));
    let mut targets: Vec<u64> = asked
        .flat_map(|port| match port.get("targetPort") {
            Some(Value::String(named)) => named_ports(objects, &labels, named),
            Some(target) if target.as_u64().is_some_and(|port| port != 0) => {
                vec![target.as_u64().unwrap_or_default()]
            }
            _ => vec![number(port, "/port")],
        })
        .filter(|port| *port != 0)
        .collect();
    targets.sort_unstable();
    targets.dedup();
    keep_open(
        namespace,
        &format!("{}-open", name(service)),
        &labels,
        &targets,
    )
}

/// The numbers that the selected pods give to a name.
fn named_ports(objects: &Objects, selector: &[(&str, &str)], named: &str) -> Vec<u64> {
    let pods = objects.of(Kind::Pods).iter();
    let selected = pods.filter(|pod| {
        let labels = texts(pod, "/metadata/labels");
        selector.iter().all(|wanted| labels.contains(wanted))
    });
    let containers = selected.flat_map(|pod| list(pod, "/spec/containers"));
    let ports = containers.flat_map(|container| list(container, "/ports"));
    ports
        .filter(|port| text(port, "/name") == named)
        .map(|port| number(port, "/containerPort"))
        .collect()
}

/// The node's port, and the application's.
fn host_port(pod: &Value) -> Option<(u64, u64)> {
    let containers = list(pod, "/spec/containers").iter();
    let mut ports = containers.flat_map(|container| list(container, "/ports"));
    ports.find_map(|port| match number(port, "/hostPort") {
        0 => None,
        of_node => Some((of_node, number(port, "/containerPort"))),
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
                findings.extend(called(objects, service, namespace, word, configuration));
            }
        }
    }
    for api in objects.of(Kind::ApiServices) {
        findings.extend(called(
            objects,
            api.pointer("/spec/service"),
            namespace,
            "APIService",
            api,
        ));
    }
    findings.dedup();
    findings
}

fn called(
    objects: &Objects,
    reference: Option<&Value>,
    namespace: &str,
    word: &str,
    by: &Value,
) -> Option<Finding> {
    let reference = reference.filter(|reference| text(reference, "/namespace") == namespace)?;
    let called = text(reference, "/name");
    let mut services = objects.of(Kind::Services).iter();
    let service = services.find(|service| name(service) == called);
    let port = match number(reference, "/port") {
        0 => HTTPS,
        port => port,
    };
    let next = match service {
        Some(service) => for_service(objects, namespace, service, Some(port)),
        None => keep_open(namespace, called, &[], &[]),
    };
    Some(Finding::warning(
        format!("Service {namespace}/{called}"),
        format!(
            "the API server calls it ({word} {}), and has no identity",
            name(by)
        ),
        next,
    ))
}
