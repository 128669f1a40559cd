//! Kubernetes objects, as far as they are used: a pod of ten kilobytes becomes some hundred bytes.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_lite_proto::{
    kubernetes::{INJECT_ENABLED, INJECT_LABEL, OUTBOUND_UNMESHED_ANNOTATION, PROXY_CONTAINER},
    workload_directory::OutboundUnmeshed,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::fields::{
    EndpointConditions, NodeSpec, NodeStatus, Parts, PodSpec, PodStatus, ServiceCidrSpec,
    ServiceSpec, Slice,
};
use super::namespaces::Namespace;
use crate::workload_index::PodHost;

mod fields;

/// `namespace/name`; the namespace is empty for objects of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectName {
    pub(super) fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// A pod that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) service_account: String,
    pub(super) node: Option<String>,
    pub(super) addresses: Vec<IpAddr>,
    /// It has its node's addresses, not its own.
    pub(super) host_network: bool,
    /// Its spec has our sidecar.
    pub(super) meshed: bool,
    pub(super) host: Option<Box<PodHost>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// Addresses that the API server gave it.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<ServicePort>,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) session_affinity: bool,
    pub(super) same_node_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServicePort {
    /// What EndpointSlices call it; may be empty.
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) target: Option<u16>,
}

/// The endpoints of a service, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointSlice {
    /// The service's name, in the slice's namespace.
    pub(super) service: String,
    /// By name, TCP only.
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) endpoints: Vec<SliceEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceEndpoint {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) node: Option<String>,
    pub(super) is_pod: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) addresses: Vec<IpAddr>,
    /// Networks of its pods; empty where something else than Kubernetes gives pods addresses.
    pub(super) pod_cidrs: Vec<String>,
}

/// Reads what is used of an object.
///
/// # Errors
/// If a field that is used is not what the API says it is.
fn read<T: DeserializeOwned>(mut object: Value) -> Result<T, serde_json::Error> {
    drop_nulls(&mut object);
    serde_json::from_value(object)
}

/// To clients null is the same as nothing, wherever it stands.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// `None`: the pod has ended, and others may have its addresses.
pub(super) fn pod(metadata: ObjectMeta, object: Value) -> Result<Option<Pod>, serde_json::Error> {
    let Parts { spec, status }: Parts<PodSpec, PodStatus> = read(object)?;
    if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
        return Ok(None);
    }
    let mut containers = spec.init_containers.iter().chain(&spec.containers);
    let meshed = containers.any(|container| container.name == PROXY_CONTAINER);
    let texts = status.pod_ips.iter().map(|pod| &pod.ip);
    let account = spec.service_account_name;
    let has_host = !spec.hostname.is_empty() && !spec.subdomain.is_empty();
    let (hostname, subdomain) = (spec.hostname, spec.subdomain);
    Ok(Some(Pod {
        uid: metadata.uid.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        service_account: if account.is_empty() {
            "default".to_owned()
        } else {
            account
        },
        node: spec.node_name,
        addresses: addresses(texts.chain([&status.pod_ip])),
        host_network: spec.host_network,
        meshed,
        host: has_host.then(|| {
            Box::new(PodHost {
                hostname,
                subdomain,
            })
        }),
    }))
}

/// `None`: a name for something outside the cluster (ExternalName).
pub(super) fn service(object: Value) -> Result<Option<Service>, serde_json::Error> {
    let Parts { spec, .. }: Parts<ServiceSpec, Option<Value>> = read(object)?;
    if spec.kind == "ExternalName" {
        return Ok(None);
    }
    let ports = spec.ports.into_iter().filter(|port| is_tcp(&port.protocol));
    let ports = ports.map(|port| ServicePort {
        name: port.name,
        port: port.port,
        target: port
            .target_port
            .as_u64()
            .and_then(|number| u16::try_from(number).ok()),
    });
    Ok(Some(Service {
        // a headless service says "None", which is no address
        addresses: addresses(spec.cluster_ips.iter().chain([&spec.cluster_ip])),
        ports: ports.collect(),
        selector: spec.selector,
        session_affinity: spec.session_affinity == "ClientIP",
        same_node_only: spec.internal_traffic_policy == "Local",
    }))
}

/// `None`: a slice without a service, or of names.
pub(super) fn endpoint_slice(
    metadata: ObjectMeta,
    object: Value,
) -> Result<Option<EndpointSlice>, serde_json::Error> {
    const SERVICE_NAME: &str = "kubernetes.io/service-name";
    let slice: Slice = read(object)?;
    let mut labels = metadata.labels.unwrap_or_default();
    let Some(service) = labels.remove(SERVICE_NAME) else {
        return Ok(None);
    };
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        return Ok(None);
    }
    let ports = slice.ports.into_iter().flatten();
    let ports = ports.filter(|port| is_tcp(port.protocol.as_deref().unwrap_or_default()));
    let endpoints = slice.endpoints.into_iter().flatten().map(|endpoint| {
        // what is not said counts as ready, as the API says
        let EndpointConditions { ready, serving } = endpoint.conditions.unwrap_or_default();
        let ready = ready.unwrap_or(true);
        SliceEndpoint {
            addresses: addresses(&endpoint.addresses),
            ready,
            serving: serving.unwrap_or(ready),
            node: endpoint.node_name,
            is_pod: endpoint
                .target_ref
                .is_some_and(|target| target.kind == "Pod"),
        }
    });
    Ok(Some(EndpointSlice {
        service,
        ports: ports
            .filter_map(|port| Some((port.name.unwrap_or_default(), port.port?)))
            .collect(),
        endpoints: endpoints.collect(),
    }))
}

pub(super) fn node(object: Value) -> Result<Node, serde_json::Error> {
    let Parts { spec, status }: Parts<NodeSpec, NodeStatus> = read(object)?;
    Ok(Node {
        // a node's name is among them, which is no address
        addresses: addresses(status.addresses.iter().map(|of| &of.address)),
        pod_cidrs: spec.pod_cidrs,
    })
}

/// The networks of a ServiceCIDR.
pub(super) fn service_cidr(object: Value) -> Result<Vec<String>, serde_json::Error> {
    let Parts { spec, .. }: Parts<ServiceCidrSpec, Option<Value>> = read(object)?;
    Ok(spec.cidrs)
}

/// And what is wrong with it, in words.
pub(super) fn namespace(metadata: ObjectMeta) -> (Namespace, Option<String>) {
    let labels = metadata.labels.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    let rule = annotations.get(OUTBOUND_UNMESHED_ANNOTATION);
    let (outbound_unmeshed, problem) = match rule.map(String::as_str) {
        None => (None, None),
        Some("refuse") => (Some(OutboundUnmeshed::Refuse), None),
        Some("allow") => (Some(OutboundUnmeshed::Allow), None),
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            let text = format!(
                "Namespace {}: {OUTBOUND_UNMESHED_ANNOTATION}: {shown:?} is neither refuse nor allow, and counts \
                 as refuse",
                metadata.name.unwrap_or_default()
            );
            (Some(OutboundUnmeshed::Refuse), Some(text))
        }
    };
    let injected = labels.get(INJECT_LABEL);
    let namespace = Namespace {
        injected: injected.is_some_and(|value| value == INJECT_ENABLED),
        outbound_unmeshed,
        ending: metadata.deletion_timestamp.is_some(),
    };
    (namespace, problem)
}

/// TCP is what is meant where nothing is said.
fn is_tcp(protocol: &str) -> bool {
    matches!(protocol, "" | "TCP")
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    addresses
}
