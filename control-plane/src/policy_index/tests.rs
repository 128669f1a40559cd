use std::time::Duration;

use mesh_lite_proto::{
    authorization::{Caller, Decision, Facts, Step, decide},
    document::{Documents, split},
};

use super::*;

mod broken_documents;
mod directory;
mod edits;
mod evictions;
mod precedence;
mod ten_thousand;
mod unreadable;

const MESH: &str = "mesh-lite-system";
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const GUEST: &str = "spiffe://cluster.local/ns/shop/sa/guest";

fn index(shipped: ShippedDefaults) -> PolicyIndex {
    PolicyIndex::new("cluster.local".parse().unwrap(), MESH, shipped)
}

fn text(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

fn raw(kind: &str, name: &str, spec: &str) -> RawDocument {
    split("p.yaml", text(kind, name, spec).as_bytes())
        .readable
        .remove(0)
}

fn policy(name: &str, spec: &str) -> RawDocument {
    raw("AuthorizationPolicy", name, spec)
}

fn labels(app: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

/// What is in force for the workload `api` of a namespace.
fn snapshot(index: &PolicyIndex, namespace: &str) -> PolicySnapshot {
    snapshot_of(index, namespace, "api")
}

fn snapshot_of(index: &PolicyIndex, namespace: &str, app: &str) -> PolicySnapshot {
    let selected = Selected {
        namespace,
        labels: &labels(app),
    };
    index.snapshot_for(selected, SystemTime::UNIX_EPOCH)
}

fn judge(snapshot: &PolicySnapshot, caller: &str) -> Decision {
    let id = caller.parse().unwrap();
    let source = "10.0.0.9".parse().unwrap();
    decide(
        snapshot,
        &Facts {
            caller: Caller::Authenticated(&id),
            source,
            port: 8080,
        },
    )
}

fn sources(snapshot: &PolicySnapshot) -> Vec<&str> {
    snapshot
        .policies
        .iter()
        .map(|policy| &*policy.source.document)
        .collect()
}

#[test]
fn a_policy_selects_by_namespace_and_labels_and_the_mesh_namespace_means_everywhere() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&policy("shop/all", "{rules: [{}]}"));
    index.upsert(&policy(
        "shop/api",
        "{selector: {matchLabels: {app: api}}, rules: [{}]}",
    ));
    index.upsert(&policy("pay/all", "{rules: [{}]}"));
    index.upsert(&policy("mesh-lite-system/everywhere", "{rules: [{}]}"));
    index.upsert(&policy(
        "mesh-lite-system/apis",
        "{selector: {matchLabels: {app: api}}}",
    ));
    for (namespace, app, expected) in [
        (
            "shop",
            "api",
            &[
                "mesh-lite-system/apis",
                "mesh-lite-system/everywhere",
                "shop/all",
                "shop/api",
            ][..],
        ),
        ("shop", "web", &["mesh-lite-system/everywhere", "shop/all"]),
        (
            "pay",
            "api",
            &[
                "mesh-lite-system/apis",
                "mesh-lite-system/everywhere",
                "pay/all",
            ],
        ),
        ("other", "web", &["mesh-lite-system/everywhere"]),
    ] {
        let found = snapshot_of(&index, namespace, app);
        let mut found = sources(&found);
        found.sort_unstable();
        assert_eq!(found, expected, "{namespace} {app}");
    }
}

#[test]
fn a_selector_of_two_labels_needs_both() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&policy(
        "shop/p",
        "{selector: {matchLabels: {app: api, tier: front}}, rules: [{}]}",
    ));
    assert!(snapshot(&index, "shop").policies.is_empty());
}

#[test]
fn a_removed_document_is_forgotten() {
    let mut index = index(ShippedDefaults::STRICT);
    let document = policy("shop/p", "{rules: [{}]}");
    index.upsert(&document);
    assert!(judge(&snapshot(&index, "shop"), WEB).is_allowed());
    index.remove(&document.key);
    assert!(!judge(&snapshot(&index, "shop"), WEB).is_allowed());
}

#[test]
fn documents_that_decide_nothing_are_passed_over() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&raw("Workload", "shop/w", "{anything: 7}"));
    assert_eq!(index.problems().count(), 0);
    assert_eq!(snapshot(&index, "shop").broken, []);
}

#[test]
fn the_shipped_defaults_hold_where_no_document_says_anything() {
    let strict = snapshot(&index(ShippedDefaults::STRICT), "shop");
    assert_eq!(strict.mutual_tls.mode(8080), MutualTlsMode::Strict);
    let decision = judge(&strict, WEB);
    assert_eq!(decision.step, Step::DefaultAction);
    assert_eq!(
        decision.reason(),
        "no rule matches; denied by default, as the shipped default (built in) says"
    );
    let permissive = snapshot(&index(ShippedDefaults::PERMISSIVE), "shop");
    assert_eq!(permissive.mutual_tls.mode(8080), MutualTlsMode::Permissive);
    assert_eq!(judge(&permissive, WEB).step, Step::MutualTlsMode);
    assert!(judge(&permissive, WEB).is_allowed());
}

#[test]
fn evictions_are_for_every_workload_and_forbid_to_issue() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&raw(
        "Eviction",
        "shop/e",
        &format!("{{spiffeId: \"{GUEST}\", until: 2030-01-01T00:00:00Z}}"),
    ));
    index.upsert(&raw("Eviction", "mesh-lite-system/s", "{serial: \"0a0b\"}"));
    assert_eq!(snapshot(&index, "pay").evictions.len(), 2);
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let (web, guest) = (WEB.parse().unwrap(), GUEST.parse().unwrap());
    let second = Duration::from_secs(1);
    assert!(index.evicted(&guest, None, until - second).is_some());
    assert!(index.evicted(&guest, None, until).is_none());
    assert!(index.evicted(&web, None, until - second).is_none());
    assert!(
        index
            .evicted(&web, Some(&"0A0B".parse().unwrap()), until)
            .is_some()
    );
    assert!(
        index
            .evicted(&web, Some(&"0A0C".parse().unwrap()), until)
            .is_none()
    );
}

/// Some 90 KB.
fn large_policy() -> String {
    let principals: Vec<String> = (0..400)
        .map(|n| format!("cluster.local/ns/{}/sa/{n}", "n".repeat(200)))
        .collect();
    format!(
        "{{rules: [{{from: [{{source: {{principals: [{}]}}}}]}}]}}",
        principals.join(", ")
    )
}

#[test]
fn policies_too_large_to_send_deny_instead_of_leaving_the_old_ones_in_force() {
    let mut index = index(ShippedDefaults::STRICT);
    let spec = large_policy();
    index.upsert(&policy("shop/everybody", "{rules: [{}]}"));
    for n in 0..7 {
        index.upsert(&policy(&format!("shop/p{n}"), &spec));
    }
    assert!(judge(&snapshot(&index, "shop"), WEB).is_allowed());
    for n in 7..15 {
        index.upsert(&policy(&format!("shop/p{n}"), &spec));
    }
    let snapshot = snapshot(&index, "shop");
    assert_eq!(judge(&snapshot, WEB).step, Step::BrokenDocument);
    assert!(
        snapshot.broken[0].reason.contains("can be sent"),
        "{:?}",
        snapshot.broken
    );
    assert!(snapshot.wire_size() < 2048);
}
