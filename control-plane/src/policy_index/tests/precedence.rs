//! Of several documents, the narrowest counts; of two at one level, the stricter.

use super::*;

fn peer_authentication(name: &str, spec: &str) -> RawDocument {
    raw("PeerAuthentication", name, spec)
}

const OF_API: &str = "selector: {matchLabels: {app: api}}";

fn mode(index: &PolicyIndex, port: u16) -> MutualTlsMode {
    snapshot(index, "shop").mutual_tls.mode(port)
}

#[test]
fn mutual_tls_is_that_of_the_port_then_the_workload_then_the_namespace_then_the_mesh() {
    use MutualTlsMode::{Permissive, Strict};
    let mut index = index(ShippedDefaults::STRICT);
    assert_eq!(mode(&index, 80), Strict, "shipped");
    index.upsert(&peer_authentication(
        "mesh-lite-system/m",
        "{mtls: {mode: PERMISSIVE}}",
    ));
    assert_eq!(mode(&index, 80), Permissive, "mesh");
    index.upsert(&peer_authentication("shop/n", "{mtls: {mode: STRICT}}"));
    assert_eq!(mode(&index, 80), Strict, "namespace");
    let spec = format!("{{{OF_API}, mtls: {{mode: PERMISSIVE}}}}");
    index.upsert(&peer_authentication("shop/w", &spec));
    assert_eq!(mode(&index, 80), Permissive, "workload");
    let spec = format!("{{{OF_API}, portLevelMtls: {{80: {{mode: STRICT}}}}}}");
    index.upsert(&peer_authentication("shop/p", &spec));
    assert_eq!(
        (mode(&index, 80), mode(&index, 81)),
        (Strict, Permissive),
        "port"
    );
    assert_eq!(
        snapshot_of(&index, "shop", "web").mutual_tls.mode(80),
        Strict,
        "another workload"
    );
    assert_eq!(
        snapshot(&index, "pay").mutual_tls.mode(80),
        Permissive,
        "another namespace"
    );
}

#[test]
fn a_level_that_states_no_mode_leaves_it_to_the_next() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&peer_authentication("shop/n", "{mtls: {mode: STRICT}}"));
    index.upsert(&peer_authentication(
        "shop/w",
        &format!("{{{OF_API}, mtls: {{mode: UNSET}}}}"),
    ));
    assert_eq!(mode(&index, 80), MutualTlsMode::Strict);
}

#[test]
fn of_two_modes_at_one_level_the_stricter_counts_whatever_their_order() {
    for (first, second) in [
        ("PERMISSIVE", "STRICT"),
        ("STRICT", "PERMISSIVE"),
        ("STRICT", "DISABLE"),
    ] {
        let mut index = index(ShippedDefaults::PERMISSIVE);
        for (name, mode) in [("shop/a", first), ("shop/b", second)] {
            index.upsert(&peer_authentication(
                name,
                &format!("{{mtls: {{mode: {mode}}}}}"),
            ));
            let ports = format!("{{{OF_API}, portLevelMtls: {{80: {{mode: {mode}}}}}}}");
            index.upsert(&peer_authentication(&format!("{name}-ports"), &ports));
        }
        assert_eq!(mode(&index, 80), MutualTlsMode::Strict, "{first} {second}");
        assert_eq!(mode(&index, 81), MutualTlsMode::Strict, "{first} {second}");
    }
}

#[test]
fn disable_means_permissive() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&peer_authentication("shop/n", "{mtls: {mode: DISABLE}}"));
    assert_eq!(mode(&index, 80), MutualTlsMode::Permissive);
}

fn default_of(index: &PolicyIndex) -> (DefaultAction, String) {
    let (action, source) = snapshot(index, "shop").default_action.unwrap();
    (action, source.to_string())
}

#[test]
fn the_default_action_is_that_of_the_narrowest_scope_that_states_one() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&policy("mesh-lite-system/m", "{defaultAction: ALLOW}"));
    assert_eq!(
        default_of(&index),
        (
            DefaultAction::Allow,
            "mesh-lite-system/m (p.yaml:4)".to_owned()
        )
    );
    index.upsert(&policy("shop/n", "{defaultAction: DENY}"));
    assert_eq!(
        default_of(&index),
        (DefaultAction::Deny, "shop/n (p.yaml:4)".to_owned())
    );
    index.upsert(&policy(
        "shop/w",
        &format!("{{{OF_API}, defaultAction: ALLOW}}"),
    ));
    assert_eq!(
        default_of(&index),
        (DefaultAction::Allow, "shop/w (p.yaml:4)".to_owned())
    );
    let decision = judge(&snapshot(&index, "shop"), WEB);
    assert_eq!(
        (decision.step, decision.is_allowed()),
        (Step::DefaultAction, true)
    );
    assert!(!judge(&snapshot_of(&index, "shop", "web"), WEB).is_allowed());
    assert!(judge(&snapshot(&index, "pay"), WEB).is_allowed());
}

#[test]
fn two_default_actions_of_one_scope_deny() {
    for (first, second) in [("ALLOW", "ALLOW"), ("ALLOW", "DENY")] {
        let mut index = index(ShippedDefaults::PERMISSIVE);
        index.upsert(&policy("shop/a", &format!("{{defaultAction: {first}}}")));
        index.upsert(&policy("shop/b", &format!("{{defaultAction: {second}}}")));
        let (action, source) = default_of(&index);
        assert_eq!(action, DefaultAction::Deny);
        assert_eq!(
            source,
            "shop/a and shop/b, which contradict each other (p.yaml:4)"
        );
    }
}

#[test]
fn of_many_default_actions_of_one_scope_two_are_named() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    for n in 0..1000 {
        index.upsert(&policy(&format!("shop/p{n:03}"), "{defaultAction: ALLOW}"));
    }
    assert_eq!(
        default_of(&index),
        (
            DefaultAction::Deny,
            "shop/p000, shop/p001 and 998 more, which contradict each other (p.yaml:4)".to_owned()
        )
    );
}

#[test]
fn a_default_action_with_rules_decides_only_whom_no_rule_names() {
    let mut index = index(ShippedDefaults::STRICT);
    let guest = "{from: [{source: {serviceAccounts: [guest]}}]}";
    index.upsert(&policy(
        "shop/p",
        &format!("{{action: DENY, defaultAction: ALLOW, rules: [{guest}]}}"),
    ));
    let snapshot = snapshot(&index, "shop");
    assert_eq!(judge(&snapshot, GUEST).step, Step::DenyRule);
    assert_eq!(judge(&snapshot, WEB).step, Step::DefaultAction);
    assert!(judge(&snapshot, WEB).is_allowed());
}
