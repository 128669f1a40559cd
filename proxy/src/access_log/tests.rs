use std::{
    net::SocketAddr,
    sync::{Mutex, mpsc::SyncSender},
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{Decision, PolicyAction, Recorded, SourceRef, Step, Verdict},
    decision_record::Recording,
    identity::WorkloadId,
    tunnel::{Answer, EncodedAnswer, Status, TraceId},
};
use serde_json::Value;

use super::*;
use crate::metrics::{Direction, MetricsPrefix, Plaintext, Refusal, Termination};

/// Ten times what anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Memory {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn metrics() -> Metrics {
    Metrics::new(&MetricsPrefix::default(), 10)
}

fn dropped(metrics: &Metrics) -> u64 {
    let page = metrics.encode(SystemTime::UNIX_EPOCH);
    let line = page
        .lines()
        .find_map(|l| l.strip_prefix("mesh_lite_access_log_dropped_total "));
    line.unwrap().parse().unwrap()
}

fn in_memory() -> (AccessLog, Memory, Metrics) {
    let (memory, metrics) = (Memory::default(), metrics());
    (
        AccessLog::write_to(memory.clone(), &metrics).unwrap(),
        memory,
        metrics,
    )
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn id(account: &str) -> WorkloadId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn peer(address: &str, account: &str) -> Peer {
    let address: SocketAddr = address.parse().unwrap();
    Peer {
        address,
        identity: Some(id(account)),
        serial: Some("0a1b".parse().unwrap()),
    }
}

fn decision(verdict: Verdict) -> Decision {
    Decision {
        verdict,
        step: Step::AllowRule,
        policy: Some(SourceRef {
            document: "shop/api-from-web".into(),
            file: "policies/api.yaml".into(),
            line: 12,
        }),
        rule: Some(1),
        field: None,
        nearest_miss: None,
        recorded: Vec::new(),
        recorded_more: 0,
    }
}

fn open_record(outcome: Outcome) -> OpenRecord {
    OpenRecord {
        at: at(1_000),
        connection: ConnectionId::from_u64(0x1000_0000),
        direction: Direction::Inbound,
        source: peer("10.0.0.1:4711", "web"),
        destination: Some(peer("10.0.0.2:8080", "api")),
        original_destination: Some(OriginalDestination::Claimed("10.96.0.7".parse().unwrap())),
        tls: Some(TlsFacts {
            version: "1.3",
            group: "X25519MLKEM768",
        }),
        outcome,
        trace_id: TraceId::new(b"abc-1").unwrap(),
    }
}

/// Went out and was let through at the other end.
fn through() -> Outcome {
    Outcome::Answered(Status::Ok, None)
}

fn close_record() -> CloseRecord {
    CloseRecord {
        at: at(1_002),
        connection: ConnectionId::from_u64(0x1000_0000),
        direction: Direction::Inbound,
        bytes_sent: 70,
        bytes_received: 30,
        duration: Duration::from_millis(2_000),
        end: End::Terminated(Termination::PolicyChanged),
        error: Some("denied by shop/no \"quotes\"\n".into()),
    }
}

#[test]
fn an_allowed_connection_gives_two_lines_with_one_id() {
    let (log, memory, _) = in_memory();
    log.opened(open_record(Outcome::Decided(decision(Verdict::Allow))));
    log.closed(close_record());
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    let [open, close] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    let expected = serde_json::json!({
        "time": "1970-01-01T00:16:40.000Z", "event": "open", "conn_id": "0000000010000000",
        "direction": "inbound",
        "src.addr": "10.0.0.1:4711", "src.identity": "spiffe://cluster.local/ns/shop/sa/web",
        "src.serial": "0a1b",
        "dst.addr": "10.0.0.2:8080", "dst.identity": "spiffe://cluster.local/ns/shop/sa/api",
        "dst.serial": "0a1b",
        "original_dst_claimed": "10.96.0.7", "tls.version": "1.3",
        "tls.group": "X25519MLKEM768", "decision": "allow", "step": "allow-rule",
        "policy": "shop/api-from-web", "policy_source": "policies/api.yaml:12", "rule": 1,
        "reason": decision(Verdict::Allow).reason(), "trace_id_claimed": "abc-1",
    });
    assert_eq!(*open, expected);
    let expected = serde_json::json!({
        "time": "1970-01-01T00:16:42.000Z", "event": "close", "conn_id": "0000000010000000",
        "direction": "inbound", "bytes_sent": 70, "bytes_recv": 30, "duration_ms": 2000,
        "end": "policy_changed", "error": "denied by shop/no \"quotes\"\n",
    });
    assert_eq!(*close, expected);
}

#[test]
fn a_claim_of_the_peer_is_never_named_as_a_fact() {
    let (log, memory, _) = in_memory();
    let mut record = open_record(through());
    log.opened(record.clone());
    record.original_destination = Some(OriginalDestination::Known("10.96.0.7:80".parse().unwrap()));
    record.trace_id = TraceId::NONE;
    log.opened(record);
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    assert_eq!(lines[0].get("original_dst"), None);
    assert_eq!(lines[0].get("trace_id"), None);
    assert_eq!(lines[1]["original_dst"], "10.96.0.7:80");
    assert_eq!(lines[1].get("original_dst_claimed"), None);
    assert_eq!(lines[1].get("trace_id_claimed"), None);
}

#[test]
fn a_dry_run_is_on_the_line_and_does_not_look_like_the_decision() {
    let (log, memory, _) = in_memory();
    let mut decision = decision(Verdict::Allow);
    decision.recorded = vec![Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "next.yaml".into(),
            line: 4,
        },
        rule: Some(0),
        action: PolicyAction::Deny,
        dry_run: true,
    }];
    log.opened(open_record(Outcome::Decided(decision)));
    assert!(log.flush(PATIENCE));
    let line = &memory.lines()[0];
    assert_eq!(line["decision"], "allow");
    assert_eq!(line["recorded"][0]["action"], "DENY");
    assert_eq!(line["recorded"][0]["dry_run"], true);
    assert_eq!(line["recorded"][0]["policy_source"], "next.yaml:4");
    assert_eq!(line["recorded"][0]["effect"], "would_deny");
}

#[test]
fn whom_no_rule_of_a_dry_run_would_let_in_is_said_on_the_line_without_a_rule() {
    let (log, memory, _) = in_memory();
    let recorded = |rule| Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "next.yaml".into(),
            line: 4,
        },
        rule,
        action: PolicyAction::Allow,
        dry_run: true,
    };
    log.opened(open_record(Outcome::Decided(Decision {
        recorded: vec![recorded(None), recorded(Some(3))],
        ..decision(Verdict::Allow)
    })));
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    let (cut, matched) = (&lines[0]["recorded"][0], &lines[0]["recorded"][1]);
    assert_eq!(
        (&cut["effect"], cut.get("rule")),
        (&"would_deny".into(), None)
    );
    assert_eq!(
        (&cut["action"], &cut["dry_run"]),
        (&"ALLOW".into(), &true.into())
    );
    assert_eq!(cut["policy_source"], "next.yaml:4");
    assert_eq!(
        (&matched["effect"], &matched["rule"]),
        (&"would_allow".into(), &3.into())
    );
}

#[test]
fn dry_runs_that_are_too_many_to_name_are_counted_on_the_line() {
    let (log, memory, _) = in_memory();
    let recorded = Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "next.yaml".into(),
            line: 4,
        },
        rule: Some(0),
        action: PolicyAction::Deny,
        dry_run: true,
    };
    for recorded_more in [984, 0] {
        log.opened(open_record(Outcome::Decided(Decision {
            recorded: vec![recorded.clone(); 16],
            recorded_more,
            ..decision(Verdict::Allow)
        })));
    }
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    assert_eq!(lines[0]["recorded"].as_array().unwrap().len(), 16);
    assert_eq!(lines[0]["recorded_more"], 984);
    assert_eq!(lines[1].get("recorded_more"), None);
}

#[test]
fn hostile_text_stays_inside_its_field() {
    let (log, memory, _) = in_memory();
    let text = "\",\"decision\":\"allow\"}\n{\"event\":\"open\u{1b}[2J\u{2028}";
    log.opened(open_record(Outcome::Refused(
        Refusal::HandshakeFailed,
        Some(text.into()),
    )));
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["error"], text);
    assert_eq!(lines[0]["decision"], "refuse");
    assert_eq!(lines[0]["reason"], "handshake_failed");
}

/// What the outbound line says of the decision.
fn decision_fields(line: &Value) -> [Option<&str>; 5] {
    [
        "decision",
        "decided_by",
        "answer",
        "policy",
        "policy_source",
    ]
    .map(|name| line.get(name).map(|value| value.as_str().unwrap()))
}

#[test]
fn the_callers_log_names_the_policy_as_the_log_of_the_one_called_does() {
    let (log, memory, _) = in_memory();
    for (verdict, status) in [
        (Verdict::Allow, Status::Ok),
        (Verdict::Deny, Status::Denied),
    ] {
        let decision = decision(verdict);
        let encoded = EncodedAnswer::new(status, decision.policy.as_ref());
        let (answer, _) = Answer::decode(encoded.as_slice()).unwrap().unwrap();
        let decided_by = answer.decided_by.map(|named| named.as_str().into());
        log.opened(open_record(Outcome::Decided(decision)));
        log.opened(open_record(Outcome::Answered(answer.status, decided_by)));
    }
    assert!(log.flush(PATIENCE));
    for (lines, answer) in memory.lines().chunks(2).zip(["ok", "denied"]) {
        let decided = decision_fields(&lines[0]);
        let [decision, by, said, policy, source] = decision_fields(&lines[1]);
        assert_eq!((by, said), (Some("peer"), Some(answer)));
        assert_eq!([decision, None, None, policy, source], decided);
        assert_eq!(source, Some("policies/api.yaml:12"));
        // what the policy says is for the log of whoever wrote it
        for kept in ["reason", "rule", "step"] {
            assert_eq!(lines[1].get(kept), None, "{kept}");
        }
    }
}

#[test]
fn a_refusal_at_the_other_end_names_no_policy() {
    let (log, memory, _) = in_memory();
    log.opened(open_record(Outcome::Answered(Status::Overloaded, None)));
    // nobody decodes such a name; were there one, it would not get into a line
    log.opened(open_record(Outcome::Answered(
        Status::Denied,
        Some("nameless\n".into()),
    )));
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    let refused = [Some("refuse"), Some("peer"), Some("overloaded"), None, None];
    assert_eq!(decision_fields(&lines[0]), refused);
    let denied = [Some("deny"), Some("peer"), Some("denied"), None, None];
    assert_eq!(decision_fields(&lines[1]), denied);
}

#[test]
fn a_connection_that_ended_before_its_answer_is_unanswered() {
    let (log, memory, _) = in_memory();
    let error = "the far sidecar did not answer in time";
    log.opened(open_record(Outcome::Unanswered(Some(error.into()))));
    assert!(log.flush(PATIENCE));
    let line = &memory.lines()[0];
    let unanswered = [Some("unanswered"), None, None, None, None];
    assert_eq!(decision_fields(line), unanswered);
    assert_eq!(line["error"], error);
}

#[test]
fn plaintext_let_through_names_its_reason() {
    let (log, memory, _) = in_memory();
    log.opened(open_record(Outcome::PassedPlaintext(
        Plaintext::OutboundDns,
    )));
    assert!(log.flush(PATIENCE));
    assert_eq!(memory.lines()[0]["plaintext"], "outbound_dns");
}

/// Holds the log's thread up in its first write until told to go on.
struct Stuck {
    entered: SyncSender<()>,
    go_on: mpsc::Receiver<()>,
    waited: bool,
    out: Memory,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.waited {
            self.waited = true;
            self.entered.send(()).unwrap();
            self.go_on.recv_timeout(PATIENCE).unwrap();
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_queue_loses_what_was_allowed_and_keeps_the_denials() {
    let (memory, metrics) = (Memory::default(), metrics());
    let (entered, has_entered) = mpsc::sync_channel(1);
    let (let_go, go_on) = mpsc::sync_channel(1);
    let out = Stuck {
        entered,
        go_on,
        waited: false,
        out: memory.clone(),
    };
    let log = AccessLog::write_to(out, &metrics).unwrap();
    log.opened(open_record(through()));
    has_entered.recv_timeout(PATIENCE).unwrap();

    // nothing leaves the queue now
    (0..QUEUE + 10).for_each(|_| log.opened(open_record(through())));
    log.closed(close_record());
    assert_eq!(dropped(&metrics), 11);
    let denied = || open_record(Outcome::Decided(decision(Verdict::Deny)));
    (0..RESERVED - 1).for_each(|_| log.opened(denied()));
    log.opened(open_record(Outcome::Refused(Refusal::Limit, None)));
    assert_eq!(dropped(&metrics), 11);
    log.opened(denied());
    assert_eq!(dropped(&metrics), 12);

    let_go.send(()).unwrap();
    assert!(log.flush(PATIENCE));
    let lines = memory.lines();
    let with = |field: &str, value: &str| lines.iter().filter(|l| l[field] == value).count();
    assert_eq!(with("answer", "ok"), QUEUE + 1);
    assert_eq!(with("decision", "deny"), RESERVED - 1);
    assert_eq!(with("decision", "refuse"), 1);
    // the log itself says that something is missing
    let missing: u64 = lines.iter().filter_map(|l| l["lines"].as_u64()).sum();
    assert_eq!(missing, 12);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_a_full_disk_refuses_are_counted() {
    let metrics = metrics();
    let log = AccessLog::write_to(Full, &metrics).unwrap();
    log.opened(open_record(through()));
    log.closed(close_record());
    assert!(log.flush(PATIENCE));
    assert_eq!(dropped(&metrics), 2);
}

/// Full until it is told otherwise.
#[derive(Clone, Default)]
struct FullAtFirst {
    has_room: Arc<std::sync::atomic::AtomicBool>,
    memory: Memory,
}

impl Write for FullAtFirst {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_room.load(Ordering::Relaxed) {
            self.memory.write(bytes)
        } else {
            Full.write(bytes)
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_is_written_again_says_how_many_lines_the_full_disk_refused() {
    let metrics = metrics();
    let disk = FullAtFirst::default();
    let log = AccessLog::write_to(disk.clone(), &metrics).unwrap();
    for _ in 0..3 {
        log.opened(open_record(through()));
        assert!(log.flush(PATIENCE));
    }
    disk.has_room.store(true, Ordering::Relaxed);
    log.closed(close_record());
    assert!(log.flush(PATIENCE));
    let bytes = disk.memory.0.lock().unwrap().clone();
    let read = Recording::read("log", bytes.as_slice()).unwrap();
    // how what ended began is one of the three
    assert_eq!((read.forgotten, read.records.len()), (3, 0));
    assert_eq!(dropped(&metrics), 3);
}

#[test]
fn a_log_that_is_off_takes_nothing_and_loses_nothing() {
    let metrics = metrics();
    let log = AccessLog::start(&Target::Off, &metrics).unwrap();
    assert!(!log.is_on());
    log.opened(open_record(through()));
    assert!(log.flush(Duration::ZERO));
    assert_eq!(dropped(&metrics), 0);
}

#[test]
fn a_file_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let log = AccessLog::start(&Target::File(path.clone()), &metrics()).unwrap();
    log.opened(open_record(through()));
    assert!(log.flush(PATIENCE));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("before\n{"), "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_that_names_it() {
    let target = Target::File("/proc/no/such/folder/access.log".into());
    let error = AccessLog::start(&target, &metrics())
        .unwrap_err()
        .to_string();
    assert!(error.contains("/proc/no/such/folder/access.log"), "{error}");
    assert!(error.contains("--access-log"), "{error}");
}

#[test]
fn ids_of_two_runs_are_apart_whenever_they_start() {
    let (one, other) = (ConnectionIds::of_new_run(), ConnectionIds::of_new_run());
    let ids = [one.next_id(), one.next_id(), other.next_id()];
    assert!(ids[0].is_first_of_run() && ids[2].is_first_of_run());
    assert!(!ids[1].is_first_of_run() && ids[0] < ids[1]);
    assert_eq!(ids[0].run(), ids[1].run());
    assert_ne!(ids[0].run(), ids[2].run());
}

#[test]
fn a_target_is_off_stdout_or_a_path() {
    assert_eq!("off".parse(), Ok(Target::Off));
    assert_eq!("stdout".parse(), Ok(Target::Stdout));
    assert_eq!("./off".parse(), Ok(Target::File("./off".into())));
}
