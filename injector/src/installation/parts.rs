//! All objects, in the order in which a cluster can take them.

use mesh_lite_proto::kubernetes::{INJECT_DISABLED, INJECT_LABEL};
use serde_json::{Value, json};

use super::{
    choice::{Condition, Text},
    custom_resources, permissions, registration, root_jobs, workloads,
};

/// An object, and when it is there at all.
pub(super) struct Part {
    /// File of the chart, without its ending.
    pub(super) file: &'static str,
    pub(super) conditions: &'static [Condition],
    pub(super) object: Value,
}

impl Part {
    pub(super) fn always(file: &'static str, object: Value) -> Self {
        Self {
            file,
            conditions: &[],
            object,
        }
    }
}

pub(super) fn all() -> Vec<Part> {
    let mut parts = vec![Part::always("namespace", namespace())];
    let definitions = custom_resources::custom_resource_definitions();
    parts.extend(
        definitions
            .into_iter()
            .map(|object| Part::always("crds", object)),
    );
    parts.extend(permissions::parts());
    parts.extend(root_jobs::parts());
    parts.extend(workloads::parts());
    parts.push(Part::always("webhook", registration::registration()));
    parts
}

/// Restricted, and never injected: an injector that had to inject itself could not come back.
fn namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": Text::MeshNamespace.placeholder(),
            "labels": {
                "app.kubernetes.io/name": "mesh-lite",
                INJECT_LABEL: INJECT_DISABLED,
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/audit": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            },
        },
    })
}

/// Labels that every object of ours has, for `kubectl get -l` and for people.
pub(super) fn labels(component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "mesh-lite",
        "app.kubernetes.io/component": component,
    })
}
