//! `decide` against the naive evaluator, on snapshots and callers made up of few names, so that
//! they meet often.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::Arc,
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{TestCaseError, TestRunner},
};

use super::*;
use crate::{
    authorization::{
        RecordedEffect,
        few_names::{Call, some_call, some_snapshot},
    },
    wire::mesh_lite::v1 as wire,
};

/// Together a million pairs: proptest begins with 256 cases, or with what `PROPTEST_CASES` says.
const SNAPSHOTS_PER_CASE: u32 = 80;
/// For one snapshot, fifty on average: of those that agree nothing is left in the smallest case.
const CALLS: RangeInclusive<usize> = 1..=99;

/// The five steps of the design. What is refused before them comes on top.
const STEPS: [Step; 5] = [
    Step::DenyRule,
    Step::AllowRule,
    Step::NoAllowRule,
    Step::DefaultAction,
    Step::MutualTlsMode,
];

fn agree(snapshot: &PolicySnapshot, call: &Call) -> Result<Decision, TestCaseError> {
    let facts = call.facts();
    let decision = decide(snapshot, &facts);
    let naive = naive_evaluator::judge(snapshot, &facts);
    prop_assert_eq!(summary(&decision), first_recorded(naive));
    let reason = decision.reason();
    prop_assert!(!reason.is_empty());
    Ok(decision)
}

#[test]
fn decides_a_million_times_as_the_text_of_the_design_says() {
    let mut config = ProptestConfig::default();
    config.cases *= SNAPSHOTS_PER_CASE;
    config.failure_persistence = None;
    let taken: RefCell<BTreeMap<Step, usize>> = RefCell::default();
    let would_deny = Cell::new(0);
    let pairs = (some_snapshot(), vec(some_call(), CALLS));
    TestRunner::new(config)
        .run(&pairs, |(snapshot, calls)| {
            for call in &calls {
                let decision = agree(&snapshot, call)?;
                *taken.borrow_mut().entry(decision.step).or_default() += 1;
                would_deny.set(would_deny.get() + usize::from(dry_runs_would_deny(&decision)));
            }
            Ok(())
        })
        .unwrap_or_else(|smallest| panic!("{smallest:#}"));
    let taken = taken.into_inner();
    let all: usize = taken.values().sum();
    println!("{all} pairs");
    if std::env::var_os("PROPTEST_CASES").is_none() {
        assert!(all >= 1_000_000, "only {all} pairs");
    }
    for (step, count) in &taken {
        println!("{step:>16} {count:>8} {:>5.1} %", percent(*count, all));
    }
    for step in STEPS {
        let share = percent(taken.get(&step).copied().unwrap_or_default(), all);
        assert!(share >= 10.0, "{step} decides only {share:.1} % of {all}");
    }
    let share = percent(would_deny.get(), all);
    println!("dry runs would deny {:>5} {share:>5.1} %", would_deny.get());
    assert!(
        share >= 0.5,
        "dry runs would deny only {share:.1} % of {all}"
    );
}

/// Of the ALLOW policies among them, none of which has a rule that matches.
fn dry_runs_would_deny(decision: &Decision) -> bool {
    let mut recorded = decision.recorded.iter();
    recorded.any(|recorded| recorded.rule.is_none())
}

#[test]
fn the_naive_evaluator_stays_short_enough_to_be_read_beside_the_design() {
    let lines = include_str!("../naive_evaluator.rs").lines().count();
    assert!(lines < 80, "{lines} lines");
}

fn percent(part: usize, all: usize) -> f64 {
    100.0 * part as f64 / all as f64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_dry_runs_and_audits_say_changes_no_verdict(
        snapshot in some_snapshot(), call in some_call(),
    ) {
        let enforced = |p: &&Arc<Policy>| !p.dry_run && p.action != PolicyAction::Audit;
        let without = PolicySnapshot {
            policies: snapshot.policies.iter().filter(enforced).cloned().collect(),
            ..snapshot.clone()
        };
        let decision = decide(&without, &call.facts());
        prop_assert!(decision.recorded.is_empty() && decision.recorded_more == 0);
        let Decision { recorded, recorded_more, .. } = decide(&snapshot, &call.facts());
        let with = Decision { recorded, recorded_more, ..decision };
        prop_assert_eq!(with, decide(&snapshot, &call.facts()));
    }

    #[test]
    fn dry_runs_would_deny_exactly_whom_they_would_if_they_were_enforced(
        snapshot in some_snapshot(), call in some_call(),
    ) {
        let enforce = |policy: &Arc<Policy>| Policy {
            // a DENY is recorded by its own rule
            dry_run: policy.dry_run && policy.action != PolicyAction::Allow,
            ..Policy::clone(policy)
        };
        let enforced = PolicySnapshot {
            policies: snapshot.policies.iter().map(enforce).collect(),
            ..snapshot.clone()
        };
        let today = decide(&snapshot, &call.facts());
        let then = decide(&enforced, &call.facts());
        prop_assert_eq!(dry_runs_would_deny(&today), today.is_allowed() && !then.is_allowed());
        if let Some(recorded) = today.recorded.iter().find(|it| it.rule.is_none()) {
            prop_assert_eq!(recorded.effect(), RecordedEffect::WouldDeny);
            prop_assert_eq!(Some(&recorded.policy), then.policy.as_ref());
        }
    }

    #[test]
    fn a_snapshot_survives_the_wire(snapshot in some_snapshot()) {
        let message = wire::PolicySnapshot::from(&snapshot);
        prop_assert_eq!(PolicySnapshot::try_from(message), Ok(snapshot));
    }
}
