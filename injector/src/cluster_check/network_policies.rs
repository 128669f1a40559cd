//! NetworkPolicies name the ports of applications; between sidecars there is one port for all.

use mesh_lite_proto::{
    kubernetes::CONTROL_PLANE_SERVICE,
    sidecar::{CONTROL_PLANE_PORT, TUNNEL_PORT},
};
use serde_json::{Value, json};

use super::{
    Finding, list, name, number,
    objects::{Kind, Objects},
    subject, text,
};

/// Sidecars find the control plane by its name.
const DNS_PORT: u16 = 53;
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn findings(objects: &Objects, namespace: &str, mesh: &str) -> Vec<Finding> {
    let policies = objects.of(Kind::NetworkPolicies);
    policies
        .iter()
        .filter_map(|policy| finding(policy, &besides(policy, policies), namespace, mesh))
        .collect()
}

/// The policies that surely are about the same pods, the policy itself too: what one of them lets
/// out, gets out.
fn besides<'a>(policy: &Value, policies: &'a [Value]) -> Vec<&'a Value> {
    let everybody = json!({});
    let selector = |policy: &Value| policy.pointer("/spec/podSelector").cloned();
    let own = selector(policy).unwrap_or_else(|| everybody.clone());
    policies
        .iter()
        .filter(|other| {
            let selected = selector(other).unwrap_or_else(|| everybody.clone());
            has_type(other, "Egress") && (selected == everybody || selected == own)
        })
        .collect()
}

/// All that has to be added to one policy, as one patch.
fn finding(policy: &Value, besides: &[&Value], namespace: &str, mesh: &str) -> Option<Finding> {
    let mut patch = Vec::new();
    let mut what = Vec::new();
    if has_type(policy, "Ingress") {
        let rules = add_tunnel_port(policy, "ingress", |_| true);
        if !rules.is_empty() {
            what.push(format!(
                "lets no sidecar in: port {TUNNEL_PORT} is not among its ingress ports"
            ));
        }
        patch.extend(rules);
    }
    if has_type(policy, "Egress") {
        let rules = add_tunnel_port(policy, "egress", |rule| leads_to_sidecars(rule, mesh));
        if !rules.is_empty() {
            what.push(format!(
                "lets no sidecar out: port {TUNNEL_PORT} is not among its egress ports"
            ));
        }
        patch.extend(rules);
        let mut rules = Vec::new();
        if !besides
            .iter()
            .any(|policy| lets_out_to_control_plane(policy, mesh))
        {
            what.push(format!(
                "keeps sidecars from the control plane ({CONTROL_PLANE_SERVICE}.{mesh}, port {CONTROL_PLANE_PORT}): the pods would not start"
            ));
            rules.push(to_control_plane(mesh));
        }
        if !besides.iter().any(|policy| lets_out_to_dns(policy)) {
            what.push(format!(
                "keeps sidecars from DNS (port {DNS_PORT}): they could not find the control plane"
            ));
            rules.push(to_dns());
        }
        patch.extend(add_egress(policy, rules));
    }
    if patch.is_empty() {
        return None;
    }
    let patch = Value::from(patch);
    let next = format!(
        "kubectl -n {namespace} patch networkpolicy {} --type=json -p '{patch}'",
        name(policy)
    );
    Some(Finding::problem(
        subject("NetworkPolicy", policy),
        what.join("; "),
        next,
    ))
}

/// Without types, it is of ingress, and of egress if it has such rules.
fn has_type(policy: &Value, wanted: &str) -> bool {
    let types = list(policy, "/spec/policyTypes");
    if types.is_empty() {
        return wanted == "Ingress" || !list(policy, "/spec/egress").is_empty();
    }
    types.iter().any(|stated| stated == wanted)
}

/// A step for each rule that names ports, and not the tunnel's. Whom a rule lets through stays as
/// it is; a policy without rules lets nobody through, and means to.
fn add_tunnel_port(
    policy: &Value,
    direction: &str,
    concerns_us: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let rules = list(policy, &format!("/spec/{direction}"))
        .iter()
        .enumerate();
    let lacking = rules.filter(|(_, rule)| concerns_us(rule) && !allows_port(rule, TUNNEL_PORT));
    lacking
        .map(|(index, _)| {
            json!({
                "op": "add",
                "path": format!("/spec/{direction}/{index}/ports/-"),
                "value": {"port": TUNNEL_PORT, "protocol": "TCP"},
            })
        })
        .collect()
}

/// A rule without ports is for all of them; an entry without a port, for all of its protocol.
fn allows_port(rule: &Value, port: u16) -> bool {
    let ports = list(rule, "/ports");
    let port = u64::from(port);
    ports.is_empty()
        || ports.iter().any(|entry| {
            let protocol = entry
                .get("protocol")
                .and_then(Value::as_str)
                .unwrap_or("TCP");
            let last = entry.get("endPort").and_then(Value::as_u64);
            let allowed = match entry.get("port") {
                None | Some(Value::Null) => true,
                Some(first) => first
                    .as_u64()
                    .is_some_and(|first| (first..=last.unwrap_or(first)).contains(&port)),
            };
            protocol == "TCP" && allowed
        })
}

/// Only what surely does counts: a rule for every peer, or for the mesh's namespace by its name.
fn lets_out_to_control_plane(policy: &Value, mesh: &str) -> bool {
    let everybody = json!({});
    let by_name = json!({"matchLabels": {NAMESPACE_NAME_LABEL: mesh}});
    list(policy, "/spec/egress").iter().any(|rule| {
        let peers = list(rule, "/to");
        let reaches = |peer: &Value| {
            let namespaces = peer.get("namespaceSelector");
            peer.get("podSelector")
                .is_none_or(|pods| *pods == everybody)
                && namespaces.is_some_and(|said| *said == everybody || *said == by_name)
        };
        allows_port(rule, CONTROL_PLANE_PORT) && (peers.is_empty() || peers.iter().any(reaches))
    })
}

/// A rule for port 53 was written for DNS, wherever it leads; without ports, only one for every peer.
fn lets_out_to_dns(policy: &Value) -> bool {
    list(policy, "/spec/egress").iter().any(|rule| {
        let mut ports = list(rule, "/ports").iter();
        let is_dns = |entry: &Value| {
            text(entry, "/protocol") == "UDP"
                && (entry.get("port").is_none()
                    || number(entry, "/port") == u64::from(DNS_PORT)
                    || text(entry, "/port") == "dns")
        };
        let everybody = list(rule, "/to").is_empty()
            || list(rule, "/to")
                .iter()
                .any(|peer| *peer == json!({"namespaceSelector": {}}));
        ports.any(is_dns) || (list(rule, "/ports").is_empty() && everybody)
    })
}

/// Not those that lead only to DNS or to the mesh's own namespace: no sidecar is there.
fn leads_to_sidecars(rule: &Value, mesh: &str) -> bool {
    let by_name = json!({"matchLabels": {NAMESPACE_NAME_LABEL: mesh}});
    let peers = list(rule, "/to");
    let only_mesh = !peers.is_empty()
        && peers
            .iter()
            .all(|peer| peer.get("namespaceSelector") == Some(&by_name));
    let ports = list(rule, "/ports");
    let only_dns = !ports.is_empty()
        && ports.iter().all(|entry| {
            entry.get("endPort").is_none() && number(entry, "/port") == u64::from(DNS_PORT)
        });
    !only_mesh && !only_dns
}

fn to_control_plane(mesh: &str) -> Value {
    json!({
        "ports": [{"port": CONTROL_PLANE_PORT, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: mesh}}}],
    })
}

/// To any pod: where a cluster's DNS runs, its policies do not say.
fn to_dns() -> Value {
    json!({
        "ports": [{"port": DNS_PORT, "protocol": "UDP"}, {"port": DNS_PORT, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {}}],
    })
}

fn add_egress(policy: &Value, rules: Vec<Value>) -> Vec<Value> {
    if rules.is_empty() {
        return Vec::new();
    }
    // to an absent list nothing can be appended
    if !policy.pointer("/spec/egress").is_some_and(Value::is_array) {
        return vec![json!({"op": "add", "path": "/spec/egress", "value": rules})];
    }
    let step = |rule| json!({"op": "add", "path": "/spec/egress/-", "value": rule});
    rules.into_iter().map(step).collect()
}
