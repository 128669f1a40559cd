//! Whether a namespace says that its pods belong into the mesh, in a way that does what was meant.

use mesh_lite_proto::kubernetes::{INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL};
use serde_json::Value;

use super::{
    Finding, name,
    objects::{Kind, Objects},
    pods::{facts_of, texts},
};
use crate::namespace_facts::{AMBIENT_LABEL, Switch};

/// By which another mesh's injector takes the pods of a namespace; Linkerd takes an annotation.
const OTHER_MESHES: [(&str, &str); 5] = [
    ("istio-injection", "Istio"),
    ("istio.io/rev", "Istio"),
    (AMBIENT_LABEL, "Istio's ambient mode"),
    ("linkerd.io/inject", "Linkerd"),
    ("kuma.io/sidecar-injection", "Kuma"),
];
/// Values by which a namespace stays out of the other mesh.
const OUT: [&str; 4] = ["disabled", "false", "none", ""];

pub(super) fn findings(objects: &Objects, namespace: &str) -> Vec<Finding> {
    let Some(found) = found(objects, namespace) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    findings.extend(wrong_label(found, namespace));
    findings.extend(annotation(found, namespace));
    findings.extend(other_meshes(found, namespace));
    findings
}

/// What the namespace's label says; `None` if the namespace is not there, or could not be read.
pub fn switch_of(objects: &Objects, namespace: &str) -> Option<Switch> {
    found(objects, namespace).map(|found| facts_of(found).switch())
}

fn found<'a>(objects: &'a Objects, namespace: &str) -> Option<&'a Value> {
    let mut all = objects.of(Kind::Namespaces).iter();
    all.find(|found| name(found) == namespace)
}

fn written<'a>(namespace: &'a Value, place: &str, key: &str) -> Option<&'a str> {
    let all = texts(namespace, place).into_iter();
    let mut of_key = all.filter(|(written, _)| *written == key);
    of_key.next().map(|(_, value)| value)
}

fn wrong_label(found: &Value, namespace: &str) -> Option<Finding> {
    let value = written(found, "/metadata/labels", INJECT_LABEL)?;
    if [INJECT_ENABLED, INJECT_DISABLED].contains(&value) {
        return None;
    }
    Some(Finding::problem(
        format!("Namespace {namespace}"),
        format!(
            "label {INJECT_LABEL}={value} is neither {INJECT_ENABLED} nor {INJECT_DISABLED}: no pod gets a sidecar"
        ),
        format!("kubectl label namespace {namespace} --overwrite {INJECT_LABEL}={INJECT_ENABLED}"),
    ))
}

fn annotation(found: &Value, namespace: &str) -> Option<Finding> {
    let value = written(found, "/metadata/annotations", INJECT_LABEL)?;
    let what = format!(
        "annotation {INJECT_LABEL}: {value:?} decides nothing, only a label of that name does"
    );
    let subject = format!("Namespace {namespace}");
    let remove = format!("kubectl annotate namespace {namespace} {INJECT_LABEL}-");
    if facts_of(found).switch() != Switch::Absent {
        return Some(Finding::warning(subject, what, remove));
    }
    let next = format!(
        "{remove}; kubectl label namespace {namespace} --overwrite {INJECT_LABEL}={INJECT_ENABLED}"
    );
    Some(Finding::problem(subject, what, next))
}

fn other_meshes(found: &Value, namespace: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (place, word) in [
        ("/metadata/labels", "label"),
        ("/metadata/annotations", "annotation"),
    ] {
        for (key, mesh) in OTHER_MESHES {
            let Some(value) = written(found, place, key).filter(|value| !OUT.contains(value))
            else {
                continue;
            };
            findings.push(Finding::warning(
                format!("Namespace {namespace}"),
                format!("{word} {key}={value}: {mesh} takes its pods, and no pod can be in two meshes"),
                format!(
                    "before the label {INJECT_LABEL}={INJECT_ENABLED}: kubectl {} namespace {namespace} {key}-",
                    if word == "label" { "label" } else { "annotate" }
                ),
            ));
        }
    }
    findings
}
