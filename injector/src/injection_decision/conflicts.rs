//! What in a pod would undo the sidecar: its user, its ports, its names.

use mesh_lite_proto::{
    kubernetes::{FILES_DIR, FILES_VOLUME, PROXY_CONTAINER, REDIRECT_CONTAINER},
    sidecar::{OWN_PORTS, SIDECAR_UID},
};
use serde_json::Value;

use super::{
    Refusal,
    refusal::{Place, Quoted, shown},
};
use crate::{
    annotations::{Key, PodSettings},
    pod_shape::{all_containers, array, containers},
    pod_volumes::OWN_VOLUMES,
};

/// Of a pod in which nothing is ours any more.
pub(super) fn refusals(pod: &Value) -> Vec<Refusal> {
    let mut found = Vec::new();
    if runs_as_sidecar(pod.get("spec")) {
        found.push(Refusal::SidecarUid { container: None });
    }
    for (name, container) in all_containers(pod) {
        found.extend(of_container(name, container));
    }
    for volume in array(pod.pointer("/spec/volumes")) {
        if let Some(name) = own_volume(volume) {
            found.push(Refusal::ReservedName {
                what: "volume",
                name: name.to_owned(),
            });
        }
    }
    found
}

/// Of the debug containers of a pod that runs: what the sidecar is in it stays out of it.
#[must_use]
pub(crate) fn debug_containers(pod: &Value) -> Vec<Refusal> {
    containers(pod, "ephemeralContainers")
        .flat_map(|(name, container)| of_container(name, container))
        .collect()
}

fn of_container(name: &str, container: &Value) -> Vec<Refusal> {
    let mut found = Vec::new();
    if [PROXY_CONTAINER, REDIRECT_CONTAINER].contains(&name) {
        found.push(Refusal::ReservedName {
            what: "container",
            name: name.to_owned(),
        });
    }
    if runs_as_sidecar(Some(container)) {
        found.push(Refusal::SidecarUid {
            container: Some(name.to_owned()),
        });
    }
    found.extend(sidecar_ports(container).map(|port| Refusal::SidecarPort {
        container: name.to_owned(),
        port,
    }));
    for mount in array(container.get("volumeMounts")) {
        if let Some(volume) = own_volume(mount) {
            found.push(Refusal::ReservedMount {
                container: name.to_owned(),
                volume: volume.to_owned(),
            });
        }
    }
    found
}

/// Containers that are to get files, and can't.
pub(super) fn files(pod: &Value, wanted: &PodSettings) -> Vec<Refusal> {
    let all: Vec<(&str, &Value)> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| containers(pod, list))
        .collect();
    let why = |name: &String| {
        let Some((_, container)) = all.iter().find(|(is, _)| is == name) else {
            let known: Vec<String> = all.iter().take(8).map(|(name, _)| shown(name)).collect();
            return Some(format!(
                "the pod has no container {}; it has {}",
                Quoted(name),
                known.join(", ")
            ));
        };
        array(container.get("volumeMounts"))
            .iter()
            .any(|mount| mount.get("mountPath").is_some_and(|path| path == FILES_DIR))
            .then(|| {
                format!(
                    "container {} has something else at {FILES_DIR}: mount that elsewhere",
                    Quoted(name)
                )
            })
    };
    wanted
        .files
        .iter()
        .filter_map(why)
        .map(|why| Refusal::Annotation {
            place: Place::Pod,
            key: Key::Files.as_str().to_owned(),
            value: wanted
                .files
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(","),
            why,
        })
        .collect()
}

fn runs_as_sidecar(parent: Option<&Value>) -> bool {
    parent
        .and_then(|parent| parent.pointer("/securityContext/runAsUser"))
        .and_then(Value::as_i64)
        == Some(i64::from(SIDECAR_UID))
}

/// TCP ports of ours that a container declares for itself or on its node.
fn sidecar_ports(container: &Value) -> impl Iterator<Item = i64> {
    array(container.get("ports"))
        .iter()
        .filter(|port| {
            port.get("protocol")
                .and_then(Value::as_str)
                .is_none_or(|protocol| protocol == "TCP")
        })
        .filter_map(|port| {
            ["containerPort", "hostPort"]
                .into_iter()
                .filter_map(|key| port.get(key)?.as_i64())
                .find(|number| OWN_PORTS.iter().any(|own| i64::from(*own) == *number))
        })
}

/// The name of a volume or a mount, if it is one of ours.
fn own_volume(entry: &Value) -> Option<&str> {
    let name = entry.get("name")?.as_str()?;
    (OWN_VOLUMES.contains(&name) || name == FILES_VOLUME).then_some(name)
}
