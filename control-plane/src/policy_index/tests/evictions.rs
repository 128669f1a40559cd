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
