//! Containers that can change the capture rules of their pod. They are injected like others, and
//! their author is told.

use serde_json::Value;

use crate::{injection_decision::Quoted, pod_shape};

/// As many as fit into a warning; the others are counted.
const MAX_NAMED: usize = 2;
/// Of a container's name, which may have 63 characters.
const MAX_NAME: usize = 24;

/// `pod` has nothing of ours yet.
pub(super) fn warning(pod: &Value) -> Option<String> {
    let names: Vec<&str> = pod_shape::CONTAINER_LISTS
        .into_iter()
        .filter_map(|list| pod.get("spec")?.get(list)?.as_array())
        .flatten()
        .filter(|container| can_change_rules(container))
        .filter_map(|container| container.get("name")?.as_str())
        .collect();
    let (first, more) = names.split_at(names.len().min(MAX_NAMED));
    if first.is_empty() {
        return None;
    }
    let mut named = String::new();
    for name in first {
        let separator = if named.is_empty() { "" } else { ", " };
        let short: String = name.chars().take(MAX_NAME).collect();
        named = format!("{named}{separator}{}", Quoted(&short));
    }
    if !more.is_empty() {
        named = format!("{named} and {} more", more.len());
    }
    Some(format!(
        "{named} can change the capture rules (privileged or NET_ADMIN): outbound traffic can avoid them; \
         STRICT workloads still refuse it. A NetworkPolicy is a boundary"
    ))
}

fn can_change_rules(container: &Value) -> bool {
    let Some(security) = container.get("securityContext") else {
        return false;
    };
    let is_privileged = security.get("privileged").and_then(Value::as_bool) == Some(true);
    let added = security
        .pointer("/capabilities/add")
        .and_then(Value::as_array);
    is_privileged
        || added
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(gives_net_admin)
}

/// Runtimes take names in any case, with and without the prefix, and ALL.
fn gives_net_admin(capability: &str) -> bool {
    let upper = capability.to_ascii_uppercase();
    matches!(
        upper.strip_prefix("CAP_").unwrap_or(&upper),
        "NET_ADMIN" | "ALL"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(list: &str, security: &Value) -> Value {
        json!({"spec": {list: [{"name": "plain"}, {"name": "vpn", "securityContext": security}]}})
    }

    #[test]
    fn who_can_change_the_rules_is_named() {
        for security in [
            json!({"privileged": true}),
            json!({"capabilities": {"add": ["CHOWN", "NET_ADMIN"]}}),
            json!({"capabilities": {"drop": ["ALL"], "add": ["cap_net_admin"]}}),
            json!({"capabilities": {"add": ["ALL"]}}),
        ] {
            for list in ["containers", "initContainers"] {
                let said = warning(&pod(list, &security)).unwrap();
                assert!(said.contains("vpn") && !said.contains("plain"), "{said}");
            }
        }
    }

    #[test]
    fn who_can_not_hears_nothing() {
        for security in [
            json!(null),
            json!({"privileged": false, "runAsUser": 0}),
            json!({"capabilities": {"add": ["NET_RAW"], "drop": ["ALL", "NET_ADMIN"]}}),
            json!({"privileged": "true", "capabilities": {"add": [7, null]}}),
        ] {
            assert_eq!(warning(&pod("containers", &security)), None, "{security}");
        }
    }

    #[test]
    fn long_names_leave_the_words_whole() {
        let container = json!({"name": "n".repeat(63), "securityContext": {"privileged": true}});
        let said = warning(&json!({"spec": {"containers": vec![container; 9]}})).unwrap();
        assert!(said.contains("and 7 more"), "{said}");
        let most = crate::injection_decision::MAX_WARNING - "mesh-lite: ".len();
        assert!(said.chars().count() <= most, "{}", said.len());
    }
}
