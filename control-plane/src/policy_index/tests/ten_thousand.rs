//! Many documents: a workload gets what concerns it, and what did not change is shared.

use super::*;

fn of_app(app: usize) -> String {
    format!("{{selector: {{matchLabels: {{app: a{app}}}}}, rules: [{{}}]}}")
}

/// One policy for each application of each namespace, as many of these as of those, and one that
/// is in force everywhere.
fn square(side: usize) -> PolicyIndex {
    let mut index = index(ShippedDefaults::STRICT);
    for namespace in 0..side {
        for app in 0..side {
            let name = format!("n{namespace}/p{app}");
            index.upsert(&policy(&name, &of_app(app)));
        }
    }
    index.upsert(&policy("mesh-lite-system/everywhere", "{rules: [{}]}"));
    index
}

#[test]
fn of_ten_thousand_policies_a_workload_gets_its_own_and_the_meshs() {
    let index = square(100);
    for namespace in 0..100 {
        for app in [0, 9, 10, 99] {
            let found = snapshot_of(&index, &format!("n{namespace}"), &format!("a{app}"));
            let own = format!("n{namespace}/p{app}");
            assert_eq!(
                sources(&found),
                ["mesh-lite-system/everywhere", own.as_str()]
            );
        }
    }
    // n1 is a prefix of n10 to n19, and of nothing that it gets
    assert_eq!(
        sources(&snapshot_of(&index, "n", "a1")),
        ["mesh-lite-system/everywhere"]
    );
}

#[test]
fn the_meshs_own_workloads_get_each_of_its_policies_once() {
    let index = square(3);
    assert_eq!(
        sources(&snapshot_of(&index, MESH, "api")),
        ["mesh-lite-system/everywhere"]
    );
}

#[test]
fn every_kind_of_document_is_found_by_namespace_and_never_for_another() {
    let mut index = index(ShippedDefaults::STRICT);
    index.upsert(&raw(
        "PeerAuthentication",
        "shop/p",
        "{mtls: {mode: PERMISSIVE}}",
    ));
    index.upsert(&policy("shop/default", "{defaultAction: ALLOW}"));
    index.upsert(&policy("pay/broken", "{rules: 7}"));
    let shop = snapshot(&index, "shop");
    assert_eq!(shop.mutual_tls.mode(80), MutualTlsMode::Permissive);
    assert_eq!(judge(&shop, WEB).step, Step::DefaultAction);
    assert!(judge(&shop, WEB).is_allowed());
    let pay = snapshot(&index, "pay");
    assert_eq!(pay.mutual_tls.mode(80), MutualTlsMode::Strict);
    assert_eq!(judge(&pay, WEB).step, Step::BrokenDocument);
    let other = snapshot(&index, "sho");
    assert_eq!(other.mutual_tls.mode(80), MutualTlsMode::Strict);
    assert!(other.broken.is_empty());
}

fn shared(one: &PolicySnapshot, other: &PolicySnapshot) -> Vec<bool> {
    let pairs = one.policies.iter().zip(other.policies.iter());
    pairs.map(|(one, other)| Arc::ptr_eq(one, other)).collect()
}

#[test]
fn snapshots_share_their_policies_and_go_on_sharing_what_did_not_change() {
    let mut index = index(ShippedDefaults::STRICT);
    let documents = [
        policy("shop/a", "{rules: [{}]}"),
        policy(
            "shop/b",
            "{rules: [{to: [{operation: {ports: [\"80\"]}}]}]}",
        ),
    ];
    for document in &documents {
        index.upsert(document);
    }
    let before = snapshot_of(&index, "shop", "web");
    assert_eq!(shared(&before, &snapshot(&index, "shop")), [true, true]);
    index.upsert(&documents[0]);
    index.upsert(&policy(
        "shop/b",
        "{rules: [{to: [{operation: {ports: [\"81\"]}}]}]}",
    ));
    let after = snapshot_of(&index, "shop", "web");
    assert_eq!(shared(&before, &after), [true, false]);
    assert_ne!(before, after);
    index.upsert(&policy("shop/b", "{rules: 7}"));
    assert_eq!(
        shared(&after, &snapshot(&index, "shop")),
        [true, true],
        "last good"
    );
}

#[test]
fn the_bound_counts_every_byte_that_is_sent() {
    let index = square(10);
    let snapshot = snapshot_of(&index, "n7", "a7");
    let sizes: usize = snapshot
        .policies
        .iter()
        .map(|policy| policy.wire_size())
        .sum();
    let without = PolicySnapshot {
        policies: Policies::default(),
        ..snapshot.clone()
    };
    assert_eq!(without.wire_size() + sizes, snapshot.wire_size());
}

#[test]
fn of_many_documents_of_one_namespace_a_workload_gets_those_whose_labels_it_has() {
    let mut index = index(ShippedDefaults::STRICT);
    for n in 0..10_000 {
        index.upsert(&policy(&format!("shop/p{n:05}"), &of_app(n)));
    }
    let two = "{selector: {matchLabels: {app: a7, tier: front}}, rules: [{}]}";
    index.upsert(&policy("shop/two-labels", two));
    index.upsert(&policy("shop/everybody", "{rules: [{}]}"));
    let of = |labels: &[(&str, &str)]| {
        let labels = labels.iter();
        let labels = labels.map(|(label, value)| ((*label).to_owned(), (*value).to_owned()));
        let labels = labels.collect();
        let selected = Selected {
            namespace: "shop",
            labels: &labels,
        };
        let snapshot = index.snapshot_for(selected, SystemTime::UNIX_EPOCH);
        sources(&snapshot).join(" ")
    };
    assert_eq!(of(&[("app", "a7")]), "shop/everybody shop/p00007");
    assert_eq!(
        of(&[("app", "a7"), ("tier", "front"), ("x", "y")]),
        "shop/everybody shop/p00007 shop/two-labels"
    );
    assert_eq!(of(&[("tier", "front")]), "shop/everybody");
    // nothing is left behind where a selector changes
    index.upsert(&policy("shop/p00007", &of_app(8)));
    index.remove(&policy("shop/everybody", "{}").key);
    let labels = labels("a7");
    let selected = Selected {
        namespace: "shop",
        labels: &labels,
    };
    let found = index.covering(selected);
    assert!(found.is_empty(), "{}", found.len());
    assert_eq!(
        sources(&snapshot_of(&index, "shop", "a8")),
        ["shop/p00007", "shop/p00008"]
    );
}
