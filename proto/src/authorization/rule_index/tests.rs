use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::{
    authorization::{
        Policies, SourceRef,
        few_names::{some_call, some_snapshot},
        peer_match::Asked,
    },
    identity::WorkloadId,
};

const ROLES: [Role; 3] = [Role::Denies, Role::Allows, Role::Records];

fn policy(action: PolicyAction, rules: Vec<Rule>) -> Policy {
    Policy {
        source: SourceRef {
            document: "shop/p".into(),
            file: "p.yaml".into(),
            line: 1,
        },
        action,
        dry_run: false,
        rules,
    }
}

fn allow(rules: Vec<Rule>) -> Policy {
    policy(PolicyAction::Allow, rules)
}

fn rule(from: Vec<PeerMatch>, to: Vec<OperationMatch>) -> Rule {
    Rule { line: 1, from, to }
}

fn principals(values: &[&str]) -> PeerMatch {
    PeerMatch {
        principals: values.iter().map(|value| value.parse().unwrap()).collect(),
        ..PeerMatch::default()
    }
}

fn ports(ports: &[u16]) -> OperationMatch {
    OperationMatch {
        ports: ports.to_vec(),
        ..OperationMatch::default()
    }
}

/// A service account of namespace `shop`.
fn account(name: &str) -> String {
    format!("cluster.local/ns/shop/sa/{name}")
}

/// Of the rules that allow, those that are looked at for this service account.
fn looked_at(policies: &[Policy], name: &str, port: u16) -> Vec<usize> {
    let id: WorkloadId = format!("spiffe://{}", account(name)).parse().unwrap();
    of_caller(policies, Caller::Authenticated(&id), port)
}

fn of_caller(policies: &[Policy], caller: Caller<'_>, port: u16) -> Vec<usize> {
    let policies: Vec<Arc<Policy>> = policies.iter().cloned().map(Arc::new).collect();
    let facts = Facts {
        caller,
        source: "10.0.0.9".parse().unwrap(),
        port,
    };
    RuleIndex::new(&policies)
        .candidates(Role::Allows, &facts)
        .collect()
}

/// One policy for each rule.
fn each(rules: impl IntoIterator<Item = Rule>) -> Vec<Policy> {
    rules.into_iter().map(|rule| allow(vec![rule])).collect()
}

fn matches(rule: &Rule, asked: &Asked<'_>) -> bool {
    let of_source = rule.from.is_empty() || rule.from.iter().any(|peer| peer.matches(asked));
    let of_operation = rule.to.is_empty() || rule.to.iter().any(|to| to.matches(asked));
    of_source && of_operation
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_rule_that_matches_is_left_out_and_none_comes_twice_or_out_of_order(
        snapshot in some_snapshot(), call in some_call(),
    ) {
        let (policies, facts) = (&snapshot.policies, call.facts());
        let mut listed = 0;
        for role in ROLES {
            let candidates: Vec<Place> = policies.candidates(role, &facts).map(|of| of.at).collect();
            prop_assert!(candidates.is_sorted_by_key(|at| (at.policy, at.rule)));
            let unlike = |pair: &[Place]| pair[0] != pair[1];
            prop_assert!(candidates.windows(2).all(unlike));
            for of in policies.rules(role) {
                prop_assert_eq!(Role::of(of.policy), role);
                let asked = Asked::new(&facts, &snapshot.trust_domain, of.policy.action);
                prop_assert!(candidates.contains(&of.at) || !matches(of.rule, &asked), "{:?}", of);
                listed += 1;
            }
        }
        prop_assert_eq!(listed, policies.iter().map(|policy| policy.rules.len()).sum::<usize>());
    }
}

#[test]
fn of_a_thousand_principals_one_rule_is_looked_at() {
    let policies =
        each((0..1000).map(|n| rule(vec![principals(&[&account(&format!("a{n}"))])], vec![])));
    assert_eq!(looked_at(&policies, "a700", 80), [700]);
    assert!(looked_at(&policies, "a1000", 80).is_empty());
}

#[test]
fn of_a_thousand_service_accounts_or_namespaces_one_rule_is_looked_at() {
    let service_account = |n: u32| PeerMatch {
        service_accounts: vec![ServiceAccountMatch::parse(&format!("shop/a{n}"), "").unwrap()],
        ..PeerMatch::default()
    };
    let policies = each((0..1000).map(|n| rule(vec![service_account(n)], vec![])));
    assert_eq!(looked_at(&policies, "a7", 80), [7]);
    let namespace = |n: u32| PeerMatch {
        namespaces: vec![if n == 7 { "shop" } else { "pay" }.parse().unwrap()],
        ..PeerMatch::default()
    };
    let policies = each((0..1000).map(|n| rule(vec![namespace(n)], vec![])));
    assert_eq!(looked_at(&policies, "web", 80), [7]);
}

#[test]
fn a_rule_is_filed_under_the_field_whose_values_the_fewest_share() {
    let web = || vec![principals(&[&account("web")])];
    let policies = each((1..1000).map(|port| rule(web(), vec![ports(&[port])])));
    assert_eq!(looked_at(&policies, "web", 500), [499], "by port");
    let one_port = |n| {
        rule(
            vec![principals(&[&account(&format!("a{n}"))])],
            vec![ports(&[80])],
        )
    };
    assert_eq!(
        looked_at(&each((0..1000).map(one_port)), "a500", 80),
        [500],
        "by principal"
    );
}

#[test]
fn a_rule_with_several_values_is_found_by_each_and_comes_once() {
    let of_two = rule(
        vec![
            principals(&[&account("web"), &account("api")]),
            principals(&[&account("web")]),
        ],
        vec![ports(&[80]), ports(&[81, 80])],
    );
    let policies = each([of_two]);
    assert_eq!(looked_at(&policies, "web", 80), [0]);
    assert_eq!(looked_at(&policies, "api", 81), [0]);
    let either = rule(
        vec![principals(&["*/sa/web"]), principals(&[&account("web")])],
        vec![],
    );
    assert_eq!(
        looked_at(&each([either]), "web", 80),
        [0],
        "unfiled and filed"
    );
}

/// Entries without a value that an index could file, so that each is filed by port.
fn of_many_addresses(entries: u32, of_ports: u16) -> Rule {
    let block = |n: u32| PeerMatch {
        ip_blocks: vec![IpNet::from(IpAddr::from(Ipv4Addr::from_bits(n)))],
        ..PeerMatch::default()
    };
    let of_ports: Vec<u16> = (1..=of_ports).collect();
    rule((0..entries).map(block).collect(), vec![ports(&of_ports)])
}

#[test]
fn entries_and_ports_of_a_rule_add_up_and_do_not_multiply() {
    let keys = |rule: &Rule| {
        let keys = Keys::of(rule, &RandomState::new());
        let of_entries = keys.entries.iter().flatten().map(Vec::len);
        of_entries.sum::<usize>() + keys.ports.len()
    };
    let by_name = |entries: u32, of_ports: u16| {
        let names = (0..entries).map(|n| principals(&[&account(&format!("a{n}"))]));
        Rule {
            from: names.collect(),
            ..of_many_addresses(0, of_ports)
        }
    };
    assert_eq!(keys(&by_name(300, 700)), 1000);
    assert_eq!(keys(&of_many_addresses(300, 700)), 700);
    for rule in [by_name(300, 700), of_many_addresses(300, 700)] {
        let index = RuleIndex::new(&[Arc::new(allow(vec![rule]))]);
        let places: usize = index.filed.values().map(Vec::len).sum();
        assert!(index.filed.len() <= 700 && places <= 700, "{places}");
        assert!(index.unfiled.is_empty());
    }
}

/// Were its keys made anew for each entry, this would be a thousand million of them, and the test
/// would be ended before it ends.
#[test]
fn a_rule_with_the_most_entries_and_ports_of_a_snapshot_is_filed_at_once() {
    let policies = each([of_many_addresses(20_000, u16::MAX)]);
    assert_eq!(looked_at(&policies, "web", 9_000), [0]);
    assert_eq!(looked_at(&policies, "web", 0), [0; 0]);
}

#[test]
fn ports_count_once_for_each_entry_that_they_could_file() {
    // of the first rule, two entries share port 80; of the others, one of each has port 81
    let named = |name: &str| principals(&[&account(name)]);
    let policies = each([
        rule(vec![named("web"), named("web")], vec![ports(&[80])]),
        rule(vec![named("api")], vec![ports(&[81])]),
        rule(vec![named("api")], vec![ports(&[82])]),
    ]);
    assert_eq!(looked_at(&policies, "web", 99), [0], "by principal: a tie");
    assert_eq!(looked_at(&policies, "api", 82), [2], "by port");
    assert_eq!(looked_at(&policies, "web", 81), [0, 1], "by port");
}

#[test]
fn what_names_nobody_exactly_is_looked_at_every_time() {
    let excluding = |field: fn(&mut PeerMatch)| {
        let mut peer = PeerMatch::default();
        field(&mut peer);
        rule(vec![peer], vec![])
    };
    let rules = [
        rule(vec![principals(&["*/sa/web"])], vec![]),
        rule(vec![principals(&[&account("web"), "other.org/*"])], vec![]),
        excluding(|peer| peer.not_principals = vec!["*".parse().unwrap()]),
        excluding(|peer| peer.ip_blocks = vec!["10.0.0.0/8".parse().unwrap()]),
        rule(
            vec![],
            vec![
                ports(&[81]),
                OperationMatch {
                    not_ports: vec![80],
                    ..ports(&[])
                },
            ],
        ),
        rule(vec![], vec![]),
    ];
    let all: Vec<usize> = (0..rules.len()).collect();
    assert_eq!(looked_at(&each(rules.clone()), "nobody", 9), all);
    assert_eq!(of_caller(&each(rules), Caller::Plaintext, 9), all);
}

#[test]
fn plaintext_is_compared_with_no_rule_that_is_filed_under_an_identity() {
    let of_web = rule(vec![principals(&[&account("web")])], vec![]);
    let of_port = rule(vec![], vec![ports(&[80])]);
    let policies = each([of_web, of_port]);
    assert_eq!(of_caller(&policies, Caller::Plaintext, 80), [1]);
    assert!(of_caller(&policies, Caller::Plaintext, 81).is_empty());
}

#[test]
fn the_first_policy_that_allows_is_no_dry_run_and_needs_no_rule() {
    let dry = Policy {
        dry_run: true,
        ..allow(vec![rule(vec![], vec![])])
    };
    let deny = policy(PolicyAction::Deny, vec![rule(vec![], vec![])]);
    let audit = policy(PolicyAction::Audit, vec![rule(vec![], vec![])]);
    let others = vec![deny, audit, dry.clone()];
    let policies: Policies = others.clone().into();
    assert_eq!(policies.first_that_allows(), None);
    assert_eq!(policies.first_that_would_allow(), Some(&dry));
    assert_eq!(policies.rules(Role::Allows).count(), 0);
    assert_eq!(policies.rules(Role::Records).count(), 2);
    let empty = allow(vec![]);
    let policies: Policies = others.into_iter().chain([empty.clone()]).collect();
    assert_eq!(policies.first_that_allows(), Some(&empty));
}
