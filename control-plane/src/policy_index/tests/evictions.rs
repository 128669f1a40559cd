//! Who may evict whom, and that nobody's evictions crowd out another's.

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn evicts(index: &PolicyIndex, id: &str) -> bool {
    index.evicted(&id.parse().unwrap(), None, NOW).is_some()
}

fn of(id: &str) -> String {
    format!("{{spiffeId: \"{id}\"}}")
}

#[test]
fn a_namespace_evicts_nobody_but_its_own() {
    for id in [
        WEB,
        "spiffe://cluster.local/ns/mesh-lite-system/sa/mesh-lite-control-plane",
        "spiffe://other.test/ns/pay/sa/web",
        "spiffe://cluster.local/ns/pay",
        "spiffe://cluster.local/ns/pay/sa/web/more",
        "spiffe://cluster.local/x/ns/pay/sa/web",
        "spiffe://cluster.local/ns/pay2/sa/web",
    ] {
        let mut index = index(ShippedDefaults::PERMISSIVE);
        index.upsert(&raw("Eviction", "pay/e", &of(id)));
        assert!(!evicts(&index, id), "{id}");
        assert_eq!(snapshot(&index, "shop").evictions, []);
        assert_eq!(snapshot(&index, "shop").broken, []);
        let broken = snapshot(&index, "pay").broken;
        assert_eq!(broken.len(), 1, "it denies where it stands");
        let words = format!("p.yaml:4:18: namespace pay may not evict {id}; evict ");
        assert!(broken[0].reason.starts_with(&words), "{broken:?}");
    }
}

#[test]
fn a_namespace_evicts_its_own_and_the_mesh_namespace_everybody() {
    let foreign = "spiffe://other.test/x";
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw("Eviction", "shop/e", &of(WEB)));
    index.upsert(&raw("Eviction", "mesh-lite-system/guest", &of(GUEST)));
    index.upsert(&raw("Eviction", "mesh-lite-system/other", &of(foreign)));
    for id in [WEB, GUEST, foreign] {
        assert!(evicts(&index, id), "{id}");
    }
    assert_eq!(snapshot(&index, "pay").evictions.len(), 3);
}

#[test]
fn serials_are_evicted_from_the_mesh_namespace_only() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw("Eviction", "shop/s", "{serial: \"0a0b\"}"));
    let web = WEB.parse().unwrap();
    let serial = "0a0b".parse().unwrap();
    assert!(index.evicted(&web, Some(&serial), NOW).is_none());
    assert!(
        snapshot(&index, "shop").broken[0]
            .reason
            .contains("namespace shop may not evict serial")
    );
}

#[test]
fn a_broken_eviction_evicts_nobody_whom_a_whole_one_could_not() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let spec = format!("{{spiffeId: \"{WEB}\", until: soon}}");
    index.upsert(&raw("Eviction", "pay/e", &spec));
    assert!(!evicts(&index, WEB));
    let broken = snapshot(&index, "pay").broken;
    for part in ["spec.until", "may not evict"] {
        assert!(broken[0].reason.contains(part), "{broken:?}");
    }
}

#[test]
fn an_eviction_that_turns_to_somebody_elses_workload_stays_as_it_was() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.upsert(&raw("Eviction", "shop/e", &of(WEB)));
    let foreign = "spiffe://cluster.local/ns/pay/sa/web";
    index.upsert(&raw("Eviction", "shop/e", &of(foreign)));
    assert!(evicts(&index, WEB));
    assert!(!evicts(&index, foreign));
}

fn evict_many(index: &mut PolicyIndex, namespace: &str, count: usize, account: &str) {
    for n in 0..count {
        let id = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}{n}");
        index.upsert(&raw("Eviction", &format!("{namespace}/e{n}"), &of(&id)));
    }
}

fn evicted_of(snapshot: &PolicySnapshot, namespace: &str) -> usize {
    let document = format!("{namespace}/");
    snapshot
        .evictions
        .iter()
        .filter(|eviction| eviction.source.document.starts_with(&document))
        .count()
}

#[test]
fn policies_too_large_to_send_leave_the_evictions_in_force() {
    let mut index = index(ShippedDefaults::STRICT);
    for n in 0..12 {
        index.upsert(&policy(&format!("shop/p{n}"), &large_policy()));
    }
    index.upsert(&raw("Eviction", "shop/e", &of(GUEST)));
    let snapshot = snapshot(&index, "shop");
    assert_eq!(judge(&snapshot, WEB).step, Step::BrokenDocument);
    assert!(snapshot.broken[0].reason.contains("can be sent"));
    assert!(snapshot.policies.is_empty());
    assert_eq!(evicted_of(&snapshot, "shop"), 1);
}

#[test]
fn an_eviction_whose_time_is_over_is_not_sent() {
    let mut index = index(ShippedDefaults::STRICT);
    let spec = format!("{{spiffeId: \"{WEB}\", until: 2030-01-01T00:00:00Z}}");
    index.upsert(&raw("Eviction", "shop/e", &spec));
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
    let sent = |now| {
        let labels = labels("api");
        let selected = Selected {
            namespace: "shop",
            labels: &labels,
        };
        index.snapshot_for(selected, now).evictions.len()
    };
    assert_eq!((sent(until - Duration::from_secs(1)), sent(until)), (1, 0));
}

#[test]
fn a_namespace_with_too_many_evictions_is_denied_itself() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    evict_many(&mut index, "pay", 1001, "a");
    assert_eq!(index.evictions().count(), 1000);
    assert!(!evicts(&index, "spiffe://cluster.local/ns/pay/sa/a1000"));
    let broken = snapshot(&index, "pay").broken;
    assert!(
        broken[0]
            .reason
            .contains("namespace pay has more than 1000 evictions"),
        "{broken:?}"
    );
    assert_eq!(snapshot(&index, "shop").broken, []);
    // one less makes room
    index.remove(&raw("Eviction", "pay/e0", "{}").key);
    let id = "spiffe://cluster.local/ns/pay/sa/a1000";
    index.upsert(&raw("Eviction", "pay/e1000", &of(id)));
    assert!(evicts(&index, id));
    assert_eq!(snapshot(&index, "pay").broken, []);
}

fn of_files(range: std::ops::Range<usize>) -> Vec<(Arc<str>, Option<Arc<Documents>>)> {
    let files = range.map(|n| {
        let id = of(&format!("spiffe://cluster.local/ns/pay/sa/a{n}"));
        let document = text("Eviction", &format!("pay/e{n:05}"), &id);
        let file = format!("e{n:05}.yaml");
        let documents = split(&file, document.as_bytes());
        (Arc::from(file), Some(Arc::new(documents)))
    });
    files.collect()
}

#[test]
fn what_found_no_room_finds_it_when_another_eviction_goes_and_is_not_changed_itself() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.replace_files(of_files(0..1003));
    assert_eq!(
        (index.evictions().count(), index.problems().count()),
        (1000, 3)
    );
    let touched = index.replace_files([(Arc::from("e00007.yaml"), None)]);
    assert!(evicts(&index, "spiffe://cluster.local/ns/pay/sa/a1000"));
    assert!(!evicts(&index, "spiffe://cluster.local/ns/pay/sa/a7"));
    assert_eq!(
        (index.evictions().count(), index.problems().count()),
        (1000, 2)
    );
    assert!(touched.iter().any(|key| *key.name == *"e01000"));
    // of two that may come, the first by name, whichever was there before
    let changes = [(Arc::from("e00008.yaml"), None)];
    index.replace_files(changes.into_iter().chain(of_files(7..8)));
    assert!(evicts(&index, "spiffe://cluster.local/ns/pay/sa/a7"));
    assert_eq!(index.problems().count(), 2);
    let before = index.clone();
    index.replace_files((9..1003).map(|n| (Arc::from(format!("e{n:05}.yaml")), None)));
    assert_eq!(
        (index.evictions().count(), index.problems().count()),
        (8, 0)
    );
    assert_eq!(
        before.evictions().count(),
        1000,
        "who has the index of before sees nothing of it"
    );
}

#[test]
fn sixteen_thousand_evictions_of_one_namespace_are_no_work_for_anybody() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.replace_files(of_files(0..16_000));
    assert_eq!(
        (index.evictions().count(), index.problems().count()),
        (1000, 15_000)
    );
    assert_eq!(snapshot(&index, "shop").broken, []);
}

#[test]
fn evictions_of_one_namespace_neither_crowd_out_those_of_others_nor_their_policies() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    evict_many(&mut index, "attacker", 1000, &"a".repeat(1900));
    evict_many(&mut index, "pay", 500, "p");
    evict_many(&mut index, MESH, 500, "m");
    index.upsert(&policy("shop/p", "{rules: [{}]}"));
    let shop = snapshot(&index, "shop");
    assert_eq!(
        (evicted_of(&shop, "pay"), evicted_of(&shop, MESH)),
        (500, 500)
    );
    assert_eq!((shop.policies.len(), shop.broken.len()), (1, 0));
    assert!(shop.wire_size() <= MAX_SNAPSHOT, "{}", shop.wire_size());
    let attacker = snapshot(&index, "attacker");
    assert!(
        attacker.broken[0]
            .reason
            .contains("the evictions of namespace attacker are"),
        "{:?}",
        attacker.broken
    );
}

#[test]
fn evictions_of_the_mesh_that_do_not_fit_deny_everywhere() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    evict_many(&mut index, MESH, 1000, &"a".repeat(1900));
    assert_eq!(snapshot(&index, "shop").broken.len(), 1);
}
