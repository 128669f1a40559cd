//! Whether sidecars reach each other, DNS and the control plane.

use super::*;

#[test]
fn a_network_policy_without_our_port_gets_a_patch_that_adds_it() {
    let policy =
        |spec: Value| json!([{"metadata": {"name": "np", "namespace": "shop"}, "spec": spec}]);
    let findings = namespace_with(
        Kind::NetworkPolicies,
        policy(json!({
            "podSelector": {}, "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": 8080}]}, {"from": [{"podSelector": {}}]}, {"ports": [{"port": "http"}]}],
        })),
    );
    finds(
        &findings,
        Severity::Problem,
        "port 15008 is not among its ingress ports",
    );
    let next = &findings[0].next;
    let patch = next.split_once("-p '").unwrap().1.trim_end_matches('\'');
    let patch: Value = serde_json::from_str(patch).unwrap();
    let paths: Vec<&str> = patch
        .as_array()
        .unwrap()
        .iter()
        .map(|step| step["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        paths,
        ["/spec/ingress/0/ports/-", "/spec/ingress/2/ports/-"]
    );
    for spec in [
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": 15000, "endPort": 15010}]}]}),
        json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "TCP"}]}]}),
        json!({"podSelector": {}, "ingress": [{}]}),
        json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
    ] {
        let findings = namespace_with(Kind::NetworkPolicies, policy(spec));
        assert!(findings.is_empty(), "{}", said(&findings));
    }
    let udp =
        json!({"podSelector": {}, "ingress": [{"ports": [{"port": 15008, "protocol": "UDP"}]}]});
    finds(
        &namespace_with(Kind::NetworkPolicies, policy(udp)),
        Severity::Problem,
        "15008",
    );
}

#[test]
fn egress_that_keeps_sidecars_from_the_control_plane_is_a_problem() {
    let policy =
        |spec: Value| json!([{"metadata": {"name": "np", "namespace": "shop"}, "spec": spec}]);
    for spec in [
        json!({"policyTypes": ["Egress"]}),
        json!({"policyTypes": ["Egress"], "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}),
        json!({"egress": [{"to": [{"podSelector": {}}]}]}),
        json!({"egress": [{"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}]}),
    ] {
        let findings = namespace_with(Kind::NetworkPolicies, policy(spec));
        finds(
            &findings,
            Severity::Problem,
            "keeps sidecars from the control plane",
        );
    }
    let fine = json!({"egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mesh-lite-system"}}}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}]});
    let findings = namespace_with(Kind::NetworkPolicies, policy(fine));
    assert!(findings.is_empty(), "{}", said(&findings));
}

/// The policies as they are after every patch that was printed.
fn patched(policies: &Value, findings: &[Finding]) -> Value {
    let mut patched = policies.clone();
    for finding in findings {
        let name = finding.subject.rsplit('/').next().unwrap();
        let steps = finding.next.split_once("-p '").unwrap().1;
        let steps: json_patch::Patch = serde_json::from_str(steps.trim_end_matches('\'')).unwrap();
        let mut all = patched.as_array_mut().unwrap().iter_mut();
        let policy = all.find(|policy| policy["metadata"]["name"] == name);
        json_patch::patch(policy.unwrap(), &steps).unwrap();
    }
    patched
}

#[test]
fn what_check_prints_satisfies_check_and_opens_dns_and_the_control_plane() {
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}], "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]});
    for spec in [
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": []}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": null}),
        json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [dns]}),
        json!({"podSelector": {"matchLabels": {"a": "b"}}, "egress": [{"ports": [{"port": 5432}], "to": [{"podSelector": {}}]}]}),
        json!({"podSelector": {}, "egress": [{"ports": [{"port": 443}], "to": [{"ipBlock": {"cidr": "1.2.3.0/24"}}]}, dns]}),
        json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": [{"port": 8080}]}], "egress": [{"ports": [{"port": 8080}]}]}),
    ] {
        let policies = json!([{"metadata": {"name": "np", "namespace": "shop"}, "spec": spec}]);
        let findings = namespace_with(Kind::NetworkPolicies, policies.clone());
        finds(&findings, Severity::Problem, "NetworkPolicy shop/np");
        let after = patched(&policies, &findings);
        let again = namespace_with(Kind::NetworkPolicies, after.clone());
        assert!(again.is_empty(), "{after}\n{}", said(&again));
        let opened = after.to_string();
        assert!(
            opened.contains("15012") && opened.contains("53"),
            "{opened}"
        );
    }
}

#[test]
fn what_another_policy_for_the_same_pods_lets_out_needs_no_patch() {
    let policy = |name: &str, selector: Value, egress: Value| {
        json!({"metadata": {"name": name, "namespace": "shop"},
            "spec": {"podSelector": selector, "policyTypes": ["Egress"], "egress": egress}})
    };
    let open = json!([
        {"ports": [{"port": 53, "protocol": "UDP"}]},
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mesh-lite-system"}}}]},
    ]);
    let deny_all = policy("deny-all", json!({}), json!([]));
    let both = json!([deny_all, policy("open", json!({}), open.clone())]);
    let findings = namespace_with(Kind::NetworkPolicies, both);
    assert!(findings.is_empty(), "{}", said(&findings));
    let some = policy("open", json!({"matchLabels": {"app": "api"}}), open);
    let findings = namespace_with(Kind::NetworkPolicies, json!([deny_all, some]));
    finds(&findings, Severity::Problem, "NetworkPolicy shop/deny-all");
}

#[test]
fn a_way_out_without_dns_is_a_problem() {
    let policy = json!([{"metadata": {"name": "np", "namespace": "shop"}, "spec": {"egress": [
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mesh-lite-system"}}}]},
        {"ports": [{"port": 53, "protocol": "TCP"}]},
    ]}}]);
    let findings = namespace_with(Kind::NetworkPolicies, policy);
    finds(&findings, Severity::Problem, "keeps sidecars from DNS");
}
