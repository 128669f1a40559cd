use std::{collections::BTreeMap, net::IpAddr};

use super::*;
use crate::authorization::{
    BrokenDocument, DefaultAction, Eviction, EvictionSubject, MutualTls, MutualTlsMode, Policy,
    PolicyAction, Rule, SourceRef, peer_match::PeerMatch,
};

fn source(line: u32) -> SourceRef {
    SourceRef {
        document: "shop/api".into(),
        file: "dir/p.yaml".into(),
        line,
    }
}

fn snapshot() -> PolicySnapshot {
    let peer = PeerMatch {
        line: 9,
        not_ip_blocks: vec![
            format!("{}/32", IpAddr::from([10, 0, 0, 1]))
                .parse()
                .unwrap(),
        ],
        ..PeerMatch::default()
    };
    let policy = Policy {
        source: source(3),
        action: PolicyAction::Allow,
        dry_run: true,
        rules: vec![Rule {
            line: 8,
            from: vec![peer],
            to: Vec::new(),
        }],
    };
    PolicySnapshot {
        revision: u64::MAX,
        trust_domain: "cluster.local".parse().unwrap(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Strict,
            ports: BTreeMap::from([(8080, MutualTlsMode::Permissive)]),
        },
        default_action: Some((DefaultAction::Deny, source(1))),
        policies: vec![policy].into(),
        evictions: vec![Eviction {
            source: source(2),
            subject: EvictionSubject::Serial("0a".parse().unwrap()),
            until: None,
        }],
        broken: vec![BrokenDocument {
            source: source(0),
            reason: "why".into(),
        }],
    }
}

fn json() -> String {
    serde_json::to_string_pretty(&snapshot().shown_as_json()).unwrap()
}

#[test]
fn a_snapshot_comes_back_as_it_was_shown() {
    assert_eq!(
        PolicySnapshot::from_json(json().as_bytes()).unwrap(),
        snapshot()
    );
}

#[test]
fn what_is_missing_unknown_or_cut_off_refuses_all_of_it() {
    let json = json();
    for (from, to) in [
        ("\"not_ip_blocks\"", "\"not_ip_block\""),
        ("\"not_ip_blocks\"", "\"not_hosts\": [], \"not_ip_blocks\""),
        ("\"policies\"", "\"policy\""),
        ("\"min_schema\": 1", "\"min_schema\": 99"),
        ("\"8080\"", "\"80800\""),
        ("10.0.0.1/32", "10.0.0.1/33"),
        ("\"Serial\"", "\"Issuer\""),
    ] {
        let changed = json.replacen(from, to, 1);
        assert_ne!(changed, json, "{from}");
        assert!(
            PolicySnapshot::from_json(changed.as_bytes()).is_err(),
            "{to}"
        );
    }
    for end in 0..json.len() {
        assert!(PolicySnapshot::from_json(json.get(..end).unwrap().as_bytes()).is_err());
    }
}
