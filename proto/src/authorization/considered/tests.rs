//! What is told of a decision is what was decided.

use proptest::prelude::*;

use super::*;
use crate::authorization::{
    Caller, PeerMatch, Verdict,
    few_names::{some_call, some_snapshot},
};

fn policy(name: &str, action: PolicyAction, rules: Vec<Rule>) -> Policy {
    Policy {
        source: SourceRef {
            document: format!("shop/{name}").into(),
            file: "p.yaml".into(),
            line: 1,
        },
        action,
        dry_run: false,
        rules,
    }
}

fn from(principal: &str) -> Rule {
    let peer = PeerMatch {
        line: 8,
        principals: vec![principal.parse().unwrap()],
        ..PeerMatch::default()
    };
    Rule {
        line: 7,
        from: vec![peer],
        to: Vec::new(),
    }
}

fn judged(policies: Vec<Policy>) -> Considered {
    let snapshot = PolicySnapshot {
        revision: 1,
        trust_domain: "cluster.local".parse().unwrap(),
        mutual_tls: crate::authorization::MutualTls {
            mode: MutualTlsMode::Permissive,
            ports: std::collections::BTreeMap::new(),
        },
        default_action: None,
        policies: policies.into_iter().collect(),
        evictions: Vec::new(),
        broken: Vec::new(),
    };
    let web = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    considered(
        &snapshot,
        &Facts {
            caller: Caller::Authenticated(&web),
            source: "10.0.0.9".parse().unwrap(),
            port: 80,
        },
    )
}

#[test]
fn policies_are_told_of_in_the_order_of_judging_and_none_is_asked_after_the_verdict() {
    let told = judged(vec![
        policy("audit", PolicyAction::Audit, vec![from("*")]),
        policy("second", PolicyAction::Allow, vec![from("*")]),
        policy("third", PolicyAction::Allow, vec![from("*")]),
        policy(
            "first",
            PolicyAction::Deny,
            vec![from("cluster.local/ns/shop/sa/guest")],
        ),
    ]);
    let names: Vec<&str> = told
        .policies
        .iter()
        .map(|policy| &*policy.source.document)
        .collect();
    assert_eq!(
        names,
        ["shop/first", "shop/second", "shop/third", "shop/audit"]
    );
    let asked: Vec<bool> = told.policies.iter().map(|policy| policy.asked).collect();
    assert_eq!(
        asked,
        [true, true, false, true],
        "records are made of every policy"
    );
    assert_eq!(told.decision.verdict, Verdict::Allow);
}

#[test]
fn a_rule_that_did_not_match_says_which_field_had_what_and_wanted_what() {
    let told = judged(vec![policy(
        "p",
        PolicyAction::Allow,
        vec![from("cluster.local/ns/shop/sa/guest")],
    )]);
    let [policy] = &told.policies[..] else {
        panic!("{told:?}");
    };
    let [
        ConsideredRule {
            outcome: RuleOutcome::Stopped(failed),
            ..
        },
    ] = &policy.rules[..]
    else {
        panic!("{policy:?}");
    };
    let [failed] = &failed[..] else {
        panic!("{failed:?}");
    };
    assert_eq!(
        failed.field.to_string(),
        "rules[0].from[0].source.principals"
    );
    assert_eq!(failed.field.line, 8);
    assert_eq!(failed.got, "cluster.local/ns/shop/sa/web");
    assert_eq!(failed.value, "cluster.local/ns/shop/sa/guest");
}

#[test]
fn rules_behind_the_one_that_matched_are_not_asked() {
    let told = judged(vec![policy(
        "p",
        PolicyAction::Allow,
        vec![from("a.b/*"), from("*"), from("*")],
    )]);
    let outcomes: Vec<&RuleOutcome> = told.policies[0]
        .rules
        .iter()
        .map(|rule| &rule.outcome)
        .collect();
    assert!(
        matches!(
            outcomes[..],
            [
                RuleOutcome::Stopped(_),
                RuleOutcome::Matched,
                RuleOutcome::NotAsked
            ]
        ),
        "{outcomes:?}"
    );
}

#[test]
fn a_thousand_policies_are_counted_and_the_one_that_decided_is_told_of() {
    let mut policies: Vec<Policy> = (0..1000)
        .map(|number| {
            policy(
                &format!("p{number}"),
                PolicyAction::Allow,
                vec![from("a.b/*")],
            )
        })
        .collect();
    let rules = (0..1000)
        .map(|_| from("a.b/*"))
        .chain([from("*")])
        .collect();
    policies.push(policy("last", PolicyAction::Allow, rules));
    let told = judged(policies);
    assert_eq!(told.policies.len(), SHOWN_POLICIES + 1);
    assert_eq!(told.left_out, 1000 - SHOWN_POLICIES);
    let last = told.policies.last().unwrap();
    assert_eq!(&*last.source.document, "shop/last");
    assert_eq!(last.rules.len(), SHOWN_RULES + 1);
    assert_eq!(last.matched().unwrap().index, 1000);
}

#[test]
fn the_dry_run_that_stands_for_all_that_would_deny_is_told_of_wherever_it_stands() {
    let dry = |name: String, action| Policy {
        dry_run: true,
        ..policy(&name, action, vec![from("a.b/*")])
    };
    let audits = (0..1000).map(|number| dry(format!("p{number}"), PolicyAction::Audit));
    let allow = (1000..1002).map(|number| dry(format!("p{number}"), PolicyAction::Allow));
    let told = judged(audits.chain(allow).collect());
    assert_eq!(told.decision.verdict, Verdict::Allow);
    assert_eq!(told.policies.len(), SHOWN_POLICIES + 1);
    let would_deny = told.policies.iter().filter(|policy| policy.would_deny);
    let named: Vec<&str> = would_deny.map(|policy| &*policy.source.document).collect();
    assert_eq!(named, ["shop/p1000"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_is_told_agrees_with_the_decision(snapshot in some_snapshot(), call in some_call()) {
        let facts = call.facts();
        let told = considered(&snapshot, &facts);
        prop_assert_eq!(&told.decision, &decide(&snapshot, &facts));
        prop_assert_eq!(told.policies.len(), snapshot.policies.len());
        let of_verdict: Vec<_> = told
            .policies
            .iter()
            .filter(|policy| policy.is_enforced())
            .filter_map(|policy| Some((policy.action, policy.source.document.clone(), policy.matched()?.index)))
            .collect();
        let expected: Vec<_> = match told.decision.step {
            Step::DenyRule => vec![PolicyAction::Deny],
            Step::AllowRule => vec![PolicyAction::Allow],
            _ => Vec::new(),
        };
        let deciding = told.decision.policy.as_ref().zip(told.decision.rule);
        let expected: Vec<_> = expected
            .into_iter()
            .zip(deciding)
            .map(|(action, (policy, rule))| (action, policy.document.clone(), rule))
            .collect();
        prop_assert_eq!(of_verdict, expected);
        let by_none = told.policies.iter().filter(|policy| policy.would_deny);
        let by_none = by_none.map(|policy| (policy.source.document.clone(), None));
        let by_rule = told
            .policies
            .iter()
            .filter(|policy| !policy.is_enforced())
            .filter_map(|policy| Some((policy.source.document.clone(), Some(policy.matched()?.index))));
        let recorded: Vec<_> = by_none.chain(by_rule).collect();
        let of_decision: Vec<_> = told
            .decision
            .recorded
            .iter()
            .map(|recorded| (recorded.policy.document.clone(), recorded.rule))
            .collect();
        prop_assert_eq!(recorded, of_decision);
    }

    #[test]
    fn the_nearest_miss_of_a_denial_is_where_its_rule_stopped(
        snapshot in some_snapshot(), call in some_call(),
    ) {
        let told = considered(&snapshot, &call.facts());
        if let Some(miss) = &told.decision.nearest_miss {
            let policy = told.policies.iter().find(|policy| policy.source.document == miss.policy.document);
            let rule = policy.and_then(|policy| policy.rules.get(miss.rule));
            prop_assert_eq!(
                rule.map(|rule| &rule.outcome),
                Some(&RuleOutcome::Stopped(miss.failed.clone()))
            );
        }
    }
}
