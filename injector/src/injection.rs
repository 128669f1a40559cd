//! A pod with its sidecar, and the same pod without it again.
//!
//! ```text
//!   pod ── add ──▶ pod with redirect (index 0), sidecar (index 1), volumes, sysctls, stamps
//!       ◀─ remove ──
//! ```
//! Injecting a second time is removing and adding: the result can't depend on how often, or after
//! whom, we were called.

use mesh_lite_proto::{
    app_probes::AppProbes,
    kubernetes::{MESHED_LABEL, STATUS_ANNOTATION, VERSION_ANNOTATION},
    sidecar::UNCAPTURED_INBOUND_PORTS,
};
use serde_json::Value;

use crate::{
    annotations::{Capture, PodSettings},
    injection_decision::{Refusal, SkipReason},
    mesh_settings::MeshSettings,
    pod_volumes, probe_rewrite,
    redirect_container::redirect_container,
    sidecar_container::sidecar_container,
};

pub(crate) use self::removal::remove;
use self::status::Status;

mod ephemeral_ports;
mod eviction;
mod places;
mod privileges;
mod removal;
mod status;

/// A pod with its sidecar.
pub(crate) struct Injected {
    pub(crate) pod: Value,
    pub(crate) warnings: Vec<String>,
}

/// Adds what makes a pod a meshed one. `pod` has nothing of ours, and the shape of a pod.
///
/// # Errors
/// If its probes can't be written down, or a container that is to get files has something there.
pub(crate) fn add(
    pod: &Value,
    settings: &MeshSettings,
    wanted: &PodSettings,
) -> Result<Injected, Vec<Refusal>> {
    let mut pod = pod.clone();
    let mut status = Status {
        version: settings.version.clone(),
        capture: Some(
            match wanted.capture {
                Capture::Transparent { .. } => "transparent",
                Capture::Explicit { .. } => "explicit",
            }
            .to_owned(),
        ),
        ..Status::default()
    };
    let avoidable = matches!(wanted.capture, Capture::Transparent { .. })
        .then(|| privileges::warning(&pod))
        .flatten();
    let (probes, mut warnings) = rewrite_probes(&mut pod, wanted)?;
    add_containers(&mut pod, settings, wanted, probes.as_deref(), &mut status);
    add_volumes(&mut pod, wanted, &mut status);
    ephemeral_ports::add(&mut pod, &mut status);
    warnings.extend(grace_warning(&pod, wanted));
    warnings.extend(avoidable);
    let _ = places::map(&mut pod, "metadata", &mut status);
    if let Some(labels) = places::map(&mut pod, "metadata/labels", &mut status) {
        labels.insert(MESHED_LABEL.to_owned(), "true".into());
    }
    stamp(&mut pod, status);
    Ok(Injected { pod, warnings })
}

/// Writes on a pod why it has no sidecar.
pub(crate) fn stamp_skipped(pod: &Value, settings: &MeshSettings, reason: SkipReason) -> Value {
    let mut pod = pod.clone();
    stamp(&mut pod, Status::skipped(&settings.version, reason));
    pod
}

/// The last step: what was made is known.
fn stamp(pod: &mut Value, mut status: Status) {
    let version = status.version.clone();
    let volumes = status.volumes.clone();
    let _ = places::map(pod, "metadata", &mut status);
    if let Some(annotations) = places::map(pod, "metadata/annotations", &mut status) {
        eviction::allow(annotations, &volumes);
        annotations.insert(VERSION_ANNOTATION.to_owned(), version.into());
        annotations.insert(STATUS_ANNOTATION.to_owned(), status.into_text().into());
    }
}

/// The table of the probes that go through the sidecar, as text, if there are any.
fn rewrite_probes(
    pod: &mut Value,
    wanted: &PodSettings,
) -> Result<(Option<String>, Vec<String>), Vec<Refusal>> {
    if !wanted.rewrite_probes {
        return Ok((None, Vec::new()));
    }
    let mut uncaptured = UNCAPTURED_INBOUND_PORTS.to_vec();
    if let Capture::Transparent {
        skip_inbound_ports, ..
    } = &wanted.capture
    {
        uncaptured.extend(skip_inbound_ports);
    }
    let (table, warnings) = probe_rewrite::rewrite(pod, &AppProbes::default(), &uncaptured);
    let warnings = warnings.iter().map(ToString::to_string).collect();
    if table.is_empty() {
        return Ok((None, warnings));
    }
    let text = table
        .to_text()
        .map_err(|error| vec![Refusal::Probe(error.to_string())])?;
    Ok((Some(text), warnings))
}

fn add_containers(
    pod: &mut Value,
    settings: &MeshSettings,
    wanted: &PodSettings,
    probes: Option<&str>,
    status: &mut Status,
) {
    let has_app_armor = pod
        .pointer("/spec/securityContext/appArmorProfile")
        .is_some_and(|profile| !profile.is_null());
    let own: Vec<Value> = redirect_container(settings, wanted, has_app_armor)
        .into_iter()
        .chain([sidecar_container(settings, wanted, probes, has_app_armor)])
        .collect();
    status.containers = names(&own);
    if let Some(containers) = places::list(pod, "spec/initContainers", status) {
        containers.splice(0..0, own);
    }
}

fn add_volumes(pod: &mut Value, wanted: &PodSettings, status: &mut Status) {
    let own = pod_volumes::volumes(!wanted.files.is_empty());
    status.volumes = names(&own);
    if let Some(volumes) = places::list(pod, "spec/volumes", status) {
        volumes.extend(own);
    }
    for list in ["containers", "initContainers"] {
        for container in &wanted.files {
            let place = format!("{list}/{container}/volumeMounts");
            if let Some(mounts) = places::list(pod, &place, status) {
                mounts.push(pod_volumes::files_mount());
            }
        }
    }
}

fn names(entries: &[Value]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| Some(entry.get("name")?.as_str()?.to_owned()))
        .collect()
}

fn grace_warning(pod: &Value, wanted: &PodSettings) -> Option<String> {
    /// Kubernetes' default.
    const DEFAULT_GRACE: i64 = 30;
    let of_pod = pod
        .pointer("/spec/terminationGracePeriodSeconds")
        .and_then(Value::as_i64)
        .unwrap_or(DEFAULT_GRACE);
    (i64::from(wanted.shutdown_grace_period) > of_pod).then(|| {
        format!(
            "shutdown-grace-period is {} s, but the pod has {of_pod} s to end \
             (terminationGracePeriodSeconds): the sidecar is killed before",
            wanted.shutdown_grace_period
        )
    })
}

#[cfg(test)]
mod tests;
