//! What dry runs and AUDIT policies say beside the verdict.

use super::*;

/// A policy in dry run, by the name `shop/dry-…` of this line, for these principals.
fn dry(action: PolicyAction, line: u32, callers: &[&str]) -> Policy {
    let rules = callers
        .iter()
        .map(|caller| rule(vec![principals(&[caller])], Vec::new()));
    Policy {
        source: source_ref(&format!("shop/dry-{line}"), line),
        dry_run: true,
        ..policy(action, rules.collect())
    }
}

fn said(decision: &Decision) -> Vec<(String, Option<usize>, &'static str)> {
    let recorded = decision.recorded.iter();
    recorded
        .map(|it| (it.policy.to_string(), it.rule, it.effect().as_str()))
        .collect()
}

#[test]
fn dry_runs_of_allow_policies_name_whom_they_would_cut_by_the_first_of_them() {
    let policies = vec![
        dry(PolicyAction::Deny, 1, &[WEB]),
        dry(PolicyAction::Allow, 2, &[WEB]),
        dry(PolicyAction::Allow, 3, &[ODD]),
        policy(PolicyAction::Audit, vec![everybody()]),
    ];
    let cut = ("shop/dry-2 (p.yaml:2)".to_owned(), None, "would_deny");
    let audit = ("shop/p (p.yaml:7)".to_owned(), Some(0), "audit");
    let mut by_default = permissive(policies);
    for step in [Step::MutualTlsMode, Step::DefaultAction] {
        let decision = judge(&by_default, GUEST);
        assert_eq!((decision.verdict, decision.step), (Verdict::Allow, step));
        assert_eq!(said(&decision), [cut.clone(), audit.clone()]);
        // the dry runs are judged together: any of them is enough
        let decision = judge(&by_default, ODD);
        let matched = ("shop/dry-3 (p.yaml:7)".to_owned(), Some(0), "would_allow");
        assert_eq!(said(&decision), [matched, audit.clone()]);
        by_default.default_action = Some((DefaultAction::Allow, source_ref("mesh/d", 1)));
    }
    let denied_too = dry(PolicyAction::Deny, 1, &[GUEST]);
    let policies = by_default
        .policies
        .iter()
        .map(|policy| Policy::clone(policy));
    by_default.policies = [denied_too].into_iter().chain(policies).collect();
    let matched = ("shop/dry-1 (p.yaml:7)".to_owned(), Some(0), "would_deny");
    assert_eq!(said(&judge(&by_default, GUEST)), [cut, matched, audit]);
}

#[test]
fn a_dry_run_of_an_allow_policy_without_rules_would_cut_everybody() {
    let snapshot = permissive(vec![dry(PolicyAction::Allow, 4, &[])]);
    for caller in [WEB, ODD, ""] {
        let cut = ("shop/dry-4 (p.yaml:4)".to_owned(), None, "would_deny");
        let decision = judge(&snapshot, caller);
        assert_eq!(said(&decision), [cut]);
        // a policy does select the workload: the reason must not say that none does
        let reason = "no rule matches; PERMISSIVE allows by default";
        assert_eq!(decision.reason(), reason);
    }
}

#[test]
fn dry_runs_would_cut_nobody_who_is_denied_already_or_allowed_by_a_rule() {
    let dry_run = dry(PolicyAction::Allow, 2, &[ODD]);
    let beside = |more: Vec<Policy>| [vec![dry_run.clone()], more].concat();
    let everybody = |action| policy(action, vec![everybody()]);
    let mut denied_by_default = permissive(beside(Vec::new()));
    denied_by_default.default_action = Some((DefaultAction::Deny, source_ref("mesh/d", 1)));
    let mut broken = permissive(beside(Vec::new()));
    broken.broken.push(BrokenDocument {
        source: source_ref("shop/broken", 3),
        reason: "what".into(),
    });
    let allowed = permissive(beside(vec![everybody(PolicyAction::Allow)]));
    let nobody_allowed = permissive(beside(vec![policy(PolicyAction::Allow, Vec::new())]));
    let denied = permissive(beside(vec![everybody(PolicyAction::Deny)]));
    let strict = snapshot(MutualTlsMode::Strict, beside(Vec::new()));
    for (snapshot, caller, step) in [
        (&allowed, WEB, Step::AllowRule),
        (&nobody_allowed, WEB, Step::NoAllowRule),
        (&denied, WEB, Step::DenyRule),
        (&denied_by_default, WEB, Step::DefaultAction),
        (&broken, WEB, Step::BrokenDocument),
        (&strict, WEB, Step::MutualTlsMode),
        (&strict, "", Step::StrictPort),
    ] {
        let decision = judge(snapshot, caller);
        assert_eq!(decision.step, step);
        assert_eq!(decision.recorded, [], "{step}");
        assert_eq!(decision.recorded.capacity(), 0, "nothing is allocated");
    }
}

#[test]
fn other_policies_that_only_record_would_cut_nobody_whom_they_do_not_match() {
    let audit = policy(PolicyAction::Audit, Vec::new());
    for only in [dry(PolicyAction::Deny, 1, &[ODD]), audit] {
        assert_eq!(judge(&permissive(vec![only]), WEB).recorded, []);
    }
    let audit = dry(PolicyAction::Audit, 1, &[ODD]);
    assert_eq!(judge(&permissive(vec![audit]), WEB).recorded, []);
}

#[test]
fn the_dry_run_that_would_cut_is_named_before_all_others() {
    for others in [14, 15, 16, 40] {
        let deny = (0..others).map(|line| dry(PolicyAction::Deny, line, &[WEB]));
        let allow = dry(PolicyAction::Allow, 99, &[ODD]);
        let decision = judge(&permissive(deny.chain([allow]).collect()), WEB);
        let more = (others as usize + 1).saturating_sub(MAX_RECORDED);
        assert_eq!(decision.recorded_more, more);
        let cut = ("shop/dry-99 (p.yaml:99)".to_owned(), None, "would_deny");
        assert_eq!(said(&decision)[0], cut);
        assert_eq!(decision.recorded.len(), others as usize + 1 - more);
    }
}

#[test]
fn dry_runs_and_audits_are_recorded_and_decide_nothing() {
    let dry = |action, rules| Policy {
        dry_run: true,
        ..policy(action, rules)
    };
    let policies = vec![
        dry(PolicyAction::Deny, vec![everybody()]),
        dry(
            PolicyAction::Allow,
            vec![rule(vec![principals(&[GUEST])], Vec::new()), everybody()],
        ),
        dry(
            PolicyAction::Allow,
            vec![rule(vec![principals(&[GUEST])], Vec::new())],
        ),
        policy(PolicyAction::Audit, vec![everybody()]),
    ];
    let decision = judge(&permissive(policies.clone()), WEB);
    assert_eq!(
        (decision.verdict, decision.step),
        (Verdict::Allow, Step::MutualTlsMode)
    );
    let recorded: Vec<_> = decision
        .recorded
        .iter()
        .map(|r| (r.action, r.dry_run, r.rule))
        .collect();
    assert_eq!(
        recorded,
        [
            (PolicyAction::Deny, true, Some(0)),
            (PolicyAction::Allow, true, Some(1)),
            (PolicyAction::Audit, false, Some(0))
        ]
    );
    let strict = judge(&snapshot(MutualTlsMode::Strict, policies), WEB);
    assert_eq!((strict.verdict, strict.recorded.len()), (Verdict::Deny, 3));
}

#[test]
fn of_many_dry_runs_the_first_are_named_and_the_others_counted() {
    let record = |n: usize| Policy {
        source: source_ref(&format!("shop/dry-{n}"), 1),
        dry_run: true,
        // each matches by two rules, and counts once
        ..policy(PolicyAction::Deny, vec![everybody(), everybody()])
    };
    for (policies, more) in [(16, 0), (17, 1), (1000, 984)] {
        let decision = judge(&permissive((0..policies).map(record).collect()), WEB);
        assert_eq!(
            (decision.recorded.len(), decision.recorded_more),
            (16, more)
        );
        let last = &decision.recorded[15].policy.document;
        assert_eq!(&**last, "shop/dry-15");
    }
}
