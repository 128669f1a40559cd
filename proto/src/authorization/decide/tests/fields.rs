//! What each field of a rule matches.

use std::net::Ipv4Addr;

use super::*;

/// Field, values, callers that it names, and callers that it does not.
const IDENTITY_FIELDS: &str = "
    principals      | cluster.local/ns/shop/sa/web            | web               | guest foreign odd
    principals      | spiffe://cluster.local/ns/shop/sa/web   | web               | guest foreign odd
    principals      | a.b/ns/c/sa/d cluster.local/gateway/7   | odd               | web guest foreign
    principals      | cluster.local/ns/*                      | web guest         | foreign odd
    principals      | spiffe://cluster.local/*                | web guest odd     | foreign
    principals      | */sa/web                                | web foreign       | guest odd
    principals      | *                                       | web guest foreign odd |
    serviceAccounts | web                                     | web               | guest foreign odd
    serviceAccounts | shop/web shop/guest                     | web guest         | foreign odd
    serviceAccounts | pay/web                                 |                   | web guest foreign odd
    namespaces      | shop                                    | web guest         | foreign odd
    namespaces      | pay sh*                                 | web guest         | foreign odd
    namespaces      | *op                                     | web guest         | foreign odd
    namespaces      | *                                       | web guest         | foreign odd
    namespaces      | pay                                     |                   | web guest foreign odd
    trustDomains    | other.org                               | foreign           | web guest odd
    trustDomains    | *.org                                   | foreign           | web guest odd
    trustDomains    | cluster*                                | web guest odd     | foreign
";

fn caller(name: &str) -> &'static str {
    match name {
        "web" => WEB,
        "guest" => GUEST,
        "foreign" => FOREIGN_WEB,
        "odd" => ODD,
        other => panic!("{other}"),
    }
}

/// A field, and the one that excludes what it names.
fn both(field: &str) -> (FieldName, FieldName) {
    match field {
        "principals" => (FieldName::Principals, FieldName::NotPrincipals),
        "serviceAccounts" => (FieldName::ServiceAccounts, FieldName::NotServiceAccounts),
        "namespaces" => (FieldName::Namespaces, FieldName::NotNamespaces),
        "trustDomains" => (FieldName::TrustDomains, FieldName::NotTrustDomains),
        other => panic!("{other}"),
    }
}

#[test]
fn each_identity_field_matches_whom_it_names_and_nobody_else() {
    for row in IDENTITY_FIELDS.lines().filter(|row| row.contains('|')) {
        let cells: Vec<Vec<&str>> = row
            .split('|')
            .map(|c| c.split_whitespace().collect())
            .collect();
        let (positive, negative) = both(cells[0][0]);
        let (positive, negative) = (peer(positive, &cells[1]), peer(negative, &cells[1]));
        let named = cells[2].iter().map(|name| (name, true));
        for (name, named) in named.chain(cells[3].iter().map(|name| (name, false))) {
            for action in [PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Audit] {
                let holds = |peer| matches(action, peer, caller(name), "10.0.0.9");
                assert_eq!(holds(&positive), named, "{action} {name}: {row}");
                assert_eq!(holds(&negative), !named, "{action} {name}, not: {row}");
            }
        }
    }
}

#[test]
fn no_identity_field_is_true_of_plaintext_where_that_would_allow() {
    use FieldName as F;
    for (positive, negative, value) in [
        (F::Principals, F::NotPrincipals, "*"),
        (F::ServiceAccounts, F::NotServiceAccounts, "web"),
        (F::Namespaces, F::NotNamespaces, "*"),
        (F::TrustDomains, F::NotTrustDomains, "*"),
    ] {
        let (positive, negative) = (peer(positive, &[value]), peer(negative, &[value]));
        assert!(
            !matches(PolicyAction::Allow, &positive, "", "10.0.0.9"),
            "{positive:?}"
        );
        assert!(
            !matches(PolicyAction::Deny, &positive, "", "10.0.0.9"),
            "{positive:?}"
        );
        assert!(
            !matches(PolicyAction::Allow, &negative, "", "10.0.0.9"),
            "{negative:?}"
        );
        assert!(
            matches(PolicyAction::Deny, &negative, "", "10.0.0.9"),
            "{negative:?}"
        );
        assert!(
            matches(PolicyAction::Audit, &negative, "", "10.0.0.9"),
            "{negative:?}"
        );
    }
}

#[test]
fn address_blocks_are_about_the_tcp_peer_of_either_family() {
    use FieldName as F;
    for (values, source, inside) in [
        (&["10.0.0.0/8"][..], "10.9.9.9", true),
        (&["10.0.0.0/8"], "11.0.0.1", false),
        (&["10.0.0.0/8"], "::ffff:10.9.9.9", true),
        (&["0.0.0.0/0"], "fd00::1", false),
        (&["::/0"], "10.0.0.1", false),
        (&["::/0"], "::ffff:10.0.0.1", false),
        (&["192.0.2.7/32", "fd00::/8"], "fd12::7", true),
        (&["192.0.2.7/32", "fd00::/8"], "192.0.2.7", true),
        (&["192.0.2.7/32", "fd00::/8"], "192.0.2.8", false),
    ] {
        for caller in ["", WEB] {
            for action in [PolicyAction::Allow, PolicyAction::Deny] {
                assert_eq!(
                    matches(action, &peer(F::IpBlocks, values), caller, source),
                    inside
                );
                assert_eq!(
                    matches(action, &peer(F::NotIpBlocks, values), caller, source),
                    !inside
                );
            }
        }
    }
}

#[test]
fn ports_are_those_dialled_in_the_pod() {
    for (operation, port, allowed) in [
        (ports(&[8080, 8081]), 8081, true),
        (ports(&[8080, 8081]), 8082, false),
        (
            OperationMatch {
                not_ports: vec![22],
                ..OperationMatch::default()
            },
            22,
            false,
        ),
        (
            OperationMatch {
                not_ports: vec![22],
                ..OperationMatch::default()
            },
            23,
            true,
        ),
        (
            OperationMatch {
                not_ports: vec![80],
                ..ports(&[80, 81])
            },
            80,
            false,
        ),
        (
            OperationMatch {
                not_ports: vec![80],
                ..ports(&[80, 81])
            },
            81,
            true,
        ),
    ] {
        let rule = rule(Vec::new(), vec![operation.clone()]);
        let snapshot = permissive(vec![policy(PolicyAction::Allow, vec![rule])]);
        assert_eq!(
            judge_from(&snapshot, WEB, "10.0.0.9", port).is_allowed(),
            allowed,
            "{operation:?}"
        );
    }
}

#[test]
fn namespaces_of_other_trust_domains_count_only_where_the_source_names_those() {
    let mut peer = peer(FieldName::Namespaces, &["shop"]);
    assert!(!matches(
        PolicyAction::Allow,
        &peer,
        FOREIGN_WEB,
        "10.0.0.9"
    ));
    peer.trust_domains = vec!["other.org".parse().unwrap()];
    assert!(matches(PolicyAction::Allow, &peer, FOREIGN_WEB, "10.0.0.9"));
    assert!(!matches(PolicyAction::Allow, &peer, WEB, "10.0.0.9"));
    let mut peer = self::peer(FieldName::ServiceAccounts, &["shop/web"]);
    peer.not_trust_domains = vec!["third.org".parse().unwrap()];
    assert!(
        !matches(PolicyAction::Allow, &peer, FOREIGN_WEB, "10.0.0.9"),
        "excluding is not naming"
    );
}

#[test]
fn all_fields_of_a_source_must_hold_but_one_source_is_enough() {
    let both = PeerMatch {
        ip_blocks: vec!["10.9.0.0/16".parse().unwrap()],
        ..principals(&[WEB])
    };
    assert!(matches(PolicyAction::Allow, &both, WEB, "10.9.0.1"));
    assert!(!matches(PolicyAction::Allow, &both, WEB, "10.8.0.1"));
    assert!(!matches(PolicyAction::Allow, &both, GUEST, "10.9.0.1"));
    let either = rule(vec![both, principals(&[GUEST])], Vec::new());
    let snapshot = permissive(vec![policy(PolicyAction::Allow, vec![either])]);
    assert!(judge(&snapshot, GUEST).is_allowed());
    assert!(!judge(&snapshot, WEB).is_allowed());
}

#[test]
fn a_rule_needs_both_a_source_and_an_operation() {
    let rule = rule(vec![principals(&[WEB])], vec![ports(&[1]), ports(&[8080])]);
    let snapshot = permissive(vec![policy(PolicyAction::Allow, vec![rule])]);
    assert!(judge(&snapshot, WEB).is_allowed());
    assert!(!judge_from(&snapshot, WEB, "10.0.0.9", 2).is_allowed());
    assert!(!judge(&snapshot, GUEST).is_allowed());
}

#[test]
fn an_unspecified_source_address_is_only_an_address() {
    let unspecified = Ipv4Addr::UNSPECIFIED.to_string();
    let peer = peer(FieldName::IpBlocks, &["10.0.0.0/8"]);
    assert!(!matches(PolicyAction::Allow, &peer, WEB, &unspecified));
}
