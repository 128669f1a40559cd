use mesh_lite_proto::svid::LeafFacts;

use super::*;
use crate::clock::from_unix_seconds;

fn peer(name: Option<&str>, key: usize) -> Peer {
    let leaf = LeafFacts {
        id: "spiffe://mesh.test/ns/shop/sa/frontend".parse().unwrap(),
        serial: "01".parse().unwrap(),
        not_before: from_unix_seconds(0),
        not_after: from_unix_seconds(1),
        common_name: name.map(ToOwned::to_owned),
    };
    Peer {
        leaf,
        key: KeyPrint::of(&key.to_be_bytes()),
        root: KeyPrint::of(b""),
    }
}

fn refusal(place: Result<Place, NoPlace>) -> Option<NoPlace> {
    place.err()
}

#[test]
fn one_key_takes_no_more_than_its_places() {
    let places = Places::new(20_000);
    let mut held: Vec<_> = (0..MAX_PER_KEY)
        .map(|_| places.of_peer(&peer(Some("web"), 1)).unwrap())
        .collect();
    let again = places.of_peer(&peer(Some("web"), 1));
    assert_eq!(refusal(again), Some(NoPlace::Key));
    assert!(places.of_peer(&peer(Some("web"), 2)).is_ok());
    held.pop();
    held.push(places.of_peer(&peer(Some("web"), 1)).unwrap());
    drop(held);
    let state = places.state.lock().unwrap();
    assert!(state.taken.is_empty() && state.all == 0);
}

/// A workload that renews has a new key each time.
#[test]
fn one_workload_takes_no_more_than_its_places_with_any_number_of_keys_and_tokens() {
    for name in [Some("web"), None] {
        let places = Places::new(20_000);
        let held: Vec<_> = (0..MAX_PER_WORKLOAD)
            .map(|key| places.of_peer(&peer(name, key)).unwrap())
            .collect();
        let again = places.of_peer(&peer(name, MAX_PER_WORKLOAD));
        assert_eq!(refusal(again), Some(NoPlace::Workload));
        let by_token = places.of_workload(&"shop/web".parse().unwrap());
        assert_eq!(refusal(by_token), name.map(|_| NoPlace::Workload));
        drop(held);
    }
}

/// Thousands of pods of one service account, behind whatever address.
#[test]
fn workloads_of_one_identity_do_not_share_places() {
    let places = Places::new(20_000);
    let held: Vec<_> = (0..5_000)
        .map(|pod| places.of_peer(&peer(Some(&format!("web-{pod}")), pod)))
        .collect();
    assert!(held.iter().all(Result::is_ok));
}

#[test]
fn peers_leave_places_to_callers_without_a_certificate() {
    let places = Places::new(64);
    let taking = |pod: usize| places.of_peer(&peer(Some(&format!("web-{pod}")), pod));
    let held: Vec<_> = (0..56).map(|pod| taking(pod).unwrap()).collect();
    assert_eq!(refusal(taking(56)), Some(NoPlace::All));
    drop(held);
    assert!(taking(56).is_ok());
}

#[test]
fn all_connections_of_a_workload_share_its_bytes() {
    let places = Places::new(20_000);
    let one = places.of_peer(&peer(Some("web"), 1)).unwrap();
    let other = places.of_peer(&peer(Some("web"), 2)).unwrap();
    let mut held = one.bytes.begin().unwrap();
    assert!(held.grow_to(BYTES_PER_WORKLOAD));
    assert!(other.bytes.begin().is_none());
    let api = places.of_peer(&peer(Some("api"), 3)).unwrap();
    assert!(api.bytes.begin().is_some());
}
