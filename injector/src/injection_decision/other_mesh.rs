//! Signs that another mesh has the pod: both would capture the same connections, some on the same
//! ports.

use serde_json::Value;

use super::Refusal;
use crate::{
    namespace_facts::{AMBIENT_LABEL, NamespaceFacts},
    pod_shape::{all_containers, annotation, label},
};

struct Mesh {
    name: &'static str,
    /// Written by its injector on pods that it has changed, with the value that says so, or any.
    annotations: &'static [(&'static str, Option<&'static str>)],
    containers: &'static [&'static str],
}

const MESHES: [Mesh; 5] = [
    Mesh {
        name: "Istio",
        annotations: &[
            ("sidecar.istio.io/status", None),
            ("ambient.istio.io/redirection", Some("enabled")),
        ],
        containers: &["istio-proxy", "istio-init", "istio-validation"],
    },
    Mesh {
        name: "Linkerd",
        annotations: &[("linkerd.io/proxy-version", None)],
        containers: &["linkerd-proxy", "linkerd-init", "linkerd-network-validator"],
    },
    Mesh {
        name: "Kuma",
        annotations: &[("kuma.io/sidecar-injected", Some("true"))],
        containers: &["kuma-sidecar", "kuma-init", "kuma-validation"],
    },
    Mesh {
        name: "Consul",
        annotations: &[(
            "consul.hashicorp.com/connect-inject-status",
            Some("injected"),
        )],
        containers: &["consul-dataplane", "consul-connect-inject-init"],
    },
    Mesh {
        name: "Open Service Mesh",
        annotations: &[],
        containers: &["osm-init", "osm-healthcheck"],
    },
];

/// One refusal for each other mesh that has the pod.
pub(super) fn refusals(pod: &Value, namespace: &NamespaceFacts) -> Vec<Refusal> {
    let mut found = Vec::new();
    for mesh in &MESHES {
        let sign = mesh
            .annotations
            .iter()
            .find(|(key, value)| {
                annotation(pod, key).is_some_and(|is| value.is_none_or(|value| value == is))
            })
            .map(|(key, _)| format!("annotation {key}"))
            .or_else(|| {
                all_containers(pod)
                    .find(|(name, _)| mesh.containers.contains(name))
                    .map(|(name, _)| format!("container {name}"))
            });
        if let Some(sign) = sign {
            found.push(Refusal::OtherMesh {
                mesh: mesh.name,
                sign,
            });
        }
    }
    let ambient = match label(pod, AMBIENT_LABEL) {
        Some(mode) => (mode == "ambient").then_some("of the pod"),
        None => namespace.is_ambient().then_some("of the namespace"),
    };
    if let Some(place) = ambient {
        found.push(Refusal::OtherMesh {
            mesh: "Istio's ambient mode",
            sign: format!("label {AMBIENT_LABEL} {place}"),
        });
    }
    found
}
