//! Deployments of the control plane and the injector, their services and budgets.

use mesh_lite_proto::{
    kubernetes::{
        CONTROL_PLANE_SERVICE, INJECTOR_SERVICE, INJECTOR_SERVICE_ACCOUNT, ISSUING_CA_SECRET,
        TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY,
    },
    sidecar::{
        CONTROL_PLANE_METRICS_PORT, CONTROL_PLANE_PORT, CONTROL_PLANE_SERVICE_ACCOUNT, SIDECAR_UID,
        WEBHOOK_PORT,
    },
};
use serde_json::{Value, json};

use super::{
    AUTHORITY_DIR, VERSION,
    choice::{Condition, Text, when},
    parts::{Part, labels},
    permissions::metadata,
    registration::WEBHOOK_SERVICE_PORT,
};

const AUTHORITY_VOLUME: &str = "authority";
/// A node that dies must not take webhook or issuance with it.
const INJECTOR_REPLICAS: u32 = 2;
const CONTROL_PLANE_REPLICAS_HA: u32 = 2;

pub(super) fn parts() -> Vec<Part> {
    let (control_plane, injector) = ("control-plane", "injector");
    vec![
        Part::always(control_plane, control_plane_service()),
        Part {
            file: control_plane,
            conditions: &[Condition::Single],
            object: control_plane_deployment(1),
        },
        Part {
            file: control_plane,
            conditions: &[Condition::HighlyAvailable],
            object: control_plane_deployment(CONTROL_PLANE_REPLICAS_HA),
        },
        Part {
            file: control_plane,
            conditions: &[Condition::HighlyAvailable],
            object: budget(CONTROL_PLANE_SERVICE, control_plane),
        },
        Part::always(injector, injector_service()),
        Part::always(injector, injector_deployment()),
        Part::always(injector, budget(INJECTOR_SERVICE, injector)),
    ]
}

fn control_plane_deployment(replicas: u32) -> Value {
    let component = "control-plane";
    let container = json!({
        "name": component,
        "image": Text::Image.placeholder(),
        "imagePullPolicy": Text::ImagePullPolicy.placeholder(),
        "args": control_plane_arguments(),
        "ports": [
            {"name": "grpc", "containerPort": CONTROL_PLANE_PORT},
            {"name": "metrics", "containerPort": CONTROL_PLANE_METRICS_PORT},
        ],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "2", "memory": "512Mi"},
        },
        "volumeMounts": [
            {"name": AUTHORITY_VOLUME, "mountPath": AUTHORITY_DIR, "readOnly": true},
        ],
    });
    let account = CONTROL_PLANE_SERVICE_ACCOUNT;
    deployment(
        CONTROL_PLANE_SERVICE,
        component,
        account,
        replicas,
        container,
        json!([authority()]),
    )
}

fn control_plane_arguments() -> Value {
    json!([
        "control-plane",
        "--kubernetes",
        format!("--data-dir={AUTHORITY_DIR}"),
        format!("--listen=[::]:{CONTROL_PLANE_PORT}"),
        format!("--admin-listen=[::]:{CONTROL_PLANE_METRICS_PORT}"),
        format!("--mesh-namespace={}", Text::MeshNamespace),
        format!("--trust-domain={}", Text::TrustDomain),
        when(Condition::Strict, json!("--shipped=strict")),
        when(Condition::Permissive, json!("--shipped=permissive")),
        when(Condition::Strict, json!("--outbound-unmeshed=refuse")),
        when(Condition::Permissive, json!("--outbound-unmeshed=allow")),
        when(
            Condition::MeshCidrs,
            json!(format!("--mesh-cidrs={}", Text::MeshCidrs))
        ),
        when(
            Condition::ExternalCidrs,
            json!(format!("--external-cidrs={}", Text::ExternalCidrs)),
        ),
    ])
}

/// The kubelet brings issuing CA and trust bundle in, both in one exchange, so the control plane
/// needs no right to read a Secret. A pod waits until the root's Job has made them.
fn authority() -> Value {
    let bundle = |optional| {
        json!({"configMap": {
            "name": TRUST_BUNDLE_CONFIG_MAP,
            "optional": optional,
            "items": [{"key": TRUST_BUNDLE_KEY, "path": "trust-bundle.pem"}],
        }})
    };
    let own = json!({"secret": {
        "name": ISSUING_CA_SECRET,
        "items": [
            {"key": "issuing-ca.pem", "path": "issuing/issuing-ca.pem"},
            {"key": "root-mode", "path": "issuing/root-mode"},
        ],
    }});
    let plugin = json!({"secret": {
        "name": Text::IssuingCaSecret.placeholder(),
        "items": [
            {"key": "tls.crt", "path": "issuing/tls.crt"},
            {"key": "tls.key", "path": "issuing/tls.key"},
            {"key": "ca.crt", "path": "issuing/ca.crt"},
        ],
    }});
    json!({
        "name": AUTHORITY_VOLUME,
        "projected": {
            // the group is the pod's fsGroup; nobody else reads the key
            "defaultMode": 0o440,
            "sources": [
                when(Condition::OwnRoot, bundle(false)),
                when(Condition::OwnRoot, own),
                // its `ca.crt` is the bundle; more roots may be named
                when(Condition::PluginCa, bundle(true)),
                when(Condition::PluginCa, plugin),
            ],
        },
    })
}

fn injector_deployment() -> Value {
    let component = "injector";
    let container = json!({
        "name": component,
        "image": Text::Image.placeholder(),
        "imagePullPolicy": Text::ImagePullPolicy.placeholder(),
        "args": [
            "injector",
            format!("--listen=[::]:{WEBHOOK_PORT}"),
            format!("--admin-listen=[::]:{CONTROL_PLANE_METRICS_PORT}"),
            format!("--mesh-namespace={}", Text::MeshNamespace),
            format!("--trust-domain={}", Text::TrustDomain),
            format!("--image={}", Text::Image),
            format!("--image-pull-policy={}", Text::ImagePullPolicy),
        ],
        "ports": [
            {"name": "webhook", "containerPort": WEBHOOK_PORT},
            {"name": "metrics", "containerPort": CONTROL_PLANE_METRICS_PORT},
        ],
        "livenessProbe": probe("/livez"),
        "readinessProbe": probe("/readyz"),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {"cpu": "20m", "memory": "32Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        },
    });
    let account = INJECTOR_SERVICE_ACCOUNT;
    deployment(
        INJECTOR_SERVICE,
        component,
        account,
        INJECTOR_REPLICAS,
        container,
        json!([]),
    )
}

fn deployment(
    name: &str,
    component: &str,
    account: &str,
    replicas: u32,
    container: Value,
    volumes: Value,
) -> Value {
    let mut metadata = metadata(name, component);
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.insert("app.kubernetes.io/version".to_owned(), json!(VERSION));
    }
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels(component)},
            // one more comes before one goes, also where there is only one
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": labels(component)},
                "spec": {
                    "serviceAccountName": account,
                    "securityContext": pod_security(),
                    "priorityClassName": when(
                        Condition::PriorityClass,
                        json!(Text::PriorityClass.placeholder()),
                    ),
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "topologySpreadConstraints": [{
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": labels(component)},
                    }],
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    })
}

fn probe(path: &str) -> Value {
    json!({
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": 5,
        "timeoutSeconds": 3,
        "failureThreshold": 3,
    })
}

fn control_plane_service() -> Value {
    service(
        CONTROL_PLANE_SERVICE,
        "control-plane",
        json!([
            {"name": "grpc", "port": CONTROL_PLANE_PORT, "targetPort": "grpc"},
            {"name": "metrics", "port": CONTROL_PLANE_METRICS_PORT, "targetPort": "metrics"},
        ]),
    )
}

fn injector_service() -> Value {
    service(
        INJECTOR_SERVICE,
        "injector",
        json!([
            {"name": "webhook", "port": WEBHOOK_SERVICE_PORT, "targetPort": "webhook"},
            {"name": "metrics", "port": CONTROL_PLANE_METRICS_PORT, "targetPort": "metrics"},
        ]),
    )
}

fn service(name: &str, component: &str, ports: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(name, component),
        "spec": {"selector": labels(component), "ports": ports},
    })
}

/// For what has more than one replica: with one, a budget would only hold up a drain.
fn budget(name: &str, component: &str) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(name, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels(component)},
        },
    })
}

/// As Pod Security "restricted" wants it.
pub(super) fn pod_security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": SIDECAR_UID,
        "runAsGroup": SIDECAR_UID,
        "fsGroup": SIDECAR_UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "privileged": false,
    })
}
