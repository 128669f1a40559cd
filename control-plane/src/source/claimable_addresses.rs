//! Which addresses a document may claim. A claim redirects everybody who dials the address, so
//! a namespace may not claim the world outside, nor a machine's own metadata service.

use std::net::IpAddr;

use mesh_lite_proto::workload_directory::MeshSettings;

use crate::outbound_rules::OutboundRules;

/// As the operator set it; fixed for the life of the process.
#[derive(Debug, Clone)]
pub(crate) struct ClaimableAddresses {
    /// Documents in it may claim every address.
    mesh_namespace: String,
    networks: MeshSettings,
}

impl ClaimableAddresses {
    pub(crate) fn new(mesh_namespace: &str, outbound: &OutboundRules) -> Self {
        Self {
            mesh_namespace: mesh_namespace.to_owned(),
            networks: outbound.settings_for(mesh_namespace),
        }
    }

    /// Why a document of this namespace may not claim the address, and what to do.
    pub(super) fn objection(&self, namespace: &str, address: IpAddr) -> Option<(String, String)> {
        if namespace == self.mesh_namespace {
            return None;
        }
        let address = address.to_canonical();
        let networks = &self.networks;
        let (problem, or) = if is_link_local(address) {
            let problem = "is link-local: machines' own services answer there";
            (problem, "")
        } else if networks.is_inside(address) {
            return None;
        } else if networks
            .external_cidrs
            .iter()
            .any(|cidr| cidr.contains(&address))
        {
            let problem = "is outside of the mesh, as --external-cidrs says";
            (problem, "take it out of --external-cidrs, ")
        } else if networks.mesh_cidrs.is_empty() {
            let problem = "is no private address, and no --mesh-cidrs say that it is the mesh's";
            (problem, "state the mesh's networks with --mesh-cidrs, ")
        } else {
            let problem = "is in none of the --mesh-cidrs";
            (problem, "add its network to --mesh-cidrs, ")
        };
        let mesh = &self.mesh_namespace;
        Some((
            format!("{address} {problem}"),
            format!(
                "name another address, {or}or let who runs the mesh put the document into \
                 namespace {mesh}"
            ),
        ))
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
