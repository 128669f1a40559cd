//! What finding the nearest miss costs, in entries and values compared: no clock says it.

use std::sync::Arc;

use super::*;
use crate::authorization::{
    Facts, Policies, Policy, PolicyAction, ServiceAccountMatch, SourceRef, rule_index::Role,
};

fn policies(rules: impl IntoIterator<Item = Rule>) -> Policies {
    let policy = |rule| Policy {
        source: SourceRef {
            document: "shop/p".into(),
            file: "p.yaml".into(),
            line: 1,
        },
        action: PolicyAction::Allow,
        dry_run: false,
        rules: vec![rule],
    };
    rules.into_iter().map(policy).map(Arc::new).collect()
}

fn rule(from: Vec<PeerMatch>, to: Vec<OperationMatch>) -> Rule {
    Rule { line: 1, from, to }
}

/// An entry with so many addresses, where nobody is.
fn addresses(count: usize) -> PeerMatch {
    PeerMatch {
        ip_blocks: vec!["192.0.2.0/24".parse().unwrap(); count],
        ..PeerMatch::default()
    }
}

fn account(name: &str) -> PeerMatch {
    PeerMatch {
        service_accounts: vec![ServiceAccountMatch::parse(name, "shop").unwrap()],
        ..PeerMatch::default()
    }
}

fn ports(count: u16) -> OperationMatch {
    OperationMatch {
        ports: (1..=count).collect(),
        ..OperationMatch::default()
    }
}

/// The nearest miss of `cluster.local/ns/shop/sa/web` at port 60000, and what it cost.
fn nearest(policies: &Policies) -> (NearestMiss, usize) {
    let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let facts = Facts {
        caller: Caller::Authenticated(&id),
        source: "10.0.0.9".parse().unwrap(),
        port: 60_000,
    };
    let own = "cluster.local".parse().unwrap();
    let asked = Asked::new(&facts, &own, PolicyAction::Allow);
    let mut budget = Budget::of(COMPARED);
    let miss = nearest_within(&mut budget, policies.rules(Role::Allows), &asked).unwrap();
    (miss, budget.spent)
}

#[test]
fn however_many_entries_rules_have_a_bounded_number_is_compared() {
    for rules in [
        vec![rule(vec![addresses(1); 2_500], vec![]); 30],
        vec![rule(vec![addresses(1); 100_000], vec![])],
        vec![rule(vec![], vec![ports(1); 100_000])],
        vec![rule(vec![addresses(100); 1_000], vec![ports(100); 1_000])],
        vec![rule(vec![addresses(10)], vec![ports(10)]); 10_000],
    ] {
        let (miss, spent) = nearest(&policies(rules));
        // the last entry of each list, and the first of the next one, are compared to their ends
        assert!(spent <= COMPARED + 202, "{spent}");
        assert!(!miss.failed.is_empty());
    }
}

#[test]
fn however_small_rules_are_a_bounded_number_is_compared() {
    let (_, spent) = nearest(&policies(vec![rule(vec![], vec![ports(1)]); 10_000]));
    assert_eq!(spent, 2 * COMPARED_RULES);
}

#[test]
fn an_entry_beyond_the_bound_is_compared_if_it_is_the_first() {
    let large = rule(vec![addresses(10_000)], vec![ports(9_000)]);
    let (miss, spent) = nearest(&policies([large.clone(), large]));
    assert_eq!(
        spent,
        10_001 + 9_001,
        "of the first rule, and not of the second"
    );
    let fields: Vec<FieldName> = miss
        .failed
        .iter()
        .map(|failed| failed.field.field)
        .collect();
    assert_eq!(fields, [FieldName::IpBlocks, FieldName::Ports]);
}

#[test]
fn within_the_bound_the_nearest_is_found_wherever_it_stands() {
    let far = rule(vec![addresses(1); 100], vec![ports(10)]);
    let near = rule(
        vec![addresses(1), account("wbe"), account("web")],
        vec![ports(10)],
    );
    let (miss, spent) = nearest(&policies([far.clone(), near, far]));
    assert_eq!(spent, 2 * (200 + 11) + 6 + 11);
    assert_eq!(miss.failed.len(), 1, "{miss}");
    assert_eq!(miss.failed[0].field.field, FieldName::Ports);
}

#[test]
fn of_two_that_are_as_near_it_is_the_first() {
    let one = || rule(vec![account("wbe")], vec![]);
    let policies = policies([rule(vec![addresses(1)], vec![]), one(), one()]);
    let (miss, _) = nearest(&policies);
    assert_eq!(miss.failed[0].value, "shop/wbe", "{miss}");
    let all: Vec<_> = policies.rules(Role::Allows).collect();
    let again = all.iter().rev().copied().chain(all.iter().copied());
    let id = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let facts = Facts {
        caller: Caller::Authenticated(&id),
        source: "10.0.0.9".parse().unwrap(),
        port: 80,
    };
    let own = "cluster.local".parse().unwrap();
    let asked = Asked::new(&facts, &own, PolicyAction::Allow);
    assert_eq!(
        nearest_miss(again, &asked),
        Some(miss),
        "in whatever order they come"
    );
}
