//! What is read of objects, as the API server writes them. What is missing is as if it were empty.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Parts<S, T> {
    pub(super) spec: S,
    pub(super) status: T,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) host_network: bool,
    pub(super) service_account_name: String,
    pub(super) node_name: Option<String>,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
    pub(super) hostname: String,
    pub(super) subdomain: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Container {
    pub(super) name: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: String,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: String,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Vec<PodIp>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Vec<String>,
    pub(super) ports: Vec<PortOfService>,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) session_affinity: String,
    pub(super) internal_traffic_policy: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PortOfService {
    pub(super) name: String,
    pub(super) protocol: String,
    pub(super) port: u16,
    pub(super) target_port: Value,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) address_type: String,
    pub(super) ports: Option<Vec<PortOfSlice>>,
    pub(super) endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct PortOfSlice {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
    pub(super) conditions: Option<EndpointConditions>,
    pub(super) node_name: Option<String>,
    pub(super) target_ref: Option<Target>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct EndpointConditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Target {
    pub(super) kind: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NodeSpec {
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct NodeStatus {
    pub(super) addresses: Vec<NodeAddress>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct NodeAddress {
    pub(super) address: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct ServiceCidrSpec {
    pub(super) cidrs: Vec<String>,
}
