//! Last good is kept per document; what has none denies in its scope.

use super::*;

const BROKEN: &str = "{rules: 7}";

fn broken_for(index: &PolicyIndex, namespace: &str, app: &str) -> bool {
    let snapshot = snapshot_of(index, namespace, app);
    let decision = judge(&snapshot, WEB);
    assert_eq!(
        decision.step == Step::BrokenDocument,
        !snapshot.broken.is_empty()
    );
    !snapshot.broken.is_empty()
}

fn effects(index: &PolicyIndex) -> Vec<Effect> {
    index.problems().map(|problem| problem.effect).collect()
}

#[test]
fn a_document_that_breaks_keeps_its_last_good_version() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&policy("shop/p", "{rules: [{}]}"));
    index.upsert(&policy("shop/p", BROKEN));
    assert!(judge(&snapshot(&index, "shop"), WEB).is_allowed());
    assert_eq!(effects(&index), [Effect::LastGood]);
    index.upsert(&policy("shop/p", "{dryRun: 7}"));
    assert!(
        judge(&snapshot(&index, "shop"), WEB).is_allowed(),
        "broken twice over"
    );
    index.upsert(&policy("shop/p", "{rules: []}"));
    assert!(!judge(&snapshot(&index, "shop"), WEB).is_allowed());
    assert_eq!(effects(&index), []);
}

#[test]
fn last_good_is_kept_per_document() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&policy("shop/good", "{rules: [{}]}"));
    index.upsert(&policy("shop/never-good", BROKEN));
    assert!(
        broken_for(&index, "shop", "api"),
        "one good document does not speak for another"
    );
    index.remove(&policy("shop/never-good", BROKEN).key);
    assert!(!broken_for(&index, "shop", "api"));
}

#[test]
fn a_document_that_was_never_good_denies_in_its_namespace() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&policy("shop/p", BROKEN));
    assert!(broken_for(&index, "shop", "api"));
    assert!(broken_for(&index, "shop", "web"));
    assert!(!broken_for(&index, "pay", "api"));
    assert_eq!(effects(&index), [Effect::Denies]);
    let problem = index.problems().next().unwrap();
    assert_eq!(problem.source.to_string(), "shop/p (p.yaml:1)");
    assert!(
        problem
            .errors
            .to_string()
            .starts_with("p.yaml:4:15: spec.rules is a list")
    );
}

#[test]
fn a_document_whose_selector_can_be_read_denies_for_those_workloads_only() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&policy(
        "shop/p",
        "{selector: {matchLabels: {app: api}}, rules: 7}",
    ));
    assert!(broken_for(&index, "shop", "api"));
    assert!(!broken_for(&index, "shop", "web"));
    index.upsert(&policy("shop/p", "{selector: 7, rules: 7}"));
    assert!(
        broken_for(&index, "shop", "web"),
        "the selector is lost, and so is its limit"
    );
}

#[test]
fn a_broken_document_of_the_mesh_namespace_denies_everywhere() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&policy("mesh-lite-system/p", BROKEN));
    assert!(broken_for(&index, "shop", "api"));
    assert!(broken_for(&index, "pay", "web"));
}

#[test]
fn a_broken_peer_authentication_denies_too() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw(
        "PeerAuthentication",
        "shop/p",
        "{mtls: {mode: strict}}",
    ));
    assert!(broken_for(&index, "shop", "api"));
    assert!(!broken_for(&index, "pay", "api"));
}

#[test]
fn a_policy_that_fails_its_tests_is_broken() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let test = "{from: cluster.local/ns/shop/sa/web, port: 8080, expect: DENY}";
    index.upsert(&policy(
        "shop/p",
        &format!("{{rules: [{{}}], tests: [{test}]}}"),
    ));
    assert!(broken_for(&index, "shop", "api"));
}

#[test]
fn a_broken_eviction_evicts_for_good_whom_it_names() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw(
        "Eviction",
        "shop/e",
        &format!("{{spiffeId: \"{GUEST}\", until: soon}}"),
    ));
    assert!(!broken_for(&index, "shop", "api"));
    let guest = GUEST.parse().unwrap();
    let in_a_century = SystemTime::UNIX_EPOCH + Duration::from_secs(150 * 365 * 86_400);
    assert!(index.evicted(&guest, None, in_a_century).is_some());
    assert_eq!(snapshot(&index, "shop").evictions.len(), 1);
    assert_eq!(effects(&index), [Effect::Denies]);
}

#[test]
fn a_broken_eviction_that_names_nobody_denies_in_its_scope() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw("Eviction", "pay/e", "{spiffeID: x}"));
    assert!(broken_for(&index, "pay", "api"));
    assert!(!broken_for(&index, "shop", "api"));
    index.upsert(&raw("Eviction", "mesh-lite-system/e", "{spiffeID: x}"));
    assert!(broken_for(&index, "shop", "api"));
}

#[test]
fn an_eviction_that_breaks_stays_in_force_as_it_was() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let good = format!("{{spiffeId: \"{GUEST}\"}}");
    index.upsert(&raw("Eviction", "shop/e", &good));
    index.upsert(&raw("Eviction", "shop/e", "{spiffeID: x}"));
    assert!(!broken_for(&index, "shop", "api"));
    let guest = GUEST.parse().unwrap();
    assert!(
        index
            .evicted(&guest, None, SystemTime::UNIX_EPOCH)
            .is_some()
    );
}

#[test]
fn of_a_reason_all_that_is_sent_is_its_beginning() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let fields: Vec<String> = (0..60)
        .map(|n| format!("{}{n}: 1", "é".repeat(40)))
        .collect();
    index.upsert(&policy("shop/p", &format!("{{{}}}", fields.join(", "))));
    let (one, other) = (
        snapshot_of(&index, "shop", "api"),
        snapshot_of(&index, "shop", "web"),
    );
    let (one, other) = (&one.broken[0].reason, &other.broken[0].reason);
    assert!(one.len() <= 1024 && one.ends_with('…'), "{one}");
    assert!(
        one.starts_with("p.yaml:4:8: unknown field")
            || one.starts_with("p.yaml:4:") && one.contains("unknown field"),
        "{one}"
    );
    assert!(Arc::ptr_eq(one, other), "it is made once");
}
