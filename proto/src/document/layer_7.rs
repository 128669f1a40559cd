//! Fields of Istio's documents that look into requests or are written otherwise here, and what to do
//! instead.

use super::{Entry, Node, Value};

/// What to do about a field, if it is one of layer 7.
pub(super) fn remedy(field: &Entry) -> Option<String> {
    let remedy = match field.key.as_str() {
        "requestPrincipals" | "notRequestPrincipals" => {
            "remove it; tokens of end users are the application's to judge"
        }
        "remoteIpBlocks" | "notRemoteIpBlocks" => {
            "remove it; ipBlocks are about the address that connects"
        }
        "hosts" | "notHosts" | "methods" | "notMethods" | "paths" | "notPaths" => {
            "remove it, or decide on requests in the application"
        }
        "when" => return Some(instead_of_when(&field.value)),
        "provider" => "remove it; external authorizers judge requests",
        "targetRef" | "targetRefs" => "use selector; gateways and waypoints have no part here",
        _ => return None,
    };
    Some(remedy.to_owned())
}

/// Whether it is a `when` that asks about connections and about nothing else.
pub(super) fn is_of_connections(field: &Entry) -> bool {
    let Value::List(conditions) = &field.value.value else {
        return false;
    };
    let of_connection = |condition: &Node| {
        let key = condition.text("key");
        key.is_some_and(|key| OF_CONNECTIONS.contains(&key))
    };
    field.key == "when" && !conditions.is_empty() && conditions.iter().all(of_connection)
}

const OF_CONNECTIONS: [&str; 7] = [
    "source.ip",
    "source.principal",
    "source.namespace",
    "source.serviceAccount",
    "destination.port",
    "destination.ip",
    "connection.sni",
];

/// Most conditions on connections can be written as fields, which say the same.
fn instead_of_when(conditions: &Node) -> String {
    // more would be a list to read, no hint
    const MAX_SHOWN: usize = 5;
    let Value::List(conditions) = &conditions.value else {
        return "remove it; principals, namespaces, ipBlocks and ports go into from and to"
            .to_owned();
    };
    let mut instead: Vec<String> = Vec::new();
    for condition in conditions {
        // each is compared with those before it
        if instead.len() >= MAX_SHOWN {
            break;
        }
        let key = condition.text("key").unwrap_or("a condition without key");
        for values in ["values", "notValues"] {
            let states = condition.entry(values).is_some();
            let line = states.then(|| instead_of_condition(key, values == "notValues"));
            instead.extend(line.filter(|line| !instead.contains(line)));
        }
    }
    if instead.is_empty() {
        return "remove it; principals, namespaces, ipBlocks and ports go into from and to"
            .to_owned();
    }
    instead.truncate(MAX_SHOWN);
    instead.join("; ")
}

fn instead_of_condition(key: &str, negated: bool) -> String {
    let (map, field, not_field) = match key {
        "source.ip" => ("source", "ipBlocks", "notIpBlocks"),
        "source.principal" => ("source", "principals", "notPrincipals"),
        "source.namespace" => ("source", "namespaces", "notNamespaces"),
        "source.serviceAccount" => ("source", "serviceAccounts", "notServiceAccounts"),
        "destination.port" => ("operation", "ports", "notPorts"),
        "destination.ip" => {
            return "select workloads by selector, not by destination.ip".to_owned();
        }
        "connection.sni" => {
            return "remove connection.sni; between sidecars callers are told apart by identity"
                .to_owned();
        }
        other => {
            let shown: String = other.chars().take(60).collect();
            return format!("remove {shown:?}, or decide on requests in the application");
        }
    };
    let field = if negated { not_field } else { field };
    let list = if map == "source" { "from" } else { "to" };
    let values = if negated { "notValues" } else { "values" };
    format!("write the {values} of {key} as {field} in each {map} of {list}")
}
