//! Who must answer at an address: the control plane's answers, as a sidecar keeps them.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;

use crate::identity::WorkloadId;

pub mod wire_conversion;

/// In place of the namespace of a node. No namespace is called so: names have no capital letters.
pub const NODE_NAMESPACE: &str = "Node";

/// What a sidecar asks about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    Address(IpAddr),
    Service(ServiceName),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Service(name) => name.fmt(f),
        }
    }
}

/// Shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One workload has this address.
    Endpoint(Endpoint),
    /// A service has this address or name.
    Service(Service),
    /// The address is not the mesh's.
    Outside,
    /// Nobody, or more than one, claims the name: nothing may be sent there.
    Unknown { reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    /// `None`: a workload that is not in the mesh.
    pub meshed: Option<Meshed>,
    pub namespace: String,
    pub name: String,
    pub healthy: bool,
    /// As an endpoint of a service: its own ports, all of them. Empty: those of the service.
    pub ports: Vec<ServicePort>,
}

impl Endpoint {
    /// A node of the cluster, not a workload on one.
    pub fn is_node(&self) -> bool {
        self.meshed.is_none() && self.namespace == NODE_NAMESPACE
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meshed {
    /// Who must answer there, exactly.
    pub id: WorkloadId,
    pub tunnel_port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub name: ServiceName,
    pub ports: Vec<ServicePort>,
    pub endpoints: BTreeMap<IpAddr, Endpoint>,
    /// Connections of one client address go to one endpoint.
    pub session_affinity: bool,
}

impl Service {
    /// Whether the service has this port.
    pub fn has_port(&self, port: u16) -> bool {
        target_port(&self.ports, port).is_some()
    }

    /// The endpoint's port behind a service's port; `None` if it has none.
    pub fn target_port(&self, endpoint: &Endpoint, port: u16) -> Option<u16> {
        let own = !endpoint.ports.is_empty();
        target_port(if own { &endpoint.ports } else { &self.ports }, port)
    }
}

fn target_port(ports: &[ServicePort], port: u16) -> Option<u16> {
    let found = ports.iter().find(|candidate| candidate.port == port)?;
    Some(found.target_port)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServicePort {
    pub port: u16,
    pub target_port: u16,
}

/// What holds for every name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MeshSettings {
    /// Addresses inside the mesh. None known: private ranges count as inside.
    pub mesh_cidrs: Vec<IpNet>,
    /// Exceptions from inside.
    pub external_cidrs: Vec<IpNet>,
    pub outbound_unmeshed: OutboundUnmeshed,
    pub outbound_policy: OutboundPolicy,
}

impl MeshSettings {
    /// Whether an address of which nothing else is known counts as the mesh's own.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if self
            .external_cidrs
            .iter()
            .any(|cidr| cidr.contains(&address))
        {
            return false;
        }
        if self.mesh_cidrs.is_empty() {
            return is_private(address);
        }
        self.mesh_cidrs.iter().any(|cidr| cidr.contains(&address))
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // RFC 6598: the shared range that many clusters take their pod addresses from
            let [first, second, ..] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            address.is_private() || address.is_link_local() || address.is_loopback() || shared
        }
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_unicast_link_local() || address.is_loopback()
        }
    }
}

/// What to do with plaintext to a workload inside that has no sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboundUnmeshed {
    #[default]
    Refuse,
    Allow,
}

/// What to do with plaintext to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutboundPolicy {
    #[default]
    RegistryOnly,
    AllowAny,
}

#[cfg(test)]
mod tests;
