//! What is said of rules holds for every caller.

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::authorization::{
    Facts, Policy, PolicySnapshot, decide,
    few_names::{Call, operation, some_call, some_rule, some_snapshot, source},
};

fn own() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn peer(text: &str) -> PeerMatch {
    let mut peer = PeerMatch::default();
    for field in text.split("; ") {
        let (name, values) = field.split_once(' ').unwrap();
        let values = || values.split(' ');
        let account =
            |text| crate::authorization::ServiceAccountMatch::parse(text, "shop").unwrap();
        match name {
            "principals" => peer.principals = values().map(|v| v.parse().unwrap()).collect(),
            "notPrincipals" => peer.not_principals = values().map(|v| v.parse().unwrap()).collect(),
            "serviceAccounts" => peer.service_accounts = values().map(account).collect(),
            "notServiceAccounts" => peer.not_service_accounts = values().map(account).collect(),
            "namespaces" => peer.namespaces = values().map(|v| v.parse().unwrap()).collect(),
            "notNamespaces" => peer.not_namespaces = values().map(|v| v.parse().unwrap()).collect(),
            "trustDomains" => peer.trust_domains = values().map(|v| v.parse().unwrap()).collect(),
            "ipBlocks" => peer.ip_blocks = values().map(|v| v.parse().unwrap()).collect(),
            "notIpBlocks" => peer.not_ip_blocks = values().map(|v| v.parse().unwrap()).collect(),
            other => panic!("{other}"),
        }
    }
    peer
}

/// An empty text is everybody; sources are parted by `|`.
fn rule(text: &str) -> Rule {
    let sources = text.split(" | ").filter(|text| !text.is_empty());
    Rule {
        line: 1,
        from: sources.map(peer).collect(),
        to: Vec::new(),
    }
}

#[test]
fn a_rule_covers_what_asks_for_more() {
    for (wide, narrow) in [
        ("", "principals a.b/ns/x/sa/y"),
        ("principals *", "namespaces shop"),
        (
            "principals cluster.local/*",
            "principals cluster.local/ns/*",
        ),
        (
            "principals */sa/web",
            "principals cluster.local/ns/shop/sa/web",
        ),
        ("namespaces shop", "principals cluster.local/ns/shop/sa/web"),
        ("namespaces shop", "serviceAccounts web shop/api"),
        ("trustDomains a.b", "serviceAccounts web; trustDomains a.b"),
        ("namespaces s*; trustDomains *", "namespaces shop"),
        (
            "namespaces shop | namespaces pay",
            "namespaces pay; ipBlocks 10.0.0.0/8",
        ),
        ("ipBlocks 10.0.0.0/8", "ipBlocks 10.1.0.0/16 10.2.0.0/16"),
        ("notIpBlocks 10.1.0.0/16", "notIpBlocks 10.0.0.0/8"),
        ("notIpBlocks 10.1.0.0/16", "ipBlocks 192.0.2.0/24"),
        ("notNamespaces shop", "notNamespaces s*"),
        (
            "notPrincipals cluster.local/ns/shop/sa/web",
            "principals cluster.local/ns/shop/sa/api",
        ),
        ("principals */sa/web", "principals */ns/shop/sa/web"),
        (
            "principals cluster.local/*",
            "principals cluster.local/ns/shop/*",
        ),
        ("notNamespaces *shop", "notNamespaces *op"),
        (
            "trustDomains *; notNamespaces shop",
            "trustDomains *; notNamespaces shop",
        ),
    ] {
        assert!(
            covers(&rule(wide), &rule(narrow), &own()),
            "{wide} covers {narrow}"
        );
    }
}

#[test]
fn a_rule_does_not_cover_what_some_caller_gets_past_it() {
    for (wide, narrow) in [
        ("principals *", ""),
        // plaintext
        ("principals *", "ipBlocks 10.0.0.0/8"),
        (
            "principals cluster.local/ns/*",
            "principals cluster.local/*",
        ),
        // shop/sa/web/more has no namespace
        ("namespaces shop", "principals cluster.local/ns/shop/*"),
        ("namespaces shop", "namespaces shop; trustDomains other.org"),
        ("namespaces shop", "serviceAccounts web pay/api"),
        ("namespaces shop", "namespaces shop | namespaces pay"),
        ("ipBlocks 10.1.0.0/16", "ipBlocks 10.0.0.0/8"),
        ("notIpBlocks 10.0.0.0/8", "notIpBlocks 10.1.0.0/16"),
        ("notIpBlocks 10.1.0.0/16", "ipBlocks 10.0.0.0/8"),
        ("notNamespaces s*", "notNamespaces shop"),
        ("notNamespaces shop; trustDomains *", "notNamespaces shop"),
        ("notServiceAccounts web", "namespaces shop"),
        ("principals */ns/shop/sa/web", "principals */sa/web"),
        ("notNamespaces *op", "notNamespaces *shop"),
        // shop of our own trust domain is fewer than shop of all
        (
            "trustDomains *; notNamespaces shop",
            "principals *; notNamespaces shop",
        ),
        (
            "trustDomains *; notServiceAccounts web",
            "principals *; notServiceAccounts web",
        ),
    ] {
        assert!(
            !covers(&rule(wide), &rule(narrow), &own()),
            "{wide} does not cover {narrow}"
        );
    }
}

#[test]
fn an_entry_that_contradicts_itself_is_told_by_both_its_fields() {
    use FieldName as F;
    for (text, field, by) in [
        (
            "ipBlocks 10.1.0.0/16; notIpBlocks 10.0.0.0/8",
            F::IpBlocks,
            F::NotIpBlocks,
        ),
        (
            "namespaces shop; notNamespaces s*",
            F::Namespaces,
            F::NotNamespaces,
        ),
        (
            "principals cluster.local/ns/*; notPrincipals cluster.local/*",
            F::Principals,
            F::NotPrincipals,
        ),
        (
            "principals cluster.local/ns/shop/sa/web; namespaces pay",
            F::Principals,
            F::Namespaces,
        ),
        (
            "principals other.org/ns/shop/sa/web; namespaces shop",
            F::Principals,
            F::Namespaces,
        ),
        (
            "principals other.org/ns/shop/sa/web; trustDomains cluster.local",
            F::Principals,
            F::TrustDomains,
        ),
        (
            "serviceAccounts web; namespaces pay",
            F::ServiceAccounts,
            F::Namespaces,
        ),
        (
            "serviceAccounts web; notServiceAccounts web",
            F::ServiceAccounts,
            F::NotServiceAccounts,
        ),
        (
            "namespaces shop; notPrincipals *",
            F::Namespaces,
            F::NotPrincipals,
        ),
        ("notPrincipals *", F::NotPrincipals, F::NotPrincipals),
    ] {
        let rule = rule(text);
        let found = contradictions(0, &rule, PolicyAction::Allow, &own());
        let [found] = &found[..] else {
            panic!("{text}: {found:?}");
        };
        assert_eq!((found.field.field, found.by), (field, by), "{text}");
        assert!(never_matches(&rule, PolicyAction::Allow, &own()), "{text}");
    }
}

#[test]
fn a_rule_that_somebody_matches_is_not_said_to_match_nobody() {
    for text in [
        "",
        "ipBlocks 10.0.0.0/8; notIpBlocks 10.1.0.0/16",
        "namespaces s*; notNamespaces shop",
        "principals other.org/ns/shop/sa/web; namespaces shop; trustDomains *",
        "namespaces shop; notNamespaces shop | namespaces pay",
        "serviceAccounts web pay/api; namespaces pay",
    ] {
        assert!(
            !never_matches(&rule(text), PolicyAction::Allow, &own()),
            "{text}"
        );
    }
    // plaintext has no principal, and a DENY rule takes it for none of these
    assert!(!never_matches(
        &rule("notPrincipals *"),
        PolicyAction::Deny,
        &own()
    ));
}

fn matches(rule: &Rule, action: PolicyAction, facts: &Facts<'_>) -> bool {
    let own = own();
    let asked = Asked::new(facts, &own, action);
    (rule.from.is_empty() || rule.from.iter().any(|peer| peer.matches(&asked)))
        && (rule.to.is_empty() || rule.to.iter().any(|operation| operation.matches(&asked)))
}

fn pairs() -> impl Strategy<Value = (PolicyAction, PolicyAction)> {
    use PolicyAction::{Allow, Audit, Deny};
    prop::sample::select(vec![
        (Allow, Allow),
        (Deny, Deny),
        (Audit, Audit),
        (Deny, Allow),
    ])
}

/// A snapshot without the rule of this index; the policy stays, as one with a rule less.
fn without(snapshot: &PolicySnapshot, policy: usize, rule: usize) -> PolicySnapshot {
    let mut policies: Vec<Policy> = snapshot
        .policies
        .iter()
        .map(|policy| Policy::clone(policy))
        .collect();
    policies[policy].rules.remove(rule);
    PolicySnapshot {
        policies: policies.into_iter().collect(),
        ..snapshot.clone()
    }
}

fn all_calls() -> impl Strategy<Value = Vec<Call>> {
    prop::collection::vec(some_call(), 24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn whoever_matches_a_covered_source_or_operation_matches_the_covering_one(
        (wide, narrow) in (source(), source()), (actions, calls) in (pairs(), all_calls()),
        (wide_to, narrow_to) in (operation(), operation()),
    ) {
        let rule = |peer: &PeerMatch, operation: &OperationMatch| Rule {
            line: 1, from: vec![peer.clone()], to: vec![operation.clone()],
        };
        let (wide, narrow) = (rule(&wide, &wide_to), rule(&narrow, &narrow_to));
        if covers(&wide, &narrow, &own()) {
            for call in &calls {
                let facts = call.facts();
                prop_assert!(!matches(&narrow, actions.1, &facts) || matches(&wide, actions.0, &facts), "{call:?}");
            }
        }
    }

    #[test]
    fn whoever_matches_a_covered_rule_matches_the_covering_one(
        wide in some_rule(), narrow in some_rule(), actions in pairs(), calls in all_calls(),
    ) {
        if covers(&wide, &narrow, &own()) {
            for call in &calls {
                let facts = call.facts();
                prop_assert!(!matches(&narrow, actions.1, &facts) || matches(&wide, actions.0, &facts), "{call:?}");
            }
        }
    }

    #[test]
    fn nobody_matches_a_rule_that_never_matches(
        rule in some_rule(), actions in pairs(), calls in all_calls(),
    ) {
        if never_matches(&rule, actions.0, &own()) {
            for call in &calls {
                prop_assert!(!matches(&rule, actions.0, &call.facts()), "{call:?}");
            }
        }
    }

    #[test]
    fn a_rule_that_is_covered_or_matches_nobody_can_be_removed_without_a_change_of_verdict(
        snapshot in some_snapshot(), (policy, rule) in (any::<Index>(), any::<Index>()), calls in all_calls(),
    ) {
        let with_rules: Vec<usize> = (0..snapshot.policies.len())
            .filter(|index| !snapshot.policies[*index].rules.is_empty())
            .collect();
        if with_rules.is_empty() {
            return Ok(());
        }
        let at = *policy.get(&with_rules);
        let judged = &snapshot.policies[at];
        let number = rule.index(judged.rules.len());
        let narrow = &judged.rules[number];
        let covered = snapshot.policies.iter().enumerate().any(|(index, policy)| {
            !policy.dry_run && (policy.action == judged.action || (policy.action, judged.action) == (PolicyAction::Deny, PolicyAction::Allow))
                && policy.rules.iter().enumerate().any(|(position, wide)| {
                    (index, position) != (at, number) && covers(wide, narrow, &own())
                })
        });
        if covered || never_matches(narrow, judged.action, &own()) {
            let less = without(&snapshot, at, number);
            for call in &calls {
                let facts = call.facts();
                prop_assert_eq!(decide(&snapshot, &facts).verdict, decide(&less, &facts).verdict, "{:?}", call);
            }
        }
    }
}
