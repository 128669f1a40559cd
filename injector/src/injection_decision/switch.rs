//! What labels, and the kind of pod, say about whether a pod belongs into the mesh at all.

use mesh_lite_proto::kubernetes::{INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL};
use serde_json::Value;

use super::{Caller, Refusal, Request, SkipReason};
use crate::{
    mesh_settings::MeshSettings,
    namespace_facts::{NamespaceFacts, Switch},
    pod_shape::{annotation, label},
};

/// A kubelet's mark on the picture of a static pod.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
const OS_LABEL: &str = "kubernetes.io/os";
const SYSTEM_NAMESPACE: &str = "kube-system";

/// Whether this pod is one to inject.
pub(super) enum Wanted {
    Yes,
    No(SkipReason),
    /// It contradicts itself.
    Never(Refusal),
}

pub(super) fn wanted(
    pod: &Value,
    request: &Request,
    settings: &MeshSettings,
    namespace: &NamespaceFacts,
) -> Wanted {
    if request.namespace == SYSTEM_NAMESPACE || request.namespace == settings.mesh_namespace {
        return Wanted::No(SkipReason::ReservedNamespace);
    }
    if annotation(pod, MIRROR_ANNOTATION).is_some() {
        // who could write it on any pod would have one without a sidecar
        return match request.caller {
            Caller::Anybody => Wanted::Never(Refusal::SpoofedMirror),
            Caller::Kubelet | Caller::CommandLine => Wanted::No(SkipReason::Mirror),
        };
    }
    if is_windows(pod) {
        return Wanted::No(SkipReason::Windows);
    }
    let switch = match label(pod, INJECT_LABEL) {
        None => None,
        Some(INJECT_ENABLED) => Some(true),
        Some(INJECT_DISABLED) => return Wanted::No(SkipReason::OptedOut),
        Some(other) => return Wanted::Never(Refusal::InjectLabel(other.to_owned())),
    };
    if request.caller == Caller::CommandLine && !is_enabled(switch, namespace.switch()) {
        return Wanted::No(SkipReason::NamespaceNotEnabled);
    }
    if let Some(written) = annotation(pod, INJECT_LABEL)
        && switch.is_none()
        && written != INJECT_ENABLED
    {
        return Wanted::Never(Refusal::InjectAnnotation(written.to_owned()));
    }
    let host_network = pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
    match (host_network, switch) {
        (false, _) => Wanted::Yes,
        (true, None) => Wanted::No(SkipReason::HostNetwork),
        (true, Some(_)) => Wanted::Never(Refusal::HostNetwork),
    }
}

/// As the selectors of the two webhooks have it: the namespace says yes and the pod does not say
/// no, or the namespace says nothing and the pod says yes.
fn is_enabled(pod: Option<bool>, namespace: Switch) -> bool {
    match namespace {
        Switch::Enabled => true,
        Switch::Absent => pod == Some(true),
        Switch::Disabled => false,
    }
}

fn is_windows(pod: &Value) -> bool {
    let selected = pod
        .pointer("/spec/nodeSelector")
        .and_then(|selector| selector.get(OS_LABEL));
    [pod.pointer("/spec/os/name"), selected]
        .into_iter()
        .flatten()
        .any(|os| os == "windows")
}
