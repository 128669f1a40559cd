use std::time::Duration;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn snapshot(subject: EvictionSubject, until: Option<SystemTime>) -> PolicySnapshot {
    let source = SourceRef {
        document: "mesh/e".into(),
        file: "e.yaml".into(),
        line: 1,
    };
    PolicySnapshot {
        revision: 1,
        trust_domain: "cluster.local".parse().unwrap(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Strict,
            ports: BTreeMap::new(),
        },
        default_action: None,
        policies: Policies::default(),
        evictions: vec![Eviction {
            source,
            subject,
            until,
        }],
        broken: Vec::new(),
    }
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn serial(text: &str) -> Serial {
    text.parse().unwrap()
}

#[test]
fn an_eviction_ends_trust_in_its_identity_whatever_the_certificate() {
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let snapshot = snapshot(EvictionSubject::Id(web.clone()), None);
    assert!(snapshot.evicted(&web, &serial("0a"), NOW).is_some());
    let other = id("spiffe://cluster.local/ns/shop/sa/web2");
    assert!(snapshot.evicted(&other, &serial("0a"), NOW).is_none());
}

#[test]
fn an_eviction_by_serial_spares_other_certificates_of_the_same_identity() {
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let snapshot = snapshot(EvictionSubject::Serial(serial("0a0b")), None);
    assert!(snapshot.evicted(&web, &serial("0A0B"), NOW).is_some());
    assert!(snapshot.evicted(&web, &serial("0a0c"), NOW).is_none());
}

#[test]
fn an_eviction_ends_at_its_end_and_not_before() {
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let until = NOW + Duration::from_secs(100);
    let snapshot = snapshot(EvictionSubject::Id(web.clone()), Some(until));
    assert!(
        snapshot
            .evicted(&web, &serial("0a"), until - Duration::from_nanos(1))
            .is_some()
    );
    assert!(snapshot.evicted(&web, &serial("0a"), until).is_none());
}

#[test]
fn a_port_without_a_mode_of_its_own_has_the_workloads() {
    let mutual_tls = MutualTls {
        mode: MutualTlsMode::Strict,
        ports: BTreeMap::from([(8080, MutualTlsMode::Permissive)]),
    };
    assert_eq!(mutual_tls.mode(8080), MutualTlsMode::Permissive);
    assert_eq!(mutual_tls.mode(8081), MutualTlsMode::Strict);
}

#[test]
fn what_stands_in_no_line_is_shown_without_one() {
    let mut source = SourceRef {
        document: "a/b".into(),
        file: "f.yaml".into(),
        line: 3,
    };
    assert_eq!(source.to_string(), "a/b (f.yaml:3)");
    source.line = 0;
    assert_eq!(source.to_string(), "a/b (f.yaml)");
}

#[test]
fn policies_are_equal_by_what_they_say_and_not_by_how_many_they_are() {
    let policy = |line: u32, port: u16| Policy {
        source: SourceRef {
            document: "shop/p".into(),
            file: "p.yaml".into(),
            line,
        },
        action: PolicyAction::Allow,
        dry_run: false,
        rules: vec![Rule {
            line,
            from: Vec::new(),
            to: vec![OperationMatch {
                line,
                ports: vec![port],
                not_ports: Vec::new(),
            }],
        }],
    };
    let of = |policies: Vec<Policy>| Policies::from(policies);
    let two = of(vec![policy(1, 80), policy(2, 81)]);
    assert_eq!(two, of(vec![policy(1, 80), policy(2, 81)]));
    assert_eq!(two, two.clone());
    for other in [
        vec![policy(1, 80), policy(2, 82)],
        vec![policy(1, 80), policy(3, 81)],
        vec![policy(2, 81), policy(1, 80)],
        vec![policy(1, 80)],
        Vec::new(),
    ] {
        assert_ne!(two, of(other));
    }
}
