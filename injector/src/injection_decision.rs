//! Whether a pod gets a sidecar: one pure function, which the webhook, `inject` and `check` call.
//!
//! ```text
//! pod ─▶ its shape ─▶ as it was before us ─▶ skip? ─▶ refuse? (all reasons at once) ─▶ inject
//! ```
//! A decision never rests on what a pod claims to be: a pod that says it was injected is brought to
//! what injection would give now, and one that uses our names without that is refused.

use mesh_lite_proto::kubernetes::INJECT_LABEL;
use serde_json::Value;

use self::switch::{Wanted, wanted};
pub(crate) use self::{conflicts::debug_containers, refusal::Quoted};
pub use self::{
    refusal::{Place, Refusal},
    skip_reason::SkipReason,
};
use crate::{
    annotations::{self, Capture, PodSettings},
    injection,
    mesh_settings::MeshSettings,
    namespace_facts::{NamespaceFacts, PodSecurity},
    pod_shape,
};

mod conflicts;
mod other_mesh;
mod refusal;
mod skip_reason;
mod switch;

/// What is asked beside the pod itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the pod will be; its own metadata may not say.
    pub namespace: String,
    /// For words only. A pod that a controller makes has none yet.
    pub name: Option<String>,
    pub caller: Caller,
    /// Nothing will come of it. The answer is the same.
    pub dry_run: bool,
}

/// Who wants the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The API server, for a kubelet. Its selectors have judged the labels of the namespace.
    Kubelet,
    /// The API server, for anybody else. Its selectors have judged the labels of the namespace.
    Anybody,
    /// No API server: `inject`, `check`. The namespace's label is judged here.
    CommandLine,
}

/// What is done with a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The pod as it shall be.
    Inject(Value),
    /// It stays out of the mesh.
    Skip(Skipped),
    /// It must not be made like this. Never empty.
    Refuse(Vec<Refusal>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    pub reason: SkipReason,
    /// The pod with the reason written on it; `None` where nothing may be written.
    pub stamped: Option<Value>,
}

/// A decision and what its author should hear about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    pub decision: Decision,
    /// Whole sentences, fit for a terminal. At most [`MAX_WARNINGS`], each at most
    /// [`MAX_WARNING`] characters.
    pub warnings: Vec<String>,
}

/// The API server may cut warnings after 256 characters and drop them after 4096 in all.
pub const MAX_WARNING: usize = 250;
pub const MAX_WARNINGS: usize = 16;
/// Nobody corrects more at a time, and the answer stays short.
pub const MAX_REFUSALS: usize = 32;

/// Decides about one pod. The same arguments always give the same answer.
#[must_use]
pub fn inject(
    pod: &Value,
    request: &Request,
    settings: &MeshSettings,
    namespace: &NamespaceFacts,
) -> Decided {
    let mut warnings = Vec::new();
    let decision = decide(pod, request, settings, namespace, &mut warnings);
    Decided {
        decision,
        warnings: bounded(warnings),
    }
}

/// The pod as it was before it was injected; equal to `pod` if it never was.
#[must_use]
pub fn without_injection(pod: &Value) -> Value {
    injection::remove(pod)
}

fn decide(
    pod: &Value,
    request: &Request,
    settings: &MeshSettings,
    namespace: &NamespaceFacts,
    warnings: &mut Vec<String>,
) -> Decision {
    if let Err(wrong) = pod_shape::check(pod) {
        return Decision::Refuse(vec![Refusal::Shape {
            place: wrong.place,
            expected: wrong.expected,
        }]);
    }
    let pod = injection::remove(pod);
    match wanted(&pod, request, settings, namespace) {
        Wanted::Yes => {}
        Wanted::No(reason) => {
            warnings.push(format!("mesh-lite: this pod is not in the mesh: {reason}"));
            let stamped = reason
                .is_stamped()
                .then(|| injection::stamp_skipped(&pod, settings, reason));
            return Decision::Skip(Skipped { reason, stamped });
        }
        Wanted::Never(refusal) => return Decision::Refuse(vec![refusal]),
    }
    let mut refusals = other_mesh::refusals(&pod, namespace);
    refusals.extend(conflicts::refusals(&pod));
    let wanted = match pod_settings(&pod, request, settings, namespace) {
        Ok(wanted) => Some(wanted),
        Err(wrong) => {
            refusals.extend(wrong);
            None
        }
    };
    if let Some(wanted) = &wanted {
        refusals.extend(pod_security(wanted, request, namespace));
        refusals.extend(conflicts::files(&pod, wanted));
    }
    let (Some(wanted), true) = (wanted, refusals.is_empty()) else {
        return Decision::Refuse(bounded_refusals(refusals));
    };
    if pod_shape::annotation(&pod, INJECT_LABEL).is_some() {
        warnings.push(format!(
            "mesh-lite: annotation {INJECT_LABEL} decides nothing: only a label of that name does"
        ));
    }
    match injection::add(&pod, settings, &wanted) {
        Ok(injected) => {
            warnings.extend(
                injected
                    .warnings
                    .iter()
                    .map(|warning| format!("mesh-lite: {warning}")),
            );
            Decision::Inject(injected.pod)
        }
        Err(refusals) => Decision::Refuse(refusals),
    }
}

fn pod_settings(
    pod: &Value,
    request: &Request,
    settings: &MeshSettings,
    namespace: &NamespaceFacts,
) -> Result<PodSettings, Vec<Refusal>> {
    let of_pod = pod
        .pointer("/metadata/annotations")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
    annotations::read(
        &request.namespace,
        namespace.annotations(),
        of_pod,
        &settings.resources,
    )
}

/// Said here in words: the API server would refuse what we made, and name a container that the
/// pod's author never wrote.
fn pod_security(
    wanted: &PodSettings,
    request: &Request,
    namespace: &NamespaceFacts,
) -> Option<Refusal> {
    let level = match namespace.pod_security() {
        PodSecurity::Privileged => return None,
        PodSecurity::Baseline => "baseline",
        PodSecurity::Restricted => "restricted",
    };
    matches!(wanted.capture, Capture::Transparent { .. }).then(|| Refusal::PodSecurity {
        namespace: request.namespace.clone(),
        level,
    })
}

fn bounded_refusals(mut refusals: Vec<Refusal>) -> Vec<Refusal> {
    refusals.truncate(MAX_REFUSALS);
    refusals
}

fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    warnings.truncate(MAX_WARNINGS);
    for warning in &mut warnings {
        let safe: String = warning
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .collect();
        *warning = if safe.chars().count() > MAX_WARNING {
            let short: String = safe.chars().take(MAX_WARNING - 1).collect();
            format!("{short}…")
        } else {
            safe
        };
    }
    warnings
}

#[cfg(test)]
mod tests;
