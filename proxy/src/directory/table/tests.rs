use std::{collections::BTreeMap, net::IpAddr};

use mesh_lite_proto::workload_directory::{Endpoint, Meshed, Service, ServiceName, ServicePort};

use super::*;

const IDLE: u64 = DIRECTORY_IDLE.as_millis() as u64;

fn address(number: u32) -> IpAddr {
    std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn name(number: u32) -> Name {
    Name::Address(address(number))
}

fn endpoint(number: u32, meshed: bool) -> Endpoint {
    let meshed = meshed.then(|| Meshed {
        id: "spiffe://a.test/ns/shop/sa/api".parse().unwrap(),
        tunnel_port: 15008,
    });
    Endpoint {
        address: address(number),
        meshed,
        namespace: "shop".to_owned(),
        name: format!("api-{number}"),
        healthy: true,
        ports: Vec::new(),
    }
}

fn service(endpoints: impl IntoIterator<Item = Endpoint>) -> Answer {
    Answer::Service(Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        ports: vec![ServicePort {
            port: 80,
            target_port: 8080,
        }],
        endpoints: endpoints
            .into_iter()
            .map(|it| (it.address, it))
            .collect::<BTreeMap<_, _>>(),
        session_affinity: false,
    })
}

fn unreadable(name: &Name, answer: &Answer) -> wire::DirectoryAnswer {
    wire::DirectoryAnswer {
        min_schema: 99,
        ..answer.to_wire(name)
    }
}

/// A table that asked for `names` and got `answers`.
fn table(known: &[(Name, Answer)]) -> Table {
    let now = Instant::now();
    let mut table = Table::new(now);
    for (name, answer) in known {
        assert_eq!(table.add(name, 0, now), Added::New { forgotten: None });
        assert_eq!(table.learn(name, &answer.to_wire(name)), Learned::Changed);
    }
    table
}

fn full() -> Table {
    let mut table = Table::new(Instant::now());
    for number in 0..MAX_DIRECTORY_NAMES {
        table.restore(name(number as u32), Answer::Outside, 0);
    }
    table
}

#[test]
fn a_name_is_asked_for_once() {
    let now = Instant::now();
    let mut table = Table::new(now);
    assert_eq!(table.add(&name(1), 0, now), Added::New { forgotten: None });
    assert_eq!(table.add(&name(1), 0, now), Added::Before);
    assert!(table.answer(&name(1)).is_none());
    assert!(
        table.publish().is_empty(),
        "a name without an answer is not known"
    );
}

#[test]
fn an_answer_nobody_asked_for_is_not_kept() {
    let mut table = table(&[]);
    assert_eq!(
        table.learn(&name(1), &Answer::Outside.to_wire(&name(1))),
        Learned::NotAsked
    );
    assert_eq!(table.len(), 0);
}

#[test]
fn an_equal_answer_changes_nothing() {
    let mut table = table(&[(name(1), Answer::Outside)]);
    assert_eq!(
        table.learn(&name(1), &Answer::Outside.to_wire(&name(1))),
        Learned::Same
    );
}

#[test]
fn two_hundred_new_names_a_second_and_no_more() {
    let now = Instant::now();
    let mut table = Table::new(now);
    for number in 0..MAX_NEW_NAMES_PER_SECOND {
        assert_eq!(
            table.add(&name(number), 0, now),
            Added::New { forgotten: None }
        );
    }
    assert_eq!(table.add(&name(9999), 0, now), Added::TooFast);
    assert_eq!(
        table.add(&name(3), 0, now),
        Added::Before,
        "a known name is not a new one"
    );
    let later = now + Duration::from_millis(100);
    let added = (0..100)
        .filter(|n| table.add(&name(5000 + n), 0, later) != Added::TooFast)
        .count();
    assert_eq!(added, 20);
}

#[test]
fn a_full_table_forgets_the_longest_unused_name() {
    let mut table = full();
    let used = 100_000;
    table.add(&name(0), used, Instant::now());
    let new = name(1_000_000);
    let Added::New {
        forgotten: Some(forgotten),
    } = table.add(&new, used, Instant::now())
    else {
        panic!("nothing was forgotten");
    };
    assert_ne!(*forgotten, name(0), "that one was used just now");
    assert_eq!(table.len(), MAX_DIRECTORY_NAMES);
}

#[test]
fn a_full_table_of_names_in_use_refuses_new_ones() {
    let mut table = full();
    assert_eq!(
        table.add(&name(1_000_000), 20_000, Instant::now()),
        Added::TooMany
    );
    assert_eq!(table.len(), MAX_DIRECTORY_NAMES);
}

#[test]
fn a_name_unused_for_ten_minutes_is_forgotten_and_a_used_one_is_not() {
    let mut table = table(&[(name(1), Answer::Outside), (name(2), Answer::Outside)]);
    assert!(table.forget_idle(IDLE - 1).is_empty());
    table.add(&name(2), IDLE - 1, Instant::now());
    assert_eq!(table.forget_idle(IDLE), [Arc::new(name(1))]);
    assert!(table.answer(&name(1)).is_none());
    assert!(table.answer(&name(2)).is_some());
}

#[test]
fn a_change_to_a_service_builds_on_what_was_sent_before() {
    let asked = name(1);
    let before = service([endpoint(1, true), endpoint(2, true)]);
    let mut table = table(&[(asked.clone(), before.clone())]);
    let after = service([endpoint(2, true), endpoint(3, true)]);
    assert_eq!(
        table.learn(&asked, &after.to_wire_after(&asked, Some(&before))),
        Learned::Changed
    );
    assert_eq!(**table.answer(&asked).unwrap(), after);
}

#[test]
fn an_unreadable_answer_leaves_the_last_good_one_where_that_is_mutual_tls() {
    let good = Answer::Endpoint(endpoint(1, true));
    let mut table = table(&[(name(1), good.clone())]);
    let learned = table.learn(&name(1), &unreadable(&name(1), &Answer::Outside));
    assert!(matches!(
        learned,
        Learned::Refused {
            changed: false,
            ask_again: false,
            ..
        }
    ));
    assert_eq!(**table.answer(&name(1)).unwrap(), good);
}

#[test]
fn an_unreadable_answer_ends_what_let_plaintext_pass() {
    let mixed = service([endpoint(1, true), endpoint(2, false)]);
    for before in [Answer::Outside, Answer::Endpoint(endpoint(1, false)), mixed] {
        let mut table = table(&[(name(1), before)]);
        let answer = unreadable(&name(1), &Answer::Endpoint(endpoint(1, true)));
        assert!(matches!(
            table.learn(&name(1), &answer),
            Learned::Refused { changed: true, .. }
        ));
        assert!(matches!(
            **table.answer(&name(1)).unwrap(),
            Answer::Unknown { .. }
        ));
        assert!(matches!(
            table.learn(&name(1), &answer),
            Learned::Refused { changed: false, .. }
        ));
    }
}

#[test]
fn an_unreadable_first_answer_is_unknown() {
    let now = Instant::now();
    let mut table = Table::new(now);
    table.add(&name(1), 0, now);
    table.learn(&name(1), &unreadable(&name(1), &Answer::Outside));
    let Answer::Unknown { reason } = &**table.answer(&name(1)).unwrap() else {
        panic!("something was let through");
    };
    assert!(reason.contains("schema 99"), "{reason}");
}

#[test]
fn after_an_unreadable_change_nothing_builds_on_it_until_the_whole_comes() {
    let asked = name(1);
    let before = service([endpoint(1, true)]);
    let mut table = table(&[(asked.clone(), before.clone())]);
    let after = service([endpoint(2, true)]);
    let change = after.to_wire_after(&asked, Some(&before));
    let unreadable = wire::DirectoryAnswer {
        min_schema: 99,
        ..change.clone()
    };
    assert!(matches!(
        table.learn(&asked, &unreadable),
        Learned::Refused {
            changed: false,
            ask_again: true,
            ..
        }
    ));
    assert!(matches!(
        table.learn(&asked, &change),
        Learned::Refused {
            reason: InvalidAnswer::ChangeWithoutWhole,
            ask_again: false,
            ..
        }
    ));
    assert_eq!(**table.answer(&asked).unwrap(), before);
    assert_eq!(
        table.learn(&asked, &after.to_wire(&asked)),
        Learned::Changed
    );
}

#[test]
fn an_answer_about_another_address_is_not_taken() {
    let mut table = table(&[(
        name(1),
        Answer::Unknown {
            reason: "new".to_owned(),
        },
    )]);
    let other = Answer::Endpoint(endpoint(2, true)).to_wire(&name(1));
    assert!(matches!(
        table.learn(&name(1), &other),
        Learned::Refused { .. }
    ));
    assert!(matches!(
        **table.answer(&name(1)).unwrap(),
        Answer::Unknown { .. }
    ));
}

#[test]
fn an_answer_about_another_service_is_not_taken() {
    let asked = Name::Service(ServiceName {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    });
    let now = Instant::now();
    let mut table = Table::new(now);
    table.add(&asked, 0, now);
    for answer in [
        service([endpoint(1, true)]),
        Answer::Endpoint(endpoint(1, true)),
    ] {
        assert!(matches!(
            table.learn(&asked, &answer.to_wire(&asked)),
            Learned::Refused { .. }
        ));
        assert!(matches!(
            **table.answer(&asked).unwrap(),
            Answer::Unknown { .. }
        ));
    }
}

#[test]
fn an_empty_answer_is_not_taken() {
    let mut table = table(&[(name(1), Answer::Outside)]);
    let empty = wire::DirectoryAnswer {
        answer: None,
        ..Answer::Outside.to_wire(&name(1))
    };
    assert!(matches!(
        table.learn(&name(1), &empty),
        Learned::Refused { .. }
    ));
    assert!(matches!(
        **table.answer(&name(1)).unwrap(),
        Answer::Unknown { .. }
    ));
}
