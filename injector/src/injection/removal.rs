//! A pod without what injection added: as its author wrote it.

use mesh_lite_proto::{
    app_probes::AppProbes,
    kubernetes::{
        FILES_DIR, FILES_VOLUME, MESHED_LABEL, PROXY_CONTAINER, REDIRECT_CONTAINER,
        STATUS_ANNOTATION, VERSION_ANNOTATION,
    },
    sidecar::SIDECAR_UID,
};
use serde_json::Value;

use super::{ephemeral_ports, eviction, places, status::Status};
use crate::{
    pod_shape::containers, pod_volumes::OWN_VOLUMES, probe_rewrite, sidecar_container::Environment,
    sidecar_container::PROBES_VARIABLE,
};

/// Takes away what the status annotation says is ours *and* looks like it. What only claims to be
/// stays, and is for the caller to refuse.
pub(crate) fn remove(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let Some(status) = Status::of(&pod) else {
        return pod;
    };
    restore_probes(&mut pod);
    if let Some(list) = list_mut(&mut pod, "initContainers") {
        list.retain(|container| !is_our_container(container, &status));
    }
    if let Some(list) = list_mut(&mut pod, "volumes") {
        list.retain(|volume| !is_our_volume(volume, &status));
    }
    for list in ["containers", "initContainers"] {
        for container in list_mut(&mut pod, list).into_iter().flatten() {
            if let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            {
                mounts.retain(|mount| !is_files_mount(mount, &status));
            }
        }
    }
    ephemeral_ports::remove(&mut pod, &status);
    if status.skipped.is_none()
        && let Some(labels) = map_mut(&mut pod, "labels")
    {
        labels.remove(MESHED_LABEL);
    }
    if let Some(annotations) = map_mut(&mut pod, "annotations") {
        eviction::forget(annotations, &status.volumes);
        annotations.remove(VERSION_ANNOTATION);
        annotations.remove(STATUS_ANNOTATION);
    }
    places::unmake(&mut pod, &status);
    pod
}

fn restore_probes(pod: &mut Value) {
    let table = containers(pod, "initContainers")
        .find(|(name, _)| *name == PROXY_CONTAINER)
        .and_then(|(_, sidecar)| Environment::read(sidecar, PROBES_VARIABLE))
        .and_then(|text| text.parse::<AppProbes>().ok());
    if let Some(table) = table {
        probe_rewrite::restore(pod, &table);
    }
}

/// Named by the status, in its role, and run as it must be.
fn is_our_container(container: &Value, status: &Status) -> bool {
    let Some(name) = container.get("name").and_then(Value::as_str) else {
        return false;
    };
    let (role, user) = match name {
        PROXY_CONTAINER => ("proxy", SIDECAR_UID),
        REDIRECT_CONTAINER => ("redirect", 0),
        _ => return false,
    };
    status.containers.iter().any(|ours| ours == name)
        && container.pointer("/args/0").is_some_and(|is| is == role)
        && container
            .pointer("/securityContext/runAsUser")
            .is_some_and(|is| *is == user)
}

/// Named by the status, and of a kind that we make: never somebody's disk.
fn is_our_volume(volume: &Value, status: &Status) -> bool {
    volume
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|name| {
            (OWN_VOLUMES.contains(&name) || name == FILES_VOLUME)
                && status.volumes.iter().any(|ours| ours == name)
        })
        && ["emptyDir", "projected", "configMap"]
            .iter()
            .any(|kind| volume.get(*kind).is_some())
}

fn is_files_mount(mount: &Value, status: &Status) -> bool {
    status.volumes.iter().any(|ours| ours == FILES_VOLUME)
        && mount.get("name").is_some_and(|name| name == FILES_VOLUME)
        && mount.get("mountPath").is_some_and(|path| path == FILES_DIR)
        && mount.get("readOnly") == Some(&Value::Bool(true))
}

fn list_mut<'a>(pod: &'a mut Value, list: &str) -> Option<&'a mut Vec<Value>> {
    pod.get_mut("spec")?.get_mut(list)?.as_array_mut()
}

fn map_mut<'a>(pod: &'a mut Value, map: &str) -> Option<&'a mut serde_json::Map<String, Value>> {
    pod.get_mut("metadata")?.get_mut(map)?.as_object_mut()
}
