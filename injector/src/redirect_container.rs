//! The init container that captures the pod's network: root with one capability, and gone before
//! anything of the application starts.

use mesh_lite_proto::kubernetes::{REDIRECT_CONTAINER, STATE_DIR};
use serde_json::{Value, json};

use crate::{
    annotations::{Capture, PodSettings},
    mesh_settings::MeshSettings,
    pod_volumes,
    sidecar_container::{CAPTURE_STATE, Environment, SecurityContext, resources},
};

/// `None` where nothing is captured.
pub(crate) fn redirect_container(
    settings: &MeshSettings,
    pod: &PodSettings,
    has_app_armor: bool,
) -> Option<Value> {
    let Capture::Transparent {
        skip_inbound_ports,
        skip_outbound_ports,
        skip_subnets,
    } = &pod.capture
    else {
        return None;
    };
    let mut environment = Environment::default();
    environment.set(
        "MESH_LITE_STATE_DIR",
        &format!("{STATE_DIR}/{CAPTURE_STATE}"),
    );
    environment.set_list("MESH_LITE_SKIP_INBOUND_PORTS", skip_inbound_ports);
    environment.set_list("MESH_LITE_SKIP_OUTBOUND_PORTS", skip_outbound_ports);
    environment.set_list("MESH_LITE_SKIP_SUBNETS", skip_subnets);
    let security = SecurityContext {
        user: 0,
        capability: Some("NET_ADMIN"),
        has_app_armor,
    };
    Some(json!({
        "name": REDIRECT_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy.as_str(),
        "args": ["redirect"],
        "env": environment.into_value(),
        // the same as the sidecar's: a pod with equal requests and limits keeps its class
        "resources": resources(&pod.resources),
        "securityContext": security.into_value(),
        "volumeMounts": pod_volumes::own_mounts(),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }))
}
