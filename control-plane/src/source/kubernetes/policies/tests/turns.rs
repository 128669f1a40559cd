//! What changed is read in turn of namespaces, and what is not read yet stays as it was.

use kube::api::DynamicObject;

use super::*;
use crate::source::kubernetes::policy_object::policy_object;

/// No time at all: the first of each namespace is read, and nothing else.
const NO_TIME: Duration = Duration::ZERO;

struct Objects {
    policies: Policies,
    index: PolicyIndex,
}

impl Objects {
    fn none() -> Self {
        let index = PolicyIndex::new(
            trust_domain(),
            "mesh-lite-system",
            ShippedDefaults::PERMISSIVE,
        );
        Self {
            policies: Policies::default(),
            index,
        }
    }

    fn put(&mut self, kind: WatchedKind, name: &str, uid: &str, spec: Value) {
        let (namespace, name) = name.split_once('/').unwrap();
        let object = json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid}, "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let name = ObjectName::of(&object.metadata);
        let kind_of_document = kind.document().unwrap();
        let policy = policy_object(kind_of_document, object).unwrap();
        self.policies.put(kind, name, policy);
    }

    fn policy(&mut self, name: &str, spec: Value) {
        self.put(WatchedKind::AuthorizationPolicy, name, "u", spec);
    }

    fn remove(&mut self, kind: WatchedKind, name: &str) {
        let (namespace, name) = name.split_once('/').unwrap();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.policies.remove(kind, ObjectName { namespace, name });
    }

    fn publish(&mut self, portion: Portion, time: Duration) {
        let dialect = Dialect::default();
        self.policies
            .publish(portion, time, &dialect, &mut self.index);
    }

    fn snapshot(&self, namespace: &str) -> PolicySnapshot {
        let labels = BTreeMap::new();
        let selected = Selected {
            namespace,
            labels: &labels,
        };
        self.index.snapshot_for(selected, crate::clock::now())
    }

    fn in_force(&self, namespace: &str) -> Vec<String> {
        let policies = self.snapshot(namespace).policies;
        policies
            .iter()
            .map(|policy| policy.source.document.to_string())
            .collect()
    }
}

fn everybody() -> Value {
    json!({"rules": [{}]})
}

fn eviction(namespace: &str, n: usize) -> Value {
    json!({"spiffeId": format!("spiffe://mesh.test/ns/{namespace}/sa/web{n}")})
}

#[test]
fn a_namespace_with_many_changes_delays_itself_and_nobody_else() {
    let mut objects = Objects::none();
    for n in 0..20 {
        objects.policy(&format!("evil/p{n:02}"), everybody());
        let name = format!("evil/e{n:02}");
        objects.put(WatchedKind::Eviction, &name, "u", eviction("evil", n));
    }
    objects.policy("shop/p", everybody());
    objects.put(WatchedKind::Eviction, "shop/e", "u", eviction("shop", 0));
    objects.publish(Portion::InTurn, NO_TIME);
    assert_eq!(objects.in_force("shop"), ["shop/p"]);
    assert_eq!(objects.in_force("evil"), ["evil/p00"]);
    let evicted: Vec<String> = objects
        .index
        .evictions()
        .map(|it| it.source.document.to_string())
        .collect();
    assert_eq!(evicted, ["evil/e00", "shop/e"]);
    // the rest comes one after the other, in as many publications
    for _ in 0..19 {
        assert!(objects.policies.has_unread(Portion::InTurn));
        objects.publish(Portion::InTurn, NO_TIME);
    }
    assert!(!objects.policies.has_unread(Portion::InTurn));
    assert_eq!(objects.in_force("evil").len(), 20);
    assert_eq!(objects.policies.verdicts().len(), 42);
}

#[test]
fn evictions_alone_are_read_without_any_policy() {
    let mut objects = Objects::none();
    objects.policy("shop/p", everybody());
    objects.put(WatchedKind::Eviction, "shop/e", "u", eviction("shop", 0));
    assert!(objects.policies.has_unread(Portion::Evictions));
    objects.publish(Portion::Evictions, Duration::MAX);
    assert_eq!(objects.index.evictions().count(), 1);
    assert_eq!(objects.in_force("shop"), Vec::<String>::new());
    assert!(!objects.policies.has_unread(Portion::Evictions));
    assert!(objects.policies.has_unread(Portion::InTurn));
}

#[test]
fn what_is_not_read_yet_stays_as_it_was() {
    let mut objects = Objects::none();
    for name in ["shop/a", "shop/b", "shop/c", "shop/d"] {
        objects.policy(name, everybody());
    }
    objects.publish(Portion::Everything, NO_TIME);
    assert_eq!(objects.in_force("shop").len(), 4);
    objects.policy("shop/a", json!({"action": "DENY", "rules": [{}]}));
    objects.policy("shop/b", json!({"rules": 7}));
    // made anew under its name: it has no last good version, and the one of before goes with it
    let kind = WatchedKind::AuthorizationPolicy;
    objects.put(kind, "shop/c", "another", json!({"rules": 7}));
    objects.remove(kind, "shop/d");
    objects.publish(Portion::InTurn, NO_TIME);
    assert_eq!(objects.in_force("shop"), ["shop/a", "shop/b", "shop/c"]);
    assert_eq!(objects.snapshot("shop").broken, []);
    objects.publish(Portion::InTurn, NO_TIME);
    assert_eq!(objects.in_force("shop"), ["shop/a", "shop/b", "shop/c"]);
    assert_eq!(objects.snapshot("shop").broken, [], "b has a last good one");
    objects.publish(Portion::InTurn, NO_TIME);
    assert_eq!(objects.in_force("shop"), ["shop/a", "shop/b"]);
    assert_eq!(objects.snapshot("shop").broken.len(), 1, "c was never good");
}

#[test]
fn the_removal_of_an_object_lifts_no_denial_of_another() {
    let large = "x".repeat(2 << 20);
    for never_good in [json!({"rules": 7}), json!({"rules": [], "x": large})] {
        let mut objects = Objects::none();
        objects.policy("shop/a", everybody());
        objects.policy("shop/b", never_good);
        objects.publish(Portion::Everything, NO_TIME);
        let denied = objects.snapshot("shop").broken;
        assert_eq!(denied.len(), 1);
        objects.remove(WatchedKind::AuthorizationPolicy, "shop/a");
        objects.publish(Portion::InTurn, NO_TIME);
        assert_eq!(objects.snapshot("shop").broken, denied);
        assert_eq!(objects.in_force("shop"), Vec::<String>::new());
    }
}

#[test]
fn an_eviction_that_found_no_room_is_judged_again_when_another_goes() {
    let mut objects = Objects::none();
    for n in 0..1001 {
        let name = format!("shop/e{n:04}");
        objects.put(WatchedKind::Eviction, &name, "u", eviction("shop", n));
    }
    objects.publish(Portion::Everything, NO_TIME);
    assert_eq!(objects.policies.problems().count(), 1);
    objects.remove(WatchedKind::Eviction, "shop/e0003");
    objects.publish(Portion::Evictions, NO_TIME);
    assert_eq!(objects.policies.problems().count(), 0);
    assert_eq!(objects.index.evictions().count(), 1000);
}
