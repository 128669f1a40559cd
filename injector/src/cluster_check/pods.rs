//! What injection would say to each pod of a namespace, and which pods are not what they should be.

use std::collections::{BTreeMap, BTreeSet};

use mesh_lite_proto::kubernetes::{
    CONFIG_ANNOTATION_PREFIX, INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL, PROXY_CONTAINER,
    VERSION_ANNOTATION,
};
use serde_json::Value;

use super::{
    Finding, list, name, namespace_of, number,
    objects::{Kind, Objects},
    subject, text,
};
use crate::{
    injection_decision::{Caller, Decision, Request, inject},
    installation::VERSION,
    mesh_settings::MeshSettings,
    namespace_facts::{NamespaceFacts, Switch},
};

/// Where pods are made from, and where in it the pod stands.
const TEMPLATES: [(Kind, &str, &str); 6] = [
    (Kind::Deployments, "Deployment", "/spec/template"),
    (Kind::StatefulSets, "StatefulSet", "/spec/template"),
    (Kind::DaemonSets, "DaemonSet", "/spec/template"),
    (Kind::ReplicaSets, "ReplicaSet", "/spec/template"),
    (Kind::Jobs, "Job", "/spec/template"),
    (Kind::CronJobs, "CronJob", "/spec/jobTemplate/spec/template"),
];

pub(super) fn findings(
    objects: &Objects,
    settings: &MeshSettings,
    namespace: &str,
) -> Vec<Finding> {
    if !objects.is_known(Kind::Namespaces) {
        return Vec::new();
    }
    let found = objects
        .of(Kind::Namespaces)
        .iter()
        .find(|found| name(found) == namespace);
    let Some(found) = found else {
        let subject = format!("Namespace {namespace}");
        return vec![Finding::problem(
            subject,
            "is not there",
            "see kubectl get namespaces",
        )];
    };
    let mut findings = Vec::new();
    let facts = as_labelled(found);
    for (kind, word, pointer) in TEMPLATES {
        for owner in objects.of(kind).iter().filter(|owner| is_own_master(owner)) {
            let template = owner.pointer(pointer).cloned().unwrap_or_default();
            findings.extend(judged(
                &template,
                &subject(word, owner),
                settings,
                namespace,
                &facts,
            ));
        }
    }
    for pod in objects
        .of(Kind::Pods)
        .iter()
        .filter(|pod| is_own_master(pod))
    {
        findings.extend(judged(
            pod,
            &subject("Pod", pod),
            settings,
            namespace,
            &facts,
        ));
    }
    let switch = facts_of(found).switch();
    if switch == Switch::Enabled {
        findings.extend(to_restart(objects, settings, namespace, &facts));
    }
    findings.extend(left_behind(objects, namespace, switch));
    findings
}

/// Nobody makes it from a template that is judged itself.
fn is_own_master(object: &Value) -> bool {
    let mut owners = list(object, "/metadata/ownerReferences").iter();
    !owners.any(|owner| owner.get("controller") == Some(&Value::Bool(true)))
}

pub(super) fn texts<'a>(object: &'a Value, pointer: &str) -> Vec<(&'a str, &'a str)> {
    let fields = object
        .pointer(pointer)
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    fields
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
        .collect()
}

pub(super) fn facts_of(namespace: &Value) -> NamespaceFacts {
    NamespaceFacts::new(
        texts(namespace, "/metadata/labels"),
        texts(namespace, "/metadata/annotations"),
    )
}

/// The namespace as it will be.
fn as_labelled(namespace: &Value) -> NamespaceFacts {
    let mut labels = texts(namespace, "/metadata/labels");
    labels.retain(|(key, _)| *key != INJECT_LABEL);
    labels.push((INJECT_LABEL, INJECT_ENABLED));
    NamespaceFacts::new(labels, texts(namespace, "/metadata/annotations"))
}

fn decision(
    pod: &Value,
    settings: &MeshSettings,
    namespace: &str,
    facts: &NamespaceFacts,
) -> Decision {
    let request = Request {
        namespace: namespace.to_owned(),
        name: None,
        caller: Caller::CommandLine,
        dry_run: true,
    };
    inject(pod, &request, settings, facts).decision
}

fn judged(
    pod: &Value,
    subject: &str,
    settings: &MeshSettings,
    namespace: &str,
    facts: &NamespaceFacts,
) -> Vec<Finding> {
    match decision(pod, settings, namespace, facts) {
        Decision::Inject(_) => explicit_without_ports(pod, facts, subject)
            .into_iter()
            .collect(),
        Decision::Skip(skipped) => vec![Finding::warning(
            subject,
            format!("stays out of the mesh: {}", skipped.reason),
            "nothing, if that is meant; in the mesh its callers need another way",
        )],
        Decision::Refuse(refusals) => {
            let refused = refusals.iter().map(|refusal| {
                Finding::problem(
                    subject,
                    format!("its pods would be refused: {refusal}"),
                    "change it, or give its pods the label mesh-lite.io/inject: disabled",
                )
            });
            refused.collect()
        }
    }
}

/// Without capture, only ports that are named lead through the sidecar.
fn explicit_without_ports(pod: &Value, facts: &NamespaceFacts, subject: &str) -> Option<Finding> {
    let of_pod = texts(pod, "/metadata/annotations");
    let says = |key: &str| {
        let key = format!("{CONFIG_ANNOTATION_PREFIX}{key}");
        let of_namespace = facts.annotations().get(&key).map(String::as_str);
        let mut of_pod = of_pod.iter().filter(|(written, _)| *written == key);
        of_pod
            .next()
            .map(|(_, value)| value.trim())
            .or_else(|| of_namespace.map(str::trim))
    };
    if says("capture") != Some("explicit") || says("inbound-ports").is_some() {
        return None;
    }
    let containers = list(pod, "/spec/containers").iter();
    let ports = containers.flat_map(|container| list(container, "/ports"));
    let ports = ports.filter(|port| ["", "TCP"].contains(&text(port, "/protocol")));
    let ports: BTreeSet<String> = ports
        .map(|port| number(port, "/containerPort").to_string())
        .collect();
    if ports.is_empty() {
        return None;
    }
    let ports = ports.into_iter().collect::<Vec<_>>().join(",");
    Some(Finding::warning(
        subject,
        format!(
            "capture is explicit and no inbound-ports are named: nobody reaches port {ports} through the sidecar"
        ),
        format!(
            "annotate its pods {CONFIG_ANNOTATION_PREFIX}inbound-ports: \"{ports}\"; what they call, {CONFIG_ANNOTATION_PREFIX}upstreams"
        ),
    ))
}

/// Running pods that would have a sidecar if they were made now, or one of this version.
fn to_restart(
    objects: &Objects,
    settings: &MeshSettings,
    namespace: &str,
    facts: &NamespaceFacts,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted = injectors_image(objects);
    for pod in objects.of(Kind::Pods).iter().filter(|pod| is_running(pod)) {
        let version = version_of(pod);
        let image = sidecar(pod).map_or("", |container| text(container, "/image"));
        let what = match (is_meshed(pod), version) {
            (true, VERSION) => match wanted {
                Some(wanted) if wanted != image => Finding::warning(
                    subject("Pod", pod),
                    format!("its sidecar is of image {image:?}, the injector's is {wanted:?}"),
                    restart(pod, namespace),
                ),
                _ => continue,
            },
            (true, version) => Finding::warning(
                subject("Pod", pod),
                format!("its sidecar is of version {version:?}, this program of {VERSION}"),
                restart(pod, namespace),
            ),
            (false, _)
                if matches!(
                    decision(pod, settings, namespace, facts),
                    Decision::Inject(_)
                ) =>
            {
                Finding::problem(
                    subject("Pod", pod),
                    "has no sidecar: it was made before the namespace was labelled",
                    restart(pod, namespace),
                )
            }
            (false, _) => continue,
        };
        findings.push(what);
    }
    findings
}

/// Running pods with a sidecar that they would not have if they were made now.
fn left_behind(objects: &Objects, namespace: &str, switch: Switch) -> Vec<Finding> {
    let pods = objects.of(Kind::Pods).iter();
    let meshed = pods.filter(|pod| is_running(pod) && is_meshed(pod));
    let left = meshed.filter(|pod| {
        let enabled = switch == Switch::Enabled
            || (switch == Switch::Absent && text(pod, &label_pointer()) == INJECT_ENABLED);
        // who writes the sidecar into the template by hand means it
        !enabled && !template_of(objects, pod).is_some_and(is_meshed)
    });
    left.map(|pod| {
        Finding::problem(
            subject("Pod", pod),
            "has a sidecar, but its namespace is not labelled: the next pod in its place has none, and STRICT pods refuse it",
            format!(
                "to keep it in the mesh: kubectl label namespace {namespace} --overwrite {INJECT_LABEL}={INJECT_ENABLED}; to take it out: {}",
                restart(pod, namespace)
            ),
        )
    })
    .collect()
}

/// What the pod was made from, as far as that was read.
fn template_of<'a>(objects: &'a Objects, pod: &Value) -> Option<&'a Value> {
    let owner = list(pod, "/metadata/ownerReferences").iter();
    let owner = owner
        .into_iter()
        .find(|owner| owner.get("controller") == Some(&Value::Bool(true)))?;
    let (kind, _, pointer) = TEMPLATES
        .into_iter()
        .find(|(_, word, _)| *word == text(owner, "/kind"))?;
    let mut of_kind = objects.of(kind).iter();
    of_kind
        .find(|found| name(found) == text(owner, "/name"))?
        .pointer(pointer)
}

fn restart(pod: &Value, namespace: &str) -> String {
    let mut owners = list(pod, "/metadata/ownerReferences").iter();
    match owners.next().map(|owner| text(owner, "/kind")) {
        Some("ReplicaSet") => format!("kubectl -n {namespace} rollout restart deployment"),
        Some("StatefulSet") => format!("kubectl -n {namespace} rollout restart statefulset"),
        Some("DaemonSet") => format!("kubectl -n {namespace} rollout restart daemonset"),
        _ => "make it anew".to_owned(),
    }
}

pub(super) fn is_running(pod: &Value) -> bool {
    let ended = ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"));
    !ended && pod.pointer("/metadata/deletionTimestamp").is_none()
}

fn label_pointer() -> String {
    format!("/metadata/labels/{}", INJECT_LABEL.replace('/', "~1"))
}

pub(super) fn is_meshed(pod: &Value) -> bool {
    sidecar(pod).is_some()
}

fn sidecar(pod: &Value) -> Option<&Value> {
    let all = ["/spec/initContainers", "/spec/containers"].into_iter();
    let mut containers = all.flat_map(|pointer| list(pod, pointer));
    containers.find(|container| text(container, "/name") == PROXY_CONTAINER)
}

/// What new sidecars are of, by the flag of the injector's Deployment.
fn injectors_image(objects: &Objects) -> Option<&str> {
    let deployment = objects.of(Kind::Injector).first()?;
    let arguments = list(deployment, "/spec/template/spec/containers/0/args").iter();
    let mut texts = arguments.filter_map(Value::as_str);
    texts.find_map(|argument| argument.strip_prefix("--image="))
}

/// As injection skips them: with the node's network, made by a kubelet alone, or of Windows.
fn takes_no_sidecar(pod: &Value) -> bool {
    let mirror = "/metadata/annotations/kubernetes.io~1config.mirror";
    let of_os = |pointer| text(pod, pointer) == "windows";
    pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))
        || pod.pointer(mirror).is_some()
        || of_os("/spec/os/name")
        || of_os("/spec/nodeSelector/kubernetes.io~1os")
}

fn version_of(pod: &Value) -> &str {
    let pointer = format!(
        "/metadata/annotations/{}",
        VERSION_ANNOTATION.replace('/', "~1")
    );
    text(pod, &pointer)
}

/// How many pods of a namespace are in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodsOfNamespace {
    pub labelled: bool,
    pub meshed: usize,
    /// Without a sidecar, though nothing of theirs says so.
    pub unmeshed: usize,
    /// Their names.
    pub without_sidecar: Vec<String>,
    /// Without one by their own label, or because no sidecar could be in them.
    pub opted_out: usize,
    /// Versions of the sidecars.
    pub versions: BTreeSet<String>,
}

/// Of every namespace that is labelled, or has a pod with a sidecar.
pub fn pods_of_namespaces(objects: &Objects) -> BTreeMap<String, PodsOfNamespace> {
    let mut all: BTreeMap<String, PodsOfNamespace> = BTreeMap::new();
    for namespace in objects.of(Kind::Namespaces) {
        let labelled = facts_of(namespace).switch() == Switch::Enabled;
        all.entry(name(namespace).to_owned()).or_default().labelled = labelled;
    }
    let label = label_pointer();
    for pod in objects.of(Kind::Pods).iter().filter(|pod| is_running(pod)) {
        let of = all.entry(namespace_of(pod).to_owned()).or_default();
        if is_meshed(pod) {
            of.meshed += 1;
            of.versions.insert(version_of(pod).to_owned());
        } else if text(pod, &label) == INJECT_DISABLED || takes_no_sidecar(pod) {
            of.opted_out += 1;
        } else {
            of.unmeshed += 1;
            of.without_sidecar.push(name(pod).to_owned());
        }
    }
    all.retain(|_, of| of.labelled || of.meshed > 0);
    all
}
