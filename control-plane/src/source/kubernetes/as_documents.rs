//! Objects of a cluster → the documents that `--config-dir` takes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use mesh_lite_proto::{
    document::{API_VERSION, Kind, MAX_FILE},
    sidecar,
};
use serde_json::{Map, Value, json};

use super::{kinds::WatchedKind, objects, policy_object};
use crate::workload_index::is_name;

/// What an object is as a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AsDocument {
    /// YAML.
    Text(String),
    /// None, and why in words.
    LeftOut(LeftOut),
}

/// An object that no document is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Kind, namespace and name.
    pub object: String,
    pub why: String,
    /// Whether tools would answer otherwise if they knew it.
    pub is_missed: bool,
}

/// `None`: there is nothing to say of it.
pub(super) fn as_document(kind: WatchedKind, object: DynamicObject) -> Option<AsDocument> {
    let DynamicObject { metadata, data, .. } = object;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let left_out = |why: &str, is_missed| {
        AsDocument::LeftOut(LeftOut {
            object: format!("{} {namespace}/{name}", kind.name()),
            why: why.to_owned(),
            is_missed,
        })
    };
    let fields = match kind {
        WatchedKind::Pod => workload(metadata.clone(), data).map(of_spec),
        WatchedKind::Service => service(data).map(of_spec),
        _ => Some(Ok(as_written(data))),
    };
    let fields = match fields? {
        Ok(fields) => fields,
        Err(Unfit { why, is_missed }) => return Some(left_out(&why, is_missed)),
    };
    if !is_name(&namespace) || !is_name(&name) {
        let why = "its name has more than the 63 characters that a document's may have";
        return Some(left_out(why, true));
    }
    let kind = match kind {
        WatchedKind::Pod => Kind::Workload,
        WatchedKind::Service => Kind::Service,
        policy => policy.document()?,
    };
    let text = text(kind, metadata, fields);
    Some(if text.len() > MAX_FILE {
        left_out("as YAML it is larger than a file may be", true)
    } else {
        AsDocument::Text(text)
    })
}

/// Why an object can be no document.
struct Unfit {
    why: String,
    is_missed: bool,
}

impl Unfit {
    const fn harmless(why: String) -> Self {
        let is_missed = false;
        Self { why, is_missed }
    }

    fn unreadable(error: &serde_json::Error) -> Self {
        let why = format!("it can't be read: {error}");
        let is_missed = true;
        Self { why, is_missed }
    }
}

/// `None`: a pod that has ended, or has no address yet.
fn workload(metadata: ObjectMeta, data: Value) -> Option<Result<Value, Unfit>> {
    let ports = named_ports(&data);
    let pod = match objects::pod(metadata, data) {
        Ok(pod) => pod?,
        Err(error) => return Some(Err(Unfit::unreadable(&error))),
    };
    if pod.host_network {
        let why = "it has its node's addresses (hostNetwork), which are nobody's identity";
        return Some(Err(Unfit::harmless(why.to_owned())));
    }
    if pod.addresses.is_empty() {
        return None;
    }
    let mut spec = Map::new();
    let mut state = |field: &str, value: Value| spec.insert(field.to_owned(), value);
    state("serviceAccount", json!(pod.service_account));
    state("addresses", json!(pod.addresses));
    if !ports.is_empty() {
        let ports = ports.iter();
        let ports = ports.map(|(name, port)| json!({"name": name, "port": port}));
        state("ports", ports.collect());
    }
    if pod.meshed {
        state("tunnelPort", sidecar::TUNNEL_PORT.into());
    } else {
        state("meshed", false.into());
    }
    Some(Ok(spec.into()))
}

/// The first of each name, as Kubernetes takes them.
fn named_ports(pod: &Value) -> BTreeMap<String, u64> {
    let lists = ["/spec/containers", "/spec/initContainers"];
    let containers = lists
        .iter()
        .filter_map(|list| pod.pointer(list)?.as_array())
        .flatten();
    let ports = containers.filter_map(|container| container.get("ports")?.as_array());
    let mut named = BTreeMap::new();
    for port in ports.flatten() {
        let is_tcp = port
            .get("protocol")
            .is_none_or(|it| it.as_str() == Some("TCP"));
        let name = port.get("name").and_then(Value::as_str);
        let number = port.get("containerPort").and_then(Value::as_u64);
        if let (true, Some(name), Some(number)) = (is_tcp, name, number) {
            named.entry(name.to_owned()).or_insert(number);
        }
    }
    named
}

/// `None`: a name for something outside the cluster, or a service without a TCP port.
fn service(data: Value) -> Option<Result<Value, Unfit>> {
    let names = target_names(&data);
    let service = match objects::service(data) {
        Ok(service) => service?,
        Err(error) => return Some(Err(Unfit::unreadable(&error))),
    };
    if service.selector.is_empty() {
        let why = "it selects no pods: somebody else names its endpoints";
        return Some(Err(Unfit::harmless(why.to_owned())));
    }
    if service.ports.is_empty() {
        return None;
    }
    let ports = service.ports.iter().map(|port| {
        let target: Value = match (port.target, names.get(&port.port)) {
            (Some(number), _) => number.into(),
            (None, Some(name)) => name.as_str().into(),
            (None, None) => port.port.into(),
        };
        json!({"port": port.port, "targetPort": target})
    });
    let mut spec = Map::new();
    let mut state = |field: &str, value: Value| spec.insert(field.to_owned(), value);
    state("ports", ports.collect());
    state("selector", json!(service.selector));
    if !service.addresses.is_empty() {
        state("addresses", json!(service.addresses));
    }
    if service.session_affinity {
        state("sessionAffinity", "ClientIP".into());
    }
    Some(Ok(spec.into()))
}

/// By port, where the target is a name.
fn target_names(service: &Value) -> BTreeMap<u16, String> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let named = |port: &Value| {
        let is_tcp = port
            .get("protocol")
            .is_none_or(|it| it.as_str() == Some("TCP"));
        let number = u16::try_from(port.get("port")?.as_u64()?).ok()?;
        let name = port.get("targetPort")?.as_str()?.to_owned();
        is_tcp.then_some((number, name))
    };
    ports.into_iter().flatten().filter_map(named).collect()
}

fn of_spec(spec: Result<Value, Unfit>) -> Result<Map<String, Value>, Unfit> {
    spec.map(|spec| [("spec".to_owned(), spec)].into_iter().collect())
}

/// A policy's fields, also those that nobody knows: then it is refused here as it is there.
fn as_written(data: Value) -> Map<String, Value> {
    let mut fields = match data {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.remove("status");
    fields
}

/// What people wrote, without what the API server and `kubectl` keep beside it.
fn text(kind: Kind, metadata: ObjectMeta, mut fields: Map<String, Value>) -> String {
    /// The whole object once more.
    const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let mut kept = Map::new();
    kept.insert("name".to_owned(), metadata.name.into());
    kept.insert("namespace".to_owned(), metadata.namespace.into());
    if let Some(labels) = metadata.labels {
        kept.insert("labels".to_owned(), json!(labels));
    }
    // those of pods say nothing that a tool asks
    if kind.is_policy()
        && let Some(mut annotations) = metadata.annotations
    {
        annotations.remove(LAST_APPLIED);
        if !annotations.is_empty() {
            kept.insert("annotations".to_owned(), json!(annotations));
        }
    }
    fields.insert("apiVersion".to_owned(), API_VERSION.into());
    fields.insert("kind".to_owned(), kind.as_str().into());
    fields.insert("metadata".to_owned(), kept.into());
    policy_object::yaml(&fields)
}
