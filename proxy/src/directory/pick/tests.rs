use std::collections::BTreeSet;

use mesh_lite_proto::workload_directory::{ServiceName, ServicePort};

use super::*;

const PORT: u16 = 80;

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn service(count: u8) -> Service {
    let endpoint = |number| Endpoint {
        address: address(number),
        meshed: None,
        namespace: "shop".to_owned(),
        name: format!("api-{number}"),
        healthy: true,
        ports: Vec::new(),
    };
    Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        ports: vec![ServicePort {
            port: PORT,
            target_port: 8080,
        }],
        endpoints: (1..=count)
            .map(|number| (address(number), endpoint(number)))
            .collect(),
        session_affinity: false,
    }
}

fn client(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, 9, high, low].into()
}

fn wanted(number: u16) -> Wanted {
    Wanted {
        client: client(number),
        port: PORT,
    }
}

fn now() -> Instant {
    Instant::now()
}

fn picked(picked: &Option<Picked>) -> Option<IpAddr> {
    picked.as_ref().map(|picked| picked.endpoint.address)
}

#[test]
fn without_endpoints_nothing_is_picked() {
    assert!(
        Picker::default()
            .pick(&service(0), PORT, client(1), &[])
            .is_none()
    );
}

#[test]
fn an_unhealthy_endpoint_is_never_picked() {
    let mut service = service(2);
    service.endpoints.get_mut(&address(1)).unwrap().healthy = false;
    let picker = Picker::default();
    for _ in 0..50 {
        assert_eq!(
            picked(&picker.pick(&service, PORT, client(1), &[])),
            Some(address(2))
        );
    }
    assert!(
        picker
            .pick(&service, PORT, client(1), &[address(2)])
            .is_none()
    );
}

#[test]
fn what_was_tried_is_not_tried_again_and_all_others_are() {
    let picker = Picker::default();
    let mut service = service(5);
    for affinity in [false, true] {
        service.session_affinity = affinity;
        let mut tried = Vec::new();
        while let Some(next) = picker.pick(&service, PORT, client(1), &tried) {
            assert!(!tried.contains(&next.endpoint.address));
            tried.push(next.endpoint.address);
        }
        assert_eq!(tried.len(), 5);
    }
}

#[test]
fn of_two_the_one_with_fewer_open_connections_gets_the_next() {
    let picker = Picker::default();
    let service = service(2);
    let held: Vec<Picked> = (0..20)
        .map(|_| picker.pick(&service, PORT, client(1), &[]).unwrap())
        .collect();
    assert_eq!(picker.outstanding(address(1)), 10);
    assert_eq!(picker.outstanding(address(2)), 10);
    drop(held);
    assert_eq!(picker.outstanding(address(1)), 0);
    assert_eq!(picker.outstanding(address(2)), 0);
}

#[test]
fn an_endpoint_that_holds_many_connections_is_spared() {
    let picker = Picker::default();
    let one = service(1);
    let _held: Vec<Picked> = (0..100)
        .map(|_| picker.pick(&one, PORT, client(1), &[]).unwrap())
        .collect();
    let many = service(10);
    let picks: Vec<Option<IpAddr>> = (0..200)
        .map(|_| picked(&picker.pick(&many, PORT, client(1), &[])))
        .collect();
    let first = picks
        .iter()
        .filter(|pick| **pick == Some(address(1)))
        .count();
    assert_eq!(first, 0, "the loaded one loses against any other");
}

#[test]
fn idle_endpoints_all_get_their_share() {
    let picker = Picker::default();
    let service = service(10);
    let mut counts = HashMap::new();
    for _ in 0..2000 {
        let pick = picker.pick(&service, PORT, client(1), &[]).unwrap();
        *counts.entry(pick.endpoint.address).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(
        counts.values().all(|count| (100..350).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn an_endpoint_that_failed_is_avoided_for_a_while() {
    let picker = Picker::default();
    let service = service(2);
    let at = now();
    picker.failed(address(1), at);
    for chance in 0..50 {
        let pick = picker.pick_by(&service, wanted(1), &[], at + AVOIDED_FOR / 2, chance);
        assert_eq!(picked(&pick), Some(address(2)));
    }
    let later: BTreeSet<_> = (0..50)
        .map(|chance| picked(&picker.pick_by(&service, wanted(1), &[], at + AVOIDED_FOR, chance)))
        .collect();
    assert!(later.contains(&Some(address(1))));
}

#[test]
fn an_endpoint_that_failed_is_better_than_none() {
    let picker = Picker::default();
    picker.failed(address(1), now());
    assert_eq!(
        picked(&picker.pick(&service(1), PORT, client(1), &[])),
        Some(address(1))
    );
}

#[test]
fn one_client_keeps_its_endpoint_and_clients_are_spread() {
    let picker = Picker::default();
    let mut service = service(10);
    service.session_affinity = true;
    let of = |number| picked(&picker.pick(&service, PORT, client(number), &[]));
    for number in 0..20 {
        assert_eq!(of(number), of(number));
    }
    let distinct: BTreeSet<_> = (0..500).map(of).collect();
    assert_eq!(distinct.len(), 10);
}

#[test]
fn when_an_endpoint_goes_only_its_own_clients_move() {
    let picker = Picker::default();
    let mut before = service(10);
    before.session_affinity = true;
    let mut after = before.clone();
    after.endpoints.remove(&address(4));
    for number in 0..500 {
        let was = picked(&picker.pick(&before, PORT, client(number), &[]));
        let is = picked(&picker.pick(&after, PORT, client(number), &[]));
        assert_ne!(is, Some(address(4)));
        if was != Some(address(4)) {
            assert_eq!(was, is);
        }
    }
}

#[test]
fn affinity_gives_way_to_a_failure() {
    let picker = Picker::default();
    let mut service = service(3);
    service.session_affinity = true;
    let own = picked(&picker.pick(&service, PORT, client(1), &[])).unwrap();
    picker.failed(own, now());
    assert_ne!(
        picked(&picker.pick(&service, PORT, client(1), &[])),
        Some(own)
    );
}

#[test]
fn what_is_remembered_is_bounded() {
    let picker = Picker::default();
    for number in 0..=u16::MAX {
        picker.failed(client(number), now());
    }
    assert!(picker.loads().failed.len() <= MAX_REMEMBERED);
    let endpoint = |number| {
        let mut service = service(1);
        let mut endpoint = service.endpoints.remove(&address(1)).unwrap();
        endpoint.address = client(number);
        service.endpoints.insert(endpoint.address, endpoint);
        service
    };
    for number in 0..20_000 {
        drop(picker.pick(&endpoint(number), PORT, client(1), &[]));
    }
    assert!(picker.loads().outstanding.len() <= MAX_REMEMBERED);
}

#[test]
fn gives_each_endpoint_its_own_port_and_none_that_lacks_the_port() {
    let mut service = service(3);
    let own = |port| {
        vec![ServicePort {
            port,
            target_port: 9090,
        }]
    };
    service.endpoints.get_mut(&address(2)).unwrap().ports = own(PORT);
    service.endpoints.get_mut(&address(3)).unwrap().ports = own(PORT + 1);
    let picker = Picker::default();
    let (mut tried, mut ports) = (Vec::new(), BTreeSet::new());
    while let Some(next) = picker.pick(&service, PORT, client(1), &tried) {
        tried.push(next.endpoint.address);
        ports.insert((next.endpoint.address, next.port));
    }
    let expected = BTreeSet::from([(address(1), 8080), (address(2), 9090)]);
    assert_eq!(ports, expected);
}
