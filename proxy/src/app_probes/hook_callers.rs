//! Who may have a hook run: the node of the pod, as far as can be told without asking anybody,
//! for a hook runs also while the control plane is away.

use std::{collections::BTreeSet, net::IpAddr, str::FromStr};

use super::default_gateways;

/// A node has one or two addresses, and a pod one or two default gateways.
const MAX_ADDRESSES: usize = 16;

/// Addresses of the node that the pod is on, with commas, as the downward API gives them
/// (`status.hostIPs`). Empty text is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses(BTreeSet<IpAddr>);

impl NodeAddresses {
    /// With the default gateways of this network namespace: from one of them the kubelet asks,
    /// where a bridge is between node and pods.
    #[must_use]
    pub fn with_default_gateways(mut self) -> Self {
        self.0.extend(default_gateways::read());
        self
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for NodeAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = match text.trim() {
            "" => Vec::new(),
            listed => listed.split(',').take(MAX_ADDRESSES + 1).collect(),
        };
        if parts.len() > MAX_ADDRESSES {
            return Err(format!(
                "more than {MAX_ADDRESSES} addresses: a node has one or two"
            ));
        }
        let parsed = parts.into_iter().map(|part| {
            let address = part.trim().parse::<IpAddr>();
            address
                .map(|address| address.to_canonical())
                .map_err(|_| format!("{part:?} is not an IP address, as in 192.168.1.10"))
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }
}
