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
