//! The kubelet's probes and hooks go through the sidecar: it has no identity, so that under STRICT
//! no port of the application answers it.
//!
//! Each `httpGet`, `tcpSocket` and `grpc` of the application's containers and native sidecars
//! becomes an `httpGet` of the sidecar's health port, at a path that names it; what it was stands
//! in the table, by which the sidecar asks and `uninject` restores. Periods and thresholds stay
//! the kubelet's. `exec` runs inside the container and stays as it is.

use std::fmt;

use mesh_lite_proto::{
    app_probes::{AppProbe, AppProbes, ProbeKind, ProbeName},
    kubernetes::{PROXY_CONTAINER, REDIRECT_CONTAINER},
    sidecar::HEALTH_PORT,
};
use serde_json::{Map, Value, json};

mod handler;

use handler::Unchanged;

/// A probe that was left as it is and that the kubelet may not get through with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeWarning {
    container: String,
    kind: ProbeKind,
    why: Unchanged,
}

impl fmt::Display for ProbeWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            container,
            kind,
            why,
        } = self;
        write!(
            f,
            "container {container}: its {} stays as it is: {why}",
            field(*kind)
        )
    }
}

/// Rewrites the probes of a pod; gives the table of all that go through the sidecar now.
///
/// `before` is the table of an earlier pass: its probes keep what they were, those of containers
/// that came later are added. `uncaptured` are ports that the network reaches without the
/// sidecar: their probes need no help.
pub fn rewrite(
    pod: &mut Value,
    before: &AppProbes,
    uncaptured: &[u16],
) -> (AppProbes, Vec<ProbeWarning>) {
    let (mut table, mut warnings) = (AppProbes::default(), Vec::new());
    for container in containers(pod) {
        let Some(name) = container_name(container) else {
            continue;
        };
        let ports = container.get("ports").cloned().unwrap_or_default();
        for kind in ProbeKind::ALL {
            let Some(probe) = probe_mut(container, kind) else {
                continue;
            };
            let outcome = rewrite_one(probe, (&name, kind), &ports, before, uncaptured)
                .and_then(|(named, entry)| added(&mut table, named, entry, probe));
            match outcome {
                Ok(()) | Err(Unchanged::NeedsNoHelp) => {}
                Err(why) => warnings.push(ProbeWarning {
                    container: name.clone(),
                    kind,
                    why,
                }),
            }
        }
    }
    (table, warnings)
}

/// Gives every probe in `table` back what it was. The reverse of [`rewrite`].
pub fn restore(pod: &mut Value, table: &AppProbes) {
    for container in containers(pod) {
        let Some(name) = container_name(container) else {
            continue;
        };
        for kind in ProbeKind::ALL {
            let Ok(named) = ProbeName::new(&name, kind) else {
                continue;
            };
            let (Some(entry), Some(probe)) = (table.get(&named), probe_mut(container, kind)) else {
                continue;
            };
            if let Some(original) = entry.original.as_object()
                && asks_sidecar(probe, &named)
            {
                probe.remove("httpGet");
                probe.extend(original.clone());
            }
        }
    }
}

/// What the table says of a probe; the probe itself is not touched yet.
fn rewrite_one(
    probe: &Map<String, Value>,
    (container, kind): (&str, ProbeKind),
    ports: &Value,
    before: &AppProbes,
    uncaptured: &[u16],
) -> Result<(ProbeName, AppProbe), Unchanged> {
    let named = ProbeName::new(container, kind).map_err(|_| Unchanged::NeedsNoHelp)?;
    let timeout = handler::timeout(probe, kind);
    if asks_sidecar(probe, &named) {
        let known = before.get(&named).ok_or(Unchanged::NotOurs)?;
        let entry = AppProbe {
            timeout,
            ..known.clone()
        };
        return Ok((named, entry));
    }
    let (key, value) = handler::only_one(probe, kind)?;
    let action = handler::parse(key, value, ports, uncaptured)?;
    let entry = AppProbe {
        action,
        timeout,
        original: Value::Object(handler::all(probe)),
    };
    Ok((named, entry))
}

/// Rewrites the probe once it is sure to stand in the table.
fn added(
    table: &mut AppProbes,
    named: ProbeName,
    entry: AppProbe,
    probe: &mut Map<String, Value>,
) -> Result<(), Unchanged> {
    let path = named.to_string();
    let asks_already = asks_sidecar(probe, &named);
    let replaced = entry.original.clone();
    table
        .insert(named, entry)
        .map_err(|error| Unchanged::Table(error.to_string()))?;
    if !asks_already {
        for key in replaced.as_object().into_iter().flat_map(Map::keys) {
            probe.remove(key);
        }
        let asked = json!({"path": path, "port": HEALTH_PORT, "scheme": "HTTP"});
        probe.insert("httpGet".to_owned(), asked);
    }
    Ok(())
}

fn asks_sidecar(probe: &Map<String, Value>, named: &ProbeName) -> bool {
    probe.get("httpGet").is_some_and(|asked| {
        asked.get("port") == Some(&json!(HEALTH_PORT))
            && asked.get("path").and_then(Value::as_str) == Some(&named.to_string())
    })
}

/// The application's containers, and those init containers that keep running: others have no
/// probes. Never ours.
fn containers(pod: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    spec.into_iter()
        .flat_map(Map::iter_mut)
        .filter(|(key, _)| matches!(key.as_str(), "containers" | "initContainers"))
        .filter_map(|(key, list)| Some((key.as_str() == "initContainers", list.as_array_mut()?)))
        .flat_map(|(init, list)| list.iter_mut().map(move |container| (init, container)))
        .filter_map(|(init, container)| Some((init, container.as_object_mut()?)))
        .filter(|(init, container)| {
            let name = container.get("name").and_then(Value::as_str);
            let keeps_running = container.get("restartPolicy") == Some(&json!("Always"));
            (!init || keeps_running)
                && name != Some(PROXY_CONTAINER)
                && name != Some(REDIRECT_CONTAINER)
        })
        .map(|(_, container)| container)
}

fn container_name(container: &Map<String, Value>) -> Option<String> {
    container.get("name")?.as_str().map(str::to_owned)
}

const fn field(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "startupProbe",
        ProbeKind::Liveness => "livenessProbe",
        ProbeKind::Readiness => "readinessProbe",
        ProbeKind::PostStart => "postStart",
        ProbeKind::PreStop => "preStop",
    }
}

fn probe_mut(
    container: &mut Map<String, Value>,
    kind: ProbeKind,
) -> Option<&mut Map<String, Value>> {
    let holder = if kind.is_hook() {
        container.get_mut("lifecycle")?.as_object_mut()?
    } else {
        container
    };
    holder.get_mut(field(kind))?.as_object_mut()
}

#[cfg(test)]
mod tests;
