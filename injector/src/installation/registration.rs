//! When the API server asks the injector.

use mesh_lite_proto::kubernetes::{
    INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL, INJECTOR_SERVICE, NAMESPACE_WEBHOOK, POD_WEBHOOK,
};
use serde_json::{Value, json};

use super::{choice::Text, parts::labels};

/// Where the webhook answers.
pub const WEBHOOK_PATH: &str = "/inject";
/// Of the Service; the API server's default.
pub(super) const WEBHOOK_SERVICE_PORT: u16 = 443;
/// Seconds. A pod waits as long if nobody answers; answers take milliseconds.
const TIMEOUT_SECONDS: u32 = 3;
/// Never injected, whatever labels say: what the cluster itself needs to run.
const SYSTEM_NAMESPACE: &str = "kube-system";
/// On every namespace, written by the API server.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Without `caBundle`: the injector's replicas put it in and keep it current.
pub(super) fn registration() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": INJECTOR_SERVICE, "labels": labels("injector")},
        "webhooks": webhook_entries(Text::MeshNamespace.placeholder()),
    })
}

/// Namespaces switch it on by their label, pods off; where the namespace says nothing, pods
/// switch it on. Namespaces without a label are never affected, also not by an injector that is
/// away.
pub fn webhook_entries(mesh_namespace: &str) -> Value {
    let never_here = json!({
        "key": NAMESPACE_NAME_LABEL,
        "operator": "NotIn",
        "values": [SYSTEM_NAMESPACE, mesh_namespace],
    });
    let namespace_is_labelled = json!({"matchExpressions": [
        {"key": INJECT_LABEL, "operator": "In", "values": [INJECT_ENABLED]},
        never_here,
    ]});
    let pod_does_not_opt_out = json!({"matchExpressions": [
        {"key": INJECT_LABEL, "operator": "NotIn", "values": [INJECT_DISABLED]},
    ]});
    let namespace_says_nothing = json!({"matchExpressions": [
        {"key": INJECT_LABEL, "operator": "DoesNotExist"},
        never_here,
    ]});
    let pod_opts_in = json!({"matchExpressions": [
        {"key": INJECT_LABEL, "operator": "In", "values": [INJECT_ENABLED]},
    ]});
    json!([
        entry(
            NAMESPACE_WEBHOOK,
            mesh_namespace,
            namespace_is_labelled,
            pod_does_not_opt_out
        ),
        entry(
            POD_WEBHOOK,
            mesh_namespace,
            namespace_says_nothing,
            pod_opts_in
        ),
    ])
}

fn entry(name: &str, mesh_namespace: &str, namespaces: Value, pods: Value) -> Value {
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {
            "name": INJECTOR_SERVICE,
            "namespace": mesh_namespace,
            "path": WEBHOOK_PATH,
            "port": WEBHOOK_SERVICE_PORT,
        }},
        // a pod that should have a sidecar and can't get one is not made
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "namespaceSelector": namespaces,
        "objectSelector": pods,
        // again, if another webhook adds a container after us
        "reinvocationPolicy": "IfNeeded",
        // a debug container could take the sidecar's user, which nothing captures
        "rules": [rule("CREATE", "pods"), rule("UPDATE", "pods/ephemeralcontainers")],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS,
    })
}

fn rule(operation: &str, resource: &str) -> Value {
    json!({
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": [operation],
        "resources": [resource],
        "scope": "Namespaced",
    })
}
