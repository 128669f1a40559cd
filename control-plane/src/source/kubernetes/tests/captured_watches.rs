//! Watches of a real API server, through kube's own parser.

use kube::api::WatchEvent;

use super::*;

const PODS: &str = include_str!("../captured/watch-pods.jsonl");
const SLICES: &str = include_str!("../captured/watch-endpointslices.jsonl");
const SERVICES: &str = include_str!("../captured/watch-services.jsonl");
const EXPIRED: &str = include_str!("../captured/watch-expired.jsonl");

fn events(lines: &str) -> Vec<WatchEvent<DynamicObject>> {
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

impl Stated {
    /// Answers whether the event said anything about objects.
    fn see(&mut self, kind: WatchedKind, event: WatchEvent<DynamicObject>) -> bool {
        let change = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let name = ObjectName::of(&object.metadata);
                match state::reader(kind)(object) {
                    Some(read) => Change::Put(name, read),
                    None => Change::Gone(name),
                }
            }
            WatchEvent::Deleted(object) => Change::Gone(ObjectName::of(&object.metadata)),
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return false,
        };
        self.state.take(kind, Seen::Change(change));
        true
    }
}

#[test]
fn the_life_of_a_pod_gives_its_address_an_identity_and_takes_it_away() {
    let mut cluster = Stated::with_networks();
    let mut seen = Vec::new();
    for event in events(PODS) {
        if cluster.see(WatchedKind::Pod, event) {
            seen.push(cluster.at("10.244.0.7").starts_with("spiffe://"));
        }
    }
    // nothing before it has the address (event 5), all of its life, nothing after its end
    let expected: Vec<bool> = (1..=20).map(|event| (5..=16).contains(&event)).collect();
    assert_eq!(seen, expected);
    assert!(cluster.at("10.244.0.7").starts_with("unknown"));
}

#[test]
fn the_endpoints_of_a_service_follow_its_slices() {
    let mut cluster = Stated::with_networks();
    for event in events(PODS).into_iter().take(16) {
        cluster.see(WatchedKind::Pod, event);
    }
    let mut services = events(SERVICES).into_iter();
    for event in services.by_ref().take(2) {
        cluster.see(WatchedKind::Service, event);
    }
    let mut ready = Vec::new();
    for event in events(SLICES) {
        cluster.see(WatchedKind::EndpointSlice, event);
        ready.push(cluster.endpoints("shop/cart", 80).len());
    }
    // not ready, ready, still serving while it ends, gone
    assert_eq!(ready, [0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
    for event in services {
        cluster.see(WatchedKind::Service, event);
    }
    assert_eq!(cluster.state.facts().services, []);
}

#[test]
fn an_expired_version_is_an_error_and_no_object() {
    let events = events(EXPIRED);
    let [WatchEvent::Error(status)] = events.as_slice() else {
        panic!("no error");
    };
    assert_eq!(status.code, 410);
}
