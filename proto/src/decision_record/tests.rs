use std::time::Duration;

use super::*;

mod access_log;
mod asked_for;
mod container_log;
mod dry_runs;
mod hostile;
mod refusals;
mod runs;
mod times;

const OPEN: &str = r#"{"time":"2026-11-21T13:00:00.100Z","event":"open","conn_id":"06920f1000000000","direction":"inbound","src.addr":"10.0.0.9:40001","src.identity":"spiffe://cluster.local/ns/shop/sa/web","src.serial":"0a","dst.addr":"10.0.0.2:8080","dst.identity":"spiffe://cluster.local/ns/shop/sa/api","dst.serial":"0b","original_dst_claimed":"10.0.0.2","tls.version":"TLSv1.3","tls.group":"X25519MLKEM768","decision":"allow","step":"allow-rule","policy":"shop/api-from-web","policy_source":"policy.yaml:7","rule":0,"reason":"allowed by shop/api-from-web (policy.yaml:7): rules[0].from[0].source.principals matches","recorded":[{"action":"AUDIT","policy":"shop/a","policy_source":"a.yaml:3","rule":0,"dry_run":false}],"trace_id_claimed":"06920f1000000009"}"#;
const CLOSE: &str = r#"{"time":"2026-11-21T13:00:05.000Z","event":"close","conn_id":"06920f1000000000","direction":"inbound","bytes_sent":1,"bytes_recv":2,"duration_ms":4900,"end":"complete"}"#;
const STRICT: &str = r#"{"time":"2026-11-21T13:00:01.000Z","event":"open","conn_id":"06920f1000000002","direction":"inbound","src.addr":"10.0.0.7:5000","dst.addr":"10.0.0.2:8080","decision":"refuse","reason":"plaintext_to_strict","error":"plaintext to port 8080"}"#;

fn read(text: &str) -> Result<Recording, InvalidRecording> {
    Recording::read("api.log", text.as_bytes())
}

fn refusal(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

fn log(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000) + Duration::from_millis(millis)
}

fn allowed() -> DecisionRecord {
    DecisionRecord {
        first: at(1),
        last: at(2_500),
        direction: Direction::Inbound,
        source: Endpoint {
            address: "10.0.0.9:40001".parse().unwrap(),
            identity: Some(id("spiffe://cluster.local/ns/shop/sa/web")),
        },
        destination: Some(Endpoint {
            address: "[fd00::2]:8080".parse().unwrap(),
            identity: Some(id("spiffe://cluster.local/ns/shop/sa/api")),
        }),
        outcome: Outcome::Allow,
        decided_by_peer: false,
        step: Some(Step::AllowRule),
        policy: Some(SourceRef {
            document: "shop/api-from-web".into(),
            file: "dir/policy:1.yaml".into(),
            line: 7,
        }),
        rule: Some(0),
        reason: Some("allowed \"by\" \u{1b}[2J\u{85}\u{202e} rule".into()),
        plaintext: None,
        error: None,
        recorded: [].into(),
        recorded_more: 0,
        count: 3,
        open: 2,
        ended: Some(at(2_700)),
        connections: vec![ConnectionId(1), ConnectionId(2), ConnectionId(3)],
    }
}

fn passed() -> DecisionRecord {
    DecisionRecord {
        direction: Direction::Outbound,
        destination: None,
        outcome: Outcome::Pass,
        step: None,
        policy: None,
        rule: None,
        reason: None,
        plaintext: Some("outbound_dns".into()),
        error: Some("x".into()),
        ..allowed()
    }
}

fn answered() -> DecisionRecord {
    DecisionRecord {
        direction: Direction::Outbound,
        outcome: Outcome::Deny,
        decided_by_peer: true,
        step: None,
        rule: None,
        reason: None,
        open: 0,
        ..allowed()
    }
}

fn recording(records: Vec<DecisionRecord>) -> Recording {
    Recording {
        workload: Some("shop/api-0".into()),
        identity: Some(id("spiffe://cluster.local/ns/shop/sa/api")),
        since: at(0),
        until: at(9_999),
        forgotten: 5,
        forgotten_let_through: 2,
        begins_late: false,
        ends_noted: true,
        records,
    }
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    let bare = Recording {
        workload: None,
        identity: None,
        ..recording(Vec::new())
    };
    for written in [recording(vec![allowed(), passed(), answered()]), bare] {
        assert_eq!(read(&written.to_lines()).unwrap(), written);
    }
}

#[test]
fn a_record_is_one_line_without_control_characters_and_named_as_in_the_access_log() {
    let lines = recording(vec![allowed()]).to_lines();
    assert_eq!(lines.lines().count(), 2);
    assert!(
        !lines
            .chars()
            .any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'))
    );
    let line: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    for (field, value) in [
        ("event", "decision"),
        ("time", "2026-11-18T11:06:42.500Z"),
        ("first", "2026-11-18T11:06:40.001Z"),
        ("src.addr", "10.0.0.9:40001"),
        ("dst.identity", "spiffe://cluster.local/ns/shop/sa/api"),
        ("policy_source", "dir/policy:1.yaml:7"),
        ("step", "allow-rule"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["conn_ids"][2], "0000000000000003");
}

#[test]
fn policy_has_facts_of_what_came_in_and_came_as_far_as_policy() {
    let denied = |direction, decided_by_peer| DecisionRecord {
        outcome: Outcome::Deny,
        direction,
        decided_by_peer,
        ..allowed()
    };
    let web = id("spiffe://cluster.local/ns/shop/sa/web");
    let wanted = Facts {
        caller: Caller::Authenticated(&web),
        source: "10.0.0.9".parse().unwrap(),
        port: 8080,
    };
    assert_eq!(allowed().facts(), Some(wanted));
    assert_eq!(denied(Direction::Inbound, false).facts(), Some(wanted));
    assert_eq!(denied(Direction::Outbound, false).facts(), None);
    assert_eq!(denied(Direction::Inbound, true).facts(), None);
    assert_eq!(passed().facts(), None);
    let strict = read(&log(&[STRICT])).unwrap();
    assert_eq!(strict.records[0].facts().unwrap().caller, Caller::Plaintext);
    let other = read(&log(&[&STRICT.replace("plaintext_to_strict", "limit")])).unwrap();
    assert_eq!(other.records[0].facts(), None);
}

#[test]
fn only_what_was_forwarded_was_let_through() {
    let through: Vec<_> = Outcome::ALL
        .into_iter()
        .filter(|outcome| outcome.is_let_through())
        .map(Outcome::as_str)
        .collect();
    assert_eq!(through, ["allow", "pass"]);
}

#[test]
fn every_step_is_known_by_its_name() {
    for step in [
        Step::StrictPort,
        Step::BrokenDocument,
        Step::DenyRule,
        Step::AllowRule,
        Step::NoAllowRule,
        Step::DefaultAction,
        Step::MutualTlsMode,
    ] {
        assert_eq!(step_named(step.as_str()), Some(step));
    }
    assert_eq!(step_named("Allow-Rule"), None);
}
