//! Where sidecars may send plaintext, as the operator set it for the mesh and its namespaces.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mesh_lite_proto::workload_directory::{MeshSettings, OutboundPolicy, OutboundUnmeshed};

/// From the command line; fixed for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboundRules {
    pub mesh_cidrs: Vec<IpNet>,
    pub external_cidrs: Vec<IpNet>,
    pub policy: OutboundPolicy,
    /// Where a namespace has none of its own.
    pub unmeshed: OutboundUnmeshed,
    pub unmeshed_by_namespace: BTreeMap<String, OutboundUnmeshed>,
}

impl OutboundRules {
    pub(crate) fn settings_for(&self, namespace: &str) -> MeshSettings {
        let own = self.unmeshed_by_namespace.get(namespace).copied();
        MeshSettings {
            mesh_cidrs: self.mesh_cidrs.clone(),
            external_cidrs: self.external_cidrs.clone(),
            outbound_unmeshed: own.unwrap_or(self.unmeshed),
            outbound_policy: self.policy,
        }
    }
}
