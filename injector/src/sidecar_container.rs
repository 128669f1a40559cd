//! The sidecar as a container: native (it starts before the application's init containers and ends
//! after the application), without any privilege, and every field set that a pod or a cluster would
//! set otherwise.

use std::fmt::Display;

use mesh_lite_proto::{
    kubernetes::{
        FILES_DIR, PROXY_CONTAINER, STATE_DIR, TOKEN_DIR, TOKEN_FILE, TRUST_BUNDLE_DIR,
        TRUST_BUNDLE_KEY,
    },
    sidecar::{HEALTH_PORT, METRICS_PORT, SIDECAR_UID},
};
use serde_json::{Value, json};

use crate::{
    annotations::{Capture, PodSettings},
    mesh_settings::{MeshSettings, Resources},
    pod_volumes,
};

/// In the state directory, which the kubelet makes for everybody: where `redirect` leaves its
/// record, a directory of root's.
pub(crate) const CAPTURE_STATE: &str = "capture";
/// In the state directory: the sidecar's own.
const SIDECAR_STATE: &str = "sidecar";
/// The sidecar's table of probes, JSON.
pub(crate) const PROBES_VARIABLE: &str = "MESH_LITE_PROBES";
/// Seconds between two looks of the kubelet while a sidecar starts: the application waits for it.
const START_PERIOD: u32 = 1;
/// Then the kubelet starts the sidecar again, and its last words say what it lacked. A pod whose
/// sidecar never starts must not hang without end.
const START_TRIES: u32 = 120;
const READY_PERIOD: u32 = 5;
/// The page is made from memory; a node under load may still be slow.
const PROBE_TIMEOUT: u32 = 3;

/// `probes` is the table, as text, of the application's probes that go through the sidecar.
pub(crate) fn sidecar_container(
    settings: &MeshSettings,
    pod: &PodSettings,
    probes: Option<&str>,
    has_app_armor: bool,
) -> Value {
    let with_files = !pod.files.is_empty();
    let security = SecurityContext {
        user: SIDECAR_UID,
        capability: None,
        has_app_armor,
    };
    json!({
        "name": PROXY_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy.as_str(),
        "args": ["proxy"],
        "restartPolicy": "Always",
        "env": environment(settings, pod, probes).into_value(),
        // what collects metrics by the ports of containers finds this one
        "ports": [{"name": "mesh-metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "resources": resources(&pod.resources),
        "securityContext": security.into_value(),
        // it holds its certificate and its policy, and capture is proved
        "startupProbe": ready(START_PERIOD, START_TRIES),
        "readinessProbe": ready(READY_PERIOD, 3),
        "volumeMounts": pod_volumes::sidecar_mounts(with_files),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
    })
}

fn ready(period: u32, tries: u32) -> Value {
    json!({
        "httpGet": {"path": "/readyz", "port": HEALTH_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": PROBE_TIMEOUT,
        "successThreshold": 1,
        "failureThreshold": tries,
    })
}

fn environment(settings: &MeshSettings, pod: &PodSettings, probes: Option<&str>) -> Environment {
    let mut environment = Environment::default();
    environment.set("MESH_LITE_CONTROL_PLANE", &settings.control_plane);
    environment.set(
        "MESH_LITE_TRUST_BUNDLE",
        &format!("{TRUST_BUNDLE_DIR}/{TRUST_BUNDLE_KEY}"),
    );
    environment.set("MESH_LITE_TRUST_DOMAIN", settings.trust_domain.as_ref());
    environment.set("MESH_LITE_MESH_NAMESPACE", &settings.mesh_namespace);
    environment.set(
        "MESH_LITE_SERVICE_ACCOUNT_TOKEN_FILE",
        &format!("{TOKEN_DIR}/{TOKEN_FILE}"),
    );
    environment.set(
        "MESH_LITE_DATA_DIR",
        &format!("{STATE_DIR}/{SIDECAR_STATE}"),
    );
    environment.set_field("MESH_LITE_POD_UID", "metadata.uid");
    match &pod.capture {
        Capture::Transparent { .. } => {
            environment.set("MESH_LITE_CAPTURE", "transparent");
            environment.set(
                "MESH_LITE_CAPTURE_STATE_DIR",
                &format!("{STATE_DIR}/{CAPTURE_STATE}"),
            );
        }
        Capture::Explicit {
            upstreams,
            inbound_ports,
        } => {
            environment.set("MESH_LITE_CAPTURE", "explicit");
            environment.set_list("MESH_LITE_UPSTREAMS", upstreams);
            environment.set_list("MESH_LITE_INBOUND_PORTS", inbound_ports);
        }
    }
    environment.set("MESH_LITE_DRAIN_DELAY", &pod.drain_delay.to_string());
    environment.set(
        "MESH_LITE_SHUTDOWN_GRACE_PERIOD",
        &pod.shutdown_grace_period.to_string(),
    );
    if let Some(target) = pod.access_log {
        environment.set("MESH_LITE_ACCESS_LOG", target.as_str());
    }
    if let Some(filter) = &pod.log_level {
        environment.set("RUST_LOG", filter);
    }
    if !pod.files.is_empty() {
        environment.set("MESH_LITE_FILES_DIR", FILES_DIR);
    }
    if let Some(table) = probes {
        environment.set(PROBES_VARIABLE, table);
        // the kubelet's: the application's hooks are run for it
        environment.set_field("MESH_LITE_NODE_ADDRESSES", "status.hostIPs");
    }
    environment
}

/// Variables of a container. Kubernetes would replace `$(NAME)` within a value, also within one
/// that came from an annotation or a probe; none is meant, so that each `$` is written as `$$`.
#[derive(Debug, Default)]
pub(crate) struct Environment(Vec<Value>);

impl Environment {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.0
            .push(json!({"name": name, "value": value.replace('$', "$$")}));
    }

    /// By the downward API.
    fn set_field(&mut self, name: &str, path: &str) {
        self.0.push(json!({
            "name": name,
            "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}},
        }));
    }

    /// With commas; nothing for an empty list.
    pub(crate) fn set_list<T: Display>(&mut self, name: &str, list: impl IntoIterator<Item = T>) {
        let values: Vec<String> = list.into_iter().map(|value| value.to_string()).collect();
        if !values.is_empty() {
            self.set(name, &values.join(","));
        }
    }

    pub(crate) fn into_value(self) -> Value {
        Value::Array(self.0)
    }

    /// The value of a variable that [`Self::set`] wrote.
    pub(crate) fn read(container: &Value, name: &str) -> Option<String> {
        let variables = container.get("env")?.as_array()?;
        let variable = variables
            .iter()
            .find(|variable| variable.get("name").is_some_and(|is| is == name))?;
        Some(variable.get("value")?.as_str()?.replace("$$", "$"))
    }
}

pub(crate) fn resources(resources: &Resources) -> Value {
    json!({
        "requests": {
            "cpu": resources.cpu_request.to_string(),
            "memory": resources.memory_request.to_string(),
        },
        "limits": {
            "cpu": resources.cpu_limit.to_string(),
            "memory": resources.memory_limit.to_string(),
        },
    })
}

/// Of a container of ours. Every field is set, or the pod's would hold; but for the SELinux labels,
/// which must be the pod's, or its volumes could not be read.
pub(crate) struct SecurityContext {
    pub(crate) user: u32,
    pub(crate) capability: Option<&'static str>,
    /// The pod names an AppArmor profile, made for the application. Without one none is named:
    /// nodes without AppArmor refuse pods that do.
    pub(crate) has_app_armor: bool,
}

impl SecurityContext {
    pub(crate) fn into_value(self) -> Value {
        let capabilities = match self.capability {
            Some(capability) => json!({"add": [capability], "drop": ["ALL"]}),
            None => json!({"drop": ["ALL"]}),
        };
        let mut context = json!({
            "runAsUser": self.user,
            "runAsGroup": self.user,
            "runAsNonRoot": self.user != 0,
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": capabilities,
            "procMount": "Default",
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        if let (true, Some(context)) = (self.has_app_armor, context.as_object_mut()) {
            context.insert(
                "appArmorProfile".to_owned(),
                json!({"type": "RuntimeDefault"}),
            );
        }
        context
    }
}
