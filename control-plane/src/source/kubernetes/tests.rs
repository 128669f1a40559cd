use std::{collections::BTreeMap, net::IpAddr};

use kube::api::DynamicObject;
use mesh_lite_proto::workload_directory::{Answer, Name, Service, ServiceName};
use serde_json::{Value, json};

use super::{
    objects::ObjectName,
    watching::{Change, Seen},
    *,
};
use crate::workload_index::WorkloadIndex;

mod addresses;
mod captured_watches;
mod following;
mod services;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

/// A cluster as a test states it, without an API server.
struct Stated {
    state: State,
    index: WorkloadIndex,
}

impl Stated {
    fn new() -> Self {
        let mut stated = Self {
            state: State::new(trust_domain(), Vec::new()),
            index: WorkloadIndex::default(),
        };
        for kind in WatchedKind::ALL {
            stated.list(kind, Vec::new());
        }
        stated
    }

    /// With one node and the networks of pods and services.
    fn with_networks() -> Self {
        let mut stated = Self::new();
        stated.put(node("node-1", "192.168.1.10", &["10.244.0.0/24"]));
        stated.put(
            json!({"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.96.0.0/16"]}}),
        );
        stated
    }

    fn list(&mut self, kind: WatchedKind, objects: Vec<Value>) {
        let objects = objects.into_iter().filter_map(|object| {
            let object = dynamic(object);
            let name = ObjectName::of(&object.metadata);
            Some((name, state::reader(kind)(object)?))
        });
        let all = Change::All(objects.collect());
        self.state.take(kind, Seen::Change(all));
    }

    fn put(&mut self, object: Value) {
        let kind = kind_of(&object);
        let object = dynamic(object);
        let name = ObjectName::of(&object.metadata);
        let change = match state::reader(kind)(object) {
            Some(read) => Change::Put(name, read),
            None => Change::Gone(name),
        };
        self.state.take(kind, Seen::Change(change));
    }

    fn remove(&mut self, object: &Value) {
        let name = ObjectName::of(&dynamic(object.clone()).metadata);
        let change = Change::Gone(name);
        self.state.take(kind_of(object), Seen::Change(change));
    }

    /// As the directory answers.
    fn answer(&mut self, name: &Name) -> Answer {
        self.answer_on(name, None)
    }

    fn answer_on(&mut self, name: &Name, node: Option<&str>) -> Answer {
        self.index = self.index.successor_of(self.state.facts());
        let outbound = OutboundRules {
            mesh_cidrs: self.state.networks().mesh_cidrs(),
            ..OutboundRules::default()
        };
        let settings = outbound.settings_for("shop");
        Answer::clone(&self.index.answer_on_node(name, &settings, node))
    }

    /// Who answers at an address: an identity, `unmeshed NAME`, or what the answer is.
    fn at(&mut self, text: &str) -> String {
        match self.answer(&address(text)) {
            Answer::Endpoint(endpoint) => match endpoint.meshed {
                Some(meshed) => meshed.id.to_string(),
                None => format!("unmeshed {}/{}", endpoint.namespace, endpoint.name),
            },
            Answer::Service(service) => format!("service {}", service.name),
            Answer::Outside => "outside".to_owned(),
            Answer::Unknown { reason } => format!("unknown: {reason}"),
        }
    }

    fn service(&mut self, name: &str) -> Service {
        let (namespace, name) = name.split_once('/').unwrap();
        let name = Name::Service(ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        });
        match self.answer(&name) {
            Answer::Service(service) => service,
            other => panic!("no service: {other:?}"),
        }
    }

    /// `address:port` of the endpoints of a service behind one of its ports, `*` if meshed.
    fn endpoints(&mut self, name: &str, port: u16) -> Vec<String> {
        let service = self.service(name);
        let endpoints = service.endpoints.values().filter_map(|endpoint| {
            let target = service.target_port(endpoint, port)?;
            let meshed = if endpoint.meshed.is_some() { "*" } else { "" };
            Some(format!("{}:{target}{meshed}", endpoint.address))
        });
        endpoints.collect()
    }
}

fn kind_of(object: &Value) -> WatchedKind {
    let kind = object["kind"].as_str().unwrap();
    let found = WatchedKind::ALL.into_iter().find(|of| of.name() == kind);
    found.unwrap()
}

fn dynamic(object: Value) -> DynamicObject {
    serde_json::from_value(object).unwrap()
}

fn address(text: &str) -> Name {
    Name::Address(text.parse::<IpAddr>().unwrap())
}

fn pod(name: &str, address: &str) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "labels": {"app": name}},
        "spec": {"serviceAccountName": name, "nodeName": "node-1",
            "initContainers": [{"name": "mesh-lite-proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    object
}

fn node(name: &str, address: &str, pod_cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDRs": pod_cidrs},
        "status": {"addresses": [{"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name}]},
    })
}

fn service(name: &str, addresses: &[&str], ports: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ports": ports, "selector": {"app": "api"}},
    })
}

fn slice(name: &str, of: &str, ports: Value, endpoints: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": namespace, "name": name,
            "labels": {"kubernetes.io/service-name": of}},
        "ports": ports, "endpoints": endpoints,
    })
}

fn endpoint(address: &str, ready: bool) -> Value {
    json!({"addresses": [address], "nodeName": "node-1",
        "conditions": {"ready": ready, "serving": ready, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": "api"}})
}

fn policy(kind: &str, name: &str, spec: Value) -> Value {
    let (namespace, name) = name.split_once('/').unwrap();
    json!({
        "apiVersion": "mesh-lite.io/v1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}"),
            "generation": 1},
        "spec": spec,
    })
}

#[test]
fn every_kind_has_a_reader_of_its_own_and_every_policy_a_kind() {
    let names: BTreeMap<_, _> = WatchedKind::ALL
        .into_iter()
        .map(|kind| (kind.name(), kind.plural()))
        .collect();
    assert_eq!(names.len(), WatchedKind::ALL.len());
    for kind in WatchedKind::ALL {
        if let Some(document) = kind.document() {
            assert_eq!(WatchedKind::of_document(document), Some(kind));
        }
    }
}
