//! What a record says beside its facts.

use super::*;

#[test]
fn the_reason_is_that_of_the_latest_decision_and_bounded() {
    let told = Told::new();
    let deny = |wanted: &str| Call::inbound(Outcome::Decided(denied(wanted)));
    for wanted in ["sa/web", "sa/web", "sa/shop"] {
        told.tell(&deny(wanted));
        let reason = told.only_record().reason.unwrap();
        assert_eq!(*reason, *denied(wanted).reason());
    }
    assert_eq!(told.only_record().count, 3);
    told.tell(&deny(&"é".repeat(600)));
    let reason = told.only_record().reason.unwrap();
    assert!(
        reason.len() <= MAX_REASON && reason.ends_with('…'),
        "{reason}"
    );
    assert!(reason.starts_with("no ALLOW rule matches"));
}

fn dry_run(line: u32, rule: Option<usize>) -> Recorded {
    Recorded {
        policy: source("next.yaml", line).unwrap(),
        rule,
        action: PolicyAction::Allow,
        dry_run: true,
    }
}

fn allowed_beside(recorded: Vec<Recorded>, recorded_more: usize) -> Call {
    Call::inbound(Outcome::Decided(Decision {
        recorded,
        recorded_more,
        ..allowed()
    }))
}

#[test]
fn what_dry_runs_said_is_that_of_the_latest_decision() {
    let told = Told::new();
    let said = |line, rule| vec![dry_run(line, rule)];
    for recorded in [
        Vec::new(),
        said(4, None),
        said(4, None),
        said(5, None),
        said(5, Some(0)),
        Vec::new(),
    ] {
        told.tell(&allowed_beside(recorded.clone(), 0));
        assert_eq!(*told.only_record().recorded, *recorded);
        let page = told.recording().to_lines();
        assert_eq!(
            Recording::read("page", page.as_bytes()).unwrap(),
            told.recording()
        );
    }
    assert_eq!(told.only_record().count, 6);
    told.tell(&allowed_beside(said(5, None), 7));
    told.tell(&allowed_beside(said(5, None), 8));
    assert_eq!(told.only_record().recorded_more, 8);
}

#[test]
fn of_many_dry_runs_a_record_names_the_first_and_counts_the_others() {
    let sixteen: Vec<_> = (0..16).map(|line| dry_run(line, None)).collect();
    let record = Told::of(&[allowed_beside(sixteen.clone(), 984)]).only_record();
    assert_eq!(*record.recorded, sixteen[..4]);
    assert_eq!(record.recorded_more, 16 - 4 + 984);
}

#[test]
fn a_refusal_is_named_and_says_its_latest_error() {
    let told = Told::new();
    for error in ["first", "second"] {
        let outcome = Outcome::Refused(Refusal::PlaintextToStrict, Some(error.into()));
        told.tell(&Call::inbound(outcome));
    }
    let record = told.only_record();
    assert!(record.is_plaintext_to_strict());
    assert_eq!(record.error.as_deref(), Some("second"));
}

#[test]
fn what_another_side_decided_names_its_policy() {
    let call = |text: &str| Call {
        direction: Direction::Outbound,
        ..Call::inbound(Outcome::Answered(Status::Denied, Some(text.into())))
    };
    let record = Told::of(&[call("shop/api (dir/a:b.yaml:12)")]).only_record();
    assert_eq!(record.outcome, decision_record::Outcome::Deny);
    assert!(record.decided_by_peer);
    let policy = record.policy.unwrap();
    assert_eq!(
        (&*policy.document, &*policy.file, policy.line),
        ("shop/api", "dir/a:b.yaml", 12)
    );
    // a peer may say what it likes
    for odd in ["shop/api (nowhere)", "shop/api (x:y)"] {
        let record = Told::of(&[call(odd)]).only_record();
        assert_eq!(record.policy.unwrap().line, 0);
    }
    assert_eq!(Told::of(&[call("nonsense")]).only_record().policy, None);
}

#[test]
fn plaintext_to_a_strict_port_is_named_as_tools_look_for_it() {
    let name = Refusal::PlaintextToStrict.as_str();
    assert_eq!(name, decision_record::PLAINTEXT_TO_STRICT);
}
