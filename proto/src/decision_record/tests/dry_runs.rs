//! What dry runs and AUDIT policies said, read back.

use super::*;
use crate::authorization::{PolicyAction, Recorded, RecordedEffect};

const AUDIT: &str =
    r#"{"action":"AUDIT","policy":"shop/a","policy_source":"a.yaml:3","rule":0,"dry_run":false}"#;
const CUT: &str = r#"{"action":"ALLOW","policy":"shop/next","policy_source":"n.yaml:4","dry_run":true,"effect":"would_deny"}"#;

fn recorded(action: PolicyAction, rule: Option<usize>) -> Recorded {
    Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "n:1.yaml".into(),
            line: 4,
        },
        rule,
        action,
        dry_run: true,
    }
}

fn line_with(items: &[&str]) -> String {
    log(&[&OPEN.replace(AUDIT, &items.join(","))])
}

#[test]
fn a_line_of_a_sidecar_of_before_says_it_without_the_effect() {
    let of_before = read(&log(&[OPEN])).unwrap();
    let [audit] = &*of_before.records[0].recorded else {
        panic!("{of_before:?}");
    };
    assert_eq!(audit.effect(), RecordedEffect::Audit);
    assert_eq!((audit.rule, audit.policy.line), (Some(0), 3));
    assert_eq!(of_before.records[0].recorded_more, 0);
    let none = OPEN.replace(&format!(",\"recorded\":[{AUDIT}]"), "");
    assert_eq!(*read(&log(&[&none])).unwrap().records[0].recorded, []);
}

#[test]
fn whom_no_rule_of_a_dry_run_would_let_in_is_read_as_would_deny() {
    let read = read(&line_with(&[CUT, AUDIT])).unwrap();
    let [cut, audit] = &*read.records[0].recorded else {
        panic!("{read:?}");
    };
    assert_eq!((cut.rule, cut.effect()), (None, RecordedEffect::WouldDeny));
    assert_eq!(&*cut.policy.document, "shop/next");
    assert_eq!(audit.effect(), RecordedEffect::Audit);
}

#[test]
fn a_page_holds_what_was_recorded_as_it_was_and_nothing_where_nothing_was() {
    let with = DecisionRecord {
        recorded: [
            recorded(PolicyAction::Allow, None),
            recorded(PolicyAction::Deny, Some(2)),
        ]
        .into(),
        recorded_more: 984,
        ..allowed()
    };
    let written = recording(vec![with, passed()]);
    let lines = written.to_lines();
    assert_eq!(read(&lines).unwrap(), written);
    let effect = r#""recorded":[{"action":"ALLOW","policy":"shop/next","policy_source":"n:1.yaml:4","dry_run":true,"effect":"would_deny"},"#;
    assert!(lines.contains(effect), "{lines}");
    let without = lines.lines().last().unwrap();
    assert!(!without.contains("recorded"), "{without}");
}

#[test]
fn of_lines_alike_the_latest_says_what_was_recorded() {
    let second = OPEN
        .replace("13:00:00.100", "13:00:02.000")
        .replace("1000000000\"", "1000000001\"")
        .replace(AUDIT, CUT);
    for lines in [[OPEN, &second], [&second, OPEN]] {
        let read = read(&log(&lines)).unwrap();
        let [record] = &*read.records else {
            panic!("{read:?}");
        };
        let [cut] = &*record.recorded else {
            panic!("{record:?}");
        };
        assert_eq!((record.count, cut.effect()), (2, RecordedEffect::WouldDeny));
    }
}

#[test]
fn what_no_sidecar_would_record_is_refused() {
    for (item, why) in [
        (CUT.replace("ALLOW", "DENY"), "without a rule"),
        (CUT.replace("ALLOW", "AUDIT"), "without a rule"),
        (CUT.replace("true", "false"), "without a rule"),
        (CUT.replace("would_deny", "would_allow"), "effect is"),
        (CUT.replace("would_deny", ""), "effect is"),
        (AUDIT.replace("AUDIT", "audit"), "not one of"),
        (AUDIT.replace("\"rule\":0", "\"rule\":-1"), "invalid value"),
        (AUDIT.replace("rule", "rules"), "unknown field"),
        (AUDIT.replace(",\"dry_run\":false", ""), "missing field"),
        (AUDIT.replace("policy\"", "document\""), "unknown field"),
    ] {
        let refused = refusal(&line_with(&[&item]));
        assert!(refused.starts_with("api.log:1: "), "{refused}");
        assert!(refused.contains(why), "{why}: {refused}");
    }
}
