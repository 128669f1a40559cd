//! Pods, services and nodes of a cluster → who has which address.
//!
//! The identity of an address is that of the one pod that has it: one that has not ended, and has
//! a network of its own. EndpointSlices give a service addresses and ports, never an identity.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use mesh_lite_proto::{identity::WorkloadId, sidecar, workload_directory::ServiceName};
use spiffe::TrustDomain;

use super::objects::{EndpointSlice, Node, ObjectName, Pod, Service, ServicePort};
use crate::workload_index::{
    Facts, ListedEndpoint, ServiceDocument, ServicePortDocument, TargetPort, Workload, WorkloadName,
};

/// The API server's service: its endpoints are never pods of the mesh's.
const KUBERNETES: (&str, &str) = ("default", "kubernetes");
/// A service has few ports, and an endpoint a few more where names mean different numbers.
const MAX_PROBLEMS: usize = 20;

/// The objects that say who has which address.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) pods: BTreeMap<ObjectName, Pod>,
    pub(super) services: BTreeMap<ObjectName, Service>,
    pub(super) slices: BTreeMap<ObjectName, EndpointSlice>,
    pub(super) nodes: BTreeMap<ObjectName, Node>,
}

/// Answers facts, and what is wrong in words.
pub(super) fn facts(
    objects: &Objects,
    trust_domain: &TrustDomain,
    networks: &PodNetworks,
) -> (Facts, Vec<String>) {
    let mut problems = Vec::new();
    let mut nodes = addresses_of_nodes(&objects.nodes);
    let mut workloads = Vec::with_capacity(objects.pods.len());
    let mut names: HashMap<&str, Arc<str>> = HashMap::new();
    for (name, pod) in &objects.pods {
        let node = pod.node.as_deref();
        let node = node.map(|node| Arc::clone(names.entry(node).or_insert_with(|| node.into())));
        if pod.host_network {
            // it is nobody but its node: others there could speak in its name
            let node = node.unwrap_or_else(|| name.name.as_str().into());
            for address in &pod.addresses {
                nodes.entry(*address).or_insert_with(|| Arc::clone(&node));
            }
            continue;
        }
        match workload(name, pod, node, trust_domain) {
            Ok(workload) => workloads.push(workload),
            Err(problem) => problems.push(problem),
        }
    }
    problems.truncate(MAX_PROBLEMS);
    let mut slices: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for (name, slice) in &objects.slices {
        let of = (name.namespace.as_str(), slice.service.as_str());
        slices.entry(of).or_default().push(slice);
    }
    let services = objects.services.iter().map(|(name, service)| {
        let of = (name.namespace.as_str(), name.name.as_str());
        let slices = slices.get(&of).map_or(&[][..], Vec::as_slice);
        service_document(name, service, slices, networks)
    });
    let facts = Facts {
        workloads,
        services: services.collect(),
        nodes,
    };
    (facts, problems)
}

fn addresses_of_nodes(nodes: &BTreeMap<ObjectName, Node>) -> BTreeMap<IpAddr, Arc<str>> {
    let mut addresses = BTreeMap::new();
    for (name, node) in nodes {
        let name: Arc<str> = name.name.as_str().into();
        addresses.extend(
            node.addresses
                .iter()
                .map(|address| (*address, Arc::clone(&name))),
        );
    }
    addresses
}

fn workload(
    name: &ObjectName,
    pod: &Pod,
    node: Option<Arc<str>>,
    trust_domain: &TrustDomain,
) -> Result<Workload, String> {
    let ObjectName { namespace, name } = name;
    let id = WorkloadId::new(trust_domain, namespace, &pod.service_account).map_err(|error| {
        format!("Pod {namespace}/{name} has no identity, nobody may be sent there: {error}")
    })?;
    Ok(Workload {
        name: WorkloadName {
            namespace: namespace.clone(),
            name: name.clone(),
        },
        id,
        addresses: pod.addresses.clone(),
        labels: pod.labels.clone(),
        ports: BTreeMap::new(),
        tunnel_port: pod.meshed.then_some(sidecar::TUNNEL_PORT),
        uid: Some(pod.uid.as_str().into()),
        node,
        host: pod.host.clone(),
    })
}

fn service_document(
    name: &ObjectName,
    service: &Service,
    slices: &[&EndpointSlice],
    networks: &PodNetworks,
) -> ServiceDocument {
    let is_kubernetes = (&*name.namespace, &*name.name) == KUBERNETES;
    let ports = service.ports.iter().map(|port| ServicePortDocument {
        port: port.port,
        target: TargetPort::Number(port.target.unwrap_or(port.port)),
    });
    ServiceDocument {
        name: ServiceName {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        },
        addresses: service.addresses.clone(),
        ports: ports.collect(),
        selector: service.selector.clone(),
        listed: Some(listed(&service.ports, slices, |address| {
            is_kubernetes || !networks.is_a_pods(address)
        })),
        session_affinity: service.session_affinity,
        same_node_only: service.same_node_only,
    }
}

/// The endpoints that are ready; while none is, those that still serve while they end.
fn listed(
    ports: &[ServicePort],
    slices: &[&EndpointSlice],
    may_be_stranger: impl Fn(IpAddr) -> bool,
) -> Vec<ListedEndpoint> {
    let mut ready: BTreeMap<IpAddr, ListedEndpoint> = BTreeMap::new();
    let mut serving = BTreeMap::new();
    for slice in slices {
        let targets: BTreeMap<u16, u16> = ports
            .iter()
            .filter_map(|port| Some((port.port, *slice.ports.get(&port.name)?)))
            .collect();
        if targets.is_empty() {
            continue;
        }
        for endpoint in &slice.endpoints {
            let into = match (endpoint.ready, endpoint.serving) {
                (true, _) => &mut ready,
                (false, true) => &mut serving,
                (false, false) => continue,
            };
            for address in &endpoint.addresses {
                let known = into.entry(*address).or_insert_with(|| ListedEndpoint {
                    address: *address,
                    ports: BTreeMap::new(),
                    node: endpoint.node.as_deref().map(Into::into),
                    may_be_stranger: !endpoint.is_pod && may_be_stranger(*address),
                });
                // a pod's ports may be spread over slices
                known.ports.extend(&targets);
                known.may_be_stranger &= !endpoint.is_pod;
            }
        }
    }
    let chosen = if ready.is_empty() { serving } else { ready };
    chosen.into_values().collect()
}

/// The networks that pods have their addresses from, if all of them are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct PodNetworks {
    /// Of nodes, and of services.
    pub(super) known: Vec<IpNet>,
    /// No pod has an address elsewhere.
    pub(super) complete: bool,
}

impl PodNetworks {
    /// Of the nodes that say so, and of the ServiceCIDRs. A node that does not say from where its
    /// pods have their addresses leaves all private addresses suspect.
    pub(super) fn of(
        nodes: &BTreeMap<ObjectName, Node>,
        service_cidrs: &BTreeMap<ObjectName, Vec<String>>,
    ) -> Self {
        let of_nodes = nodes.values().flat_map(|node| &node.pod_cidrs);
        let of_services = service_cidrs.values().flatten();
        let texts = of_nodes.chain(of_services);
        let mut known: Vec<IpNet> = texts.filter_map(|text| text.parse().ok()).collect();
        known.sort_unstable();
        known.dedup();
        let all_say_so = nodes.values().all(|node| !node.pod_cidrs.is_empty());
        Self {
            complete: !nodes.is_empty() && all_say_so && !service_cidrs.is_empty(),
            known: IpNet::aggregate(&known),
        }
    }

    /// Addresses inside the mesh.
    pub(super) fn mesh_cidrs(&self) -> Vec<IpNet> {
        let mut cidrs = self.known.clone();
        if !self.complete {
            cidrs.extend(PRIVATE.iter().filter_map(|text| text.parse::<IpNet>().ok()));
        }
        IpNet::aggregate(&cidrs)
    }

    /// Whether a pod that is not known yet may have the address.
    fn is_a_pods(&self, address: IpAddr) -> bool {
        // Where not all networks are known a service that lists an address by itself is believed:
        // to take it for a pod's would cut off everything beside the cluster.
        self.complete && self.known.iter().any(|network| network.contains(&address))
    }
}

/// Inside, where the pods' networks are not known. Link-local addresses are not among them: caches
/// of names listen there, on the node itself.
const PRIVATE: [&str; 5] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "fc00::/7",
];
