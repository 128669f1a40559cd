//! The steps of the decision, in their order.

use super::*;

#[test]
fn step_0_plaintext_to_a_strict_port_is_refused_whatever_policy_says() {
    let allow = policy(PolicyAction::Allow, vec![everybody()]);
    let mut snapshot = snapshot(MutualTlsMode::Strict, vec![allow]);
    assert_eq!(judge(&snapshot, "").step, Step::StrictPort);
    assert!(judge(&snapshot, WEB).is_allowed());
    snapshot
        .mutual_tls
        .ports
        .insert(8080, MutualTlsMode::Permissive);
    assert!(judge(&snapshot, "").is_allowed());
    assert!(!judge_from(&snapshot, "", "10.0.0.9", 8081).is_allowed());
}

#[test]
fn step_0_a_broken_document_denies_before_anything_allows() {
    let mut snapshot = permissive(vec![policy(PolicyAction::Allow, vec![everybody()])]);
    snapshot.default_action = Some((DefaultAction::Allow, source_ref("mesh/d", 1)));
    let reason = "p.yaml:3:1: what".into();
    snapshot.broken.push(BrokenDocument {
        source: source_ref("shop/broken", 3),
        reason,
    });
    let decision = judge(&snapshot, WEB);
    assert_eq!(
        (decision.verdict, decision.step),
        (Verdict::Deny, Step::BrokenDocument)
    );
    assert_eq!(
        decision.reason(),
        "shop/broken (p.yaml:3) can't be loaded and has no earlier version, so it denies until it is \
         repaired or removed; `mesh-lite policy lint` and /readyz of the control plane say what is wrong"
    );
}

#[test]
fn what_is_broken_is_said_where_its_writer_looks() {
    let reason_of = |file: &str, line| {
        let mut snapshot = permissive(Vec::new());
        let (document, file) = ("shop/broken".into(), file.into());
        snapshot.broken.push(BrokenDocument {
            source: SourceRef {
                document,
                file,
                line,
            },
            reason: "what".into(),
        });
        judge(&snapshot, WEB).reason()
    };
    let object = reason_of("kubernetes:AuthorizationPolicy/shop/broken", 3);
    assert!(
        object.ends_with("removed; its status says what is wrong"),
        "{object}"
    );
    assert_eq!(
        reason_of("together", 0),
        "shop/broken (together) can't be sent, so that all is denied; /policy of its sidecar says why"
    );
}

#[test]
fn step_1_a_deny_rule_wins_over_every_allow_rule() {
    let deny = policy(
        PolicyAction::Deny,
        vec![rule(vec![principals(&[GUEST])], Vec::new())],
    );
    let allow = policy(PolicyAction::Allow, vec![everybody()]);
    let snapshot = permissive(vec![allow, deny]);
    let decision = judge(&snapshot, GUEST);
    assert_eq!(
        (decision.verdict, decision.step),
        (Verdict::Deny, Step::DenyRule)
    );
    assert_eq!(
        decision.reason(),
        "denied by shop/p (p.yaml:7): rules[0].from[0].source.principals matches"
    );
    assert_eq!(judge(&snapshot, WEB).step, Step::AllowRule);
}

#[test]
fn step_2_an_allow_rule_allows_and_is_named() {
    let rules = vec![
        rule(vec![principals(&[GUEST])], Vec::new()),
        rule(Vec::new(), vec![ports(&[1]), ports(&[8080])]),
    ];
    let snapshot = snapshot(
        MutualTlsMode::Strict,
        vec![policy(PolicyAction::Allow, rules)],
    );
    let decision = judge(&snapshot, WEB);
    assert_eq!((decision.step, decision.rule), (Step::AllowRule, Some(1)));
    assert_eq!(
        decision.reason(),
        "allowed by shop/p (p.yaml:7): rules[1].to[1].operation.ports matches"
    );
    assert_eq!(decision.nearest_miss, None);
    let all = snapshot_of_everybody();
    assert_eq!(
        judge(&all, WEB).reason(),
        "allowed by shop/p (p.yaml:7): rules[0] matches everything"
    );
}

fn snapshot_of_everybody() -> PolicySnapshot {
    snapshot(
        MutualTlsMode::Strict,
        vec![policy(PolicyAction::Allow, vec![everybody()])],
    )
}

#[test]
fn step_3_an_allow_policy_denies_whom_no_rule_of_any_names() {
    let allow = policy(
        PolicyAction::Allow,
        vec![rule(vec![principals(&[WEB])], Vec::new())],
    );
    let mut snapshot = permissive(vec![allow]);
    snapshot.default_action = Some((DefaultAction::Allow, source_ref("mesh/d", 1)));
    let decision = judge(&snapshot, GUEST);
    assert_eq!(
        (decision.verdict, decision.step),
        (Verdict::Deny, Step::NoAllowRule)
    );
    assert_eq!(
        decision.reason(),
        "no ALLOW rule matches; nearest is shop/p (p.yaml:7): rules[0].from[0].source.principals \
         wants cluster.local/ns/shop/sa/web, not cluster.local/ns/shop/sa/guest"
    );
}

#[test]
fn step_3_an_allow_policy_without_rules_allows_nobody() {
    let snapshot = permissive(vec![policy(PolicyAction::Allow, Vec::new())]);
    let decision = judge(&snapshot, WEB);
    assert_eq!(
        (decision.verdict, decision.step),
        (Verdict::Deny, Step::NoAllowRule)
    );
    assert_eq!(
        decision.reason(),
        "no ALLOW rule matches: shop/p (p.yaml:1) has no rules and allows nobody"
    );
}

#[test]
fn steps_4_and_5_defaults_decide_where_no_allow_policy_is() {
    let deny = policy(
        PolicyAction::Deny,
        vec![rule(vec![principals(&[GUEST])], Vec::new())],
    );
    for (mode, default, verdict, step) in [
        (
            MutualTlsMode::Strict,
            Some(DefaultAction::Allow),
            Verdict::Allow,
            Step::DefaultAction,
        ),
        (
            MutualTlsMode::Strict,
            Some(DefaultAction::Deny),
            Verdict::Deny,
            Step::DefaultAction,
        ),
        (
            MutualTlsMode::Permissive,
            Some(DefaultAction::Deny),
            Verdict::Deny,
            Step::DefaultAction,
        ),
        (
            MutualTlsMode::Strict,
            None,
            Verdict::Deny,
            Step::MutualTlsMode,
        ),
        (
            MutualTlsMode::Permissive,
            None,
            Verdict::Allow,
            Step::MutualTlsMode,
        ),
    ] {
        for policies in [Vec::new(), vec![deny.clone()]] {
            let mut snapshot = snapshot(mode, policies);
            snapshot.default_action = default.map(|action| (action, source_ref("mesh/d", 4)));
            let decision = judge(&snapshot, WEB);
            assert_eq!((decision.verdict, decision.step), (verdict, step));
            assert_eq!(decision.policy.is_some(), default.is_some());
        }
    }
}

#[test]
fn step_5_asks_for_the_mode_of_the_port() {
    let mut snapshot = permissive(Vec::new());
    snapshot
        .mutual_tls
        .ports
        .insert(8080, MutualTlsMode::Strict);
    assert!(!judge(&snapshot, WEB).is_allowed());
    assert!(judge_from(&snapshot, WEB, "10.0.0.9", 8081).is_allowed());
}

#[test]
fn every_denial_has_a_reason_and_so_has_every_permit() {
    for (mode, caller) in [
        (MutualTlsMode::Strict, ""),
        (MutualTlsMode::Permissive, WEB),
    ] {
        let decision = judge(&snapshot(mode, Vec::new()), caller);
        assert!(decision.reason().len() > 20);
    }
}
