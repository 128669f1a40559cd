use super::*;

fn source() -> Option<wire::SourceRef> {
    Some(wire::SourceRef {
        document: "shop/p".to_owned(),
        file: "p.yaml".to_owned(),
        line: 3,
    })
}

fn from() -> wire::PeerMatch {
    wire::PeerMatch {
        namespaces: vec!["shop".to_owned()],
        ..wire::PeerMatch::default()
    }
}

fn to() -> wire::OperationMatch {
    wire::OperationMatch {
        ports: vec![8080],
        ..wire::OperationMatch::default()
    }
}

/// A snapshot with a policy and an eviction that can be read.
fn good() -> wire::PolicySnapshot {
    let rule = wire::Rule {
        min_schema: 1,
        line: 4,
        from: vec![from()],
        to: vec![to()],
    };
    wire::PolicySnapshot {
        revision: 9,
        min_schema: 1,
        trust_domain: "cluster.local".to_owned(),
        mutual_tls: Some(wire::MutualTls {
            mode: wire::MutualTlsMode::Permissive.into(),
            ports: [(8080, wire::MutualTlsMode::Strict.into())].into(),
        }),
        default_action: wire::DefaultAction::Deny.into(),
        default_action_source: source(),
        policies: vec![wire::AuthorizationPolicy {
            min_schema: 1,
            source: source(),
            action: wire::PolicyAction::Allow.into(),
            dry_run: true,
            rules: vec![rule],
        }],
        evictions: vec![wire::Eviction {
            source: source(),
            subject: Some(wire::eviction::Subject::Serial("0a".to_owned())),
            until_unix: 1_800_000_000,
        }],
        broken: vec![wire::BrokenDocument {
            source: source(),
            reason: "why".to_owned(),
        }],
    }
}

fn refused(change: impl FnOnce(&mut wire::PolicySnapshot)) -> String {
    let mut snapshot = good();
    change(&mut snapshot);
    PolicySnapshot::try_from(snapshot).unwrap_err().to_string()
}

fn rule(snapshot: &mut wire::PolicySnapshot) -> &mut wire::Rule {
    &mut snapshot.policies[0].rules[0]
}

#[test]
fn a_snapshot_comes_back_as_it_was_sent() {
    let snapshot = PolicySnapshot::try_from(good()).unwrap();
    assert_eq!(snapshot.revision, 9);
    assert_eq!(snapshot.evictions.len(), 1);
    assert_eq!(wire::PolicySnapshot::from(&snapshot), good());
}

#[test]
fn a_newer_schema_anywhere_refuses_the_whole_snapshot() {
    let next = SCHEMA + 1;
    for (reason, place) in [
        (
            refused(|snapshot| snapshot.min_schema = next),
            "the snapshot",
        ),
        (
            refused(|snapshot| snapshot.policies[0].min_schema = next),
            "shop/p (p.yaml:3)",
        ),
        (
            refused(|snapshot| rule(snapshot).min_schema = next),
            "shop/p (p.yaml:3): rules[0]",
        ),
    ] {
        let expected =
            format!("{place} needs schema {next}, this build knows {SCHEMA}: upgrade the sidecar");
        assert_eq!(reason, expected);
    }
}

#[test]
fn an_entry_whose_fields_are_all_unknown_does_not_match_everybody() {
    assert_eq!(
        refused(|snapshot| rule(snapshot).from[0].namespaces.clear()),
        "shop/p (p.yaml:3): rules[0] has a from entry that states nothing this build knows"
    );
    assert_eq!(
        refused(|snapshot| rule(snapshot).to[0].ports.clear()),
        "shop/p (p.yaml:3): rules[0] has a to entry that states nothing this build knows"
    );
}

#[test]
fn unknown_values_refuse_the_whole_snapshot() {
    for reason in [
        refused(|snapshot| snapshot.default_action = 9),
        refused(|snapshot| snapshot.policies[0].action = 9),
        refused(|snapshot| snapshot.policies[0].action = 0),
        refused(|snapshot| snapshot.mutual_tls.as_mut().unwrap().mode = 9),
        refused(|snapshot| {
            snapshot.mutual_tls.as_mut().unwrap().ports.insert(80, 9);
        }),
    ] {
        assert!(reason.contains("has the unknown"), "{reason}");
    }
}

#[test]
fn what_is_missing_is_never_made_up() {
    for reason in [
        refused(|snapshot| snapshot.default_action_source = None),
        refused(|snapshot| snapshot.policies[0].source = None),
        refused(|snapshot| snapshot.evictions[0].source = None),
        refused(|snapshot| snapshot.evictions[0].subject = None),
        refused(|snapshot| snapshot.broken[0].source = None),
    ] {
        assert!(reason.contains(" lacks "), "{reason}");
    }
}

#[test]
fn without_a_word_on_mutual_tls_it_is_strict() {
    let mut snapshot = good();
    snapshot.mutual_tls = None;
    assert_eq!(
        PolicySnapshot::try_from(snapshot)
            .unwrap()
            .mutual_tls
            .mode(80),
        MutualTlsMode::Strict
    );
}

#[test]
fn values_that_match_nothing_refuse_the_whole_snapshot() {
    for (text, field) in [
        ("a*b", 0),
        ("", 0),
        ("cluster.local", 0),
        ("CLUSTER.local/ns/a/sa/b", 0),
        ("x y", 1),
        ("**", 1),
        ("Upper.org", 2),
        ("web", 3),
        ("shop/*", 3),
        ("10.0.0.0/33", 4),
        ("::ffff:10.0.0.0/104", 4),
    ] {
        let reason = refused(|snapshot| {
            let from = &mut rule(snapshot).from[0];
            let values = match field {
                0 => &mut from.not_principals,
                1 => &mut from.namespaces,
                2 => &mut from.trust_domains,
                3 => &mut from.service_accounts,
                _ => &mut from.not_ip_blocks,
            };
            values.push(text.to_owned());
        });
        assert!(
            reason.starts_with("shop/p (p.yaml:3): rules[0]: "),
            "{text}: {reason}"
        );
    }
}

#[test]
fn numbers_that_are_no_ports_refuse_the_whole_snapshot() {
    for port in [0, 65_536] {
        for reason in [
            refused(|snapshot| rule(snapshot).to[0].not_ports.push(port)),
            refused(|snapshot| {
                snapshot.mutual_tls.as_mut().unwrap().ports.insert(port, 1);
            }),
        ] {
            assert!(reason.contains("port"), "{reason}");
        }
    }
}

#[test]
fn evictions_of_nobody_refuse_the_whole_snapshot() {
    use wire::eviction::Subject;
    for (subject, until) in [
        (Subject::SpiffeId("cluster.local/ns/a/sa/b".to_owned()), 0),
        (Subject::Serial("xyz".to_owned()), 0),
        (Subject::Serial(String::new()), 0),
        (Subject::Serial("0a".to_owned()), -1),
    ] {
        let reason = refused(|snapshot| {
            snapshot.evictions[0].subject = Some(subject.clone());
            snapshot.evictions[0].until_unix = until;
        });
        assert!(
            reason.starts_with("shop/p (p.yaml:3)"),
            "{subject:?}: {reason}"
        );
    }
}

#[test]
fn a_trust_domain_that_is_none_refuses_the_whole_snapshot() {
    for text in ["", "Cluster.Local", "a b", "spiffe://x/ns/y"] {
        refused(|snapshot| snapshot.trust_domain = text.to_owned());
    }
}

#[test]
fn an_eviction_that_ended_long_ago_does_not_become_one_for_good() {
    let mut snapshot = PolicySnapshot::try_from(good()).unwrap();
    snapshot.evictions[0].until = Some(SystemTime::UNIX_EPOCH);
    let message = wire::PolicySnapshot::from(&snapshot);
    assert!(message.evictions[0].until_unix > 0);
}
