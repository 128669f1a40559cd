//! NetworkPolicies name the ports of applications; between sidecars there is one port for all.

use mesh_lite_proto::{
    kubernetes::CONTROL_PLANE_SERVICE,
    sidecar::{CONTROL_PLANE_PORT, TUNNEL_PORT},
};
use serde_json::{Value, json};

use super::{
    Finding, list, name,
    objects::{Kind, Objects},
    subject,
};

const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn findings(objects: &Objects, namespace: &str, mesh: &str) -> Vec<Finding> {
    let policies = objects.of(Kind::NetworkPolicies).iter();
    policies
        .filter_map(|policy| finding(policy, namespace, mesh))
        .collect()
}

/// All that has to be added to one policy, as one patch.
fn finding(policy: &Value, namespace: &str, mesh: &str) -> Option<Finding> {
    let mut patch = Vec::new();
    let mut what = Vec::new();
    if has_type(policy, "Ingress") {
        let rules = add_tunnel_port(policy, "ingress");
        if !rules.is_empty() {
            what.push(format!(
                "lets no sidecar in: port {TUNNEL_PORT} is not among its ingress ports"
            ));
        }
        patch.extend(rules);
    }
    if has_type(policy, "Egress") {
        let rules = add_tunnel_port(policy, "egress");
        if !rules.is_empty() {
            what.push(format!(
                "lets no sidecar out: port {TUNNEL_PORT} is not among its egress ports"
            ));
        }
        patch.extend(rules);
        if !lets_out_to_control_plane(policy, mesh) {
            what.push(format!(
                "keeps sidecars from the control plane ({CONTROL_PLANE_SERVICE}.{mesh}, port {CONTROL_PLANE_PORT}): the pods would not start"
            ));
            patch.push(add_control_plane(policy, mesh));
        }
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
fn add_tunnel_port(policy: &Value, direction: &str) -> Vec<Value> {
    let rules = list(policy, &format!("/spec/{direction}"))
        .iter()
        .enumerate();
    let lacking = rules.filter(|(_, rule)| !allows_port(rule, TUNNEL_PORT));
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

fn add_control_plane(policy: &Value, mesh: &str) -> Value {
    let rule = json!({
        "ports": [{"port": CONTROL_PLANE_PORT, "protocol": "TCP"}],
        "to": [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME_LABEL: mesh}}}],
    });
    // to an absent list nothing can be appended
    match policy.pointer("/spec/egress").is_some_and(Value::is_array) {
        true => json!({"op": "add", "path": "/spec/egress/-", "value": rule}),
        false => json!({"op": "add", "path": "/spec/egress", "value": [rule]}),
    }
}
