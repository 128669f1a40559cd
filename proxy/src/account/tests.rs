use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    authorization::SourceRef,
    decision_record::{self, DecisionRecord},
    tunnel::{EncodedAnswer, InvalidAnswer},
};
use serde_json::Value;

use super::*;
use crate::{
    access_log::ConnectionIds, decisions::room, live_connections::LiveConnections,
    metrics::MetricsPrefix,
};

/// Ten times what anything here should take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn epoch() -> SystemTime {
    SystemTime::UNIX_EPOCH
}

/// An outbound connection's account, and where it is told.
struct Told {
    account: Account,
    memory: Memory,
    metrics: Metrics,
    log: AccessLog,
    decisions: Decisions,
}

impl Told {
    fn new() -> Self {
        let metrics = Metrics::new(&MetricsPrefix::default(), 10);
        let memory = Memory::default();
        let log = AccessLog::write_to(memory.clone(), &metrics).unwrap();
        let decisions = Decisions::new(room(None), epoch(), &metrics);
        let account = Account::open(
            ConnectionIds::of_new_run().next_id(),
            Direction::Outbound,
            ([10, 0, 0, 1], 4711).into(),
            (&metrics, &log, &decisions, epoch),
        );
        Self {
            account,
            memory,
            metrics,
            log,
            decisions,
        }
    }

    /// `event` and `decision` of each line.
    fn lines(&self) -> Vec<(String, String)> {
        assert!(self.log.flush(PATIENCE));
        let bytes = self.memory.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let field = |line: &Value, name: &str| line[name].as_str().unwrap_or("-").to_owned();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .map(|line| (field(&line, "event"), field(&line, "decision")))
            .collect()
    }

    fn recorded(&self) -> Vec<DecisionRecord> {
        let live = LiveConnections::default();
        self.decisions.recording(None, &live, epoch()).records
    }

    fn refused_for(&self, reason: &str) -> bool {
        let line = format!("mesh_lite_refused_total{{reason=\"{reason}\"}} 1");
        self.metrics.encode(epoch()).contains(&line)
    }

    fn answered(&self, status: Status) {
        let source = SourceRef {
            document: "shop/api".into(),
            file: "policy.yaml".into(),
            line: 3,
        };
        let encoded = EncodedAnswer::new(status, Some(&source));
        let (answer, _) = Answer::decode(encoded.as_slice()).unwrap().unwrap();
        self.account.answered(answer);
    }
}

fn line(event: &str, decision: &str) -> (String, String) {
    (event.to_owned(), decision.to_owned())
}

#[test]
fn what_the_other_side_let_through_has_a_line_at_its_answer_and_one_at_its_end() {
    let told = Told::new();
    let meter = told.account.meter();
    assert_eq!(told.lines(), []);
    told.answered(Status::Ok);
    assert_eq!(told.lines(), [line("open", "allow")]);
    told.account.closed(&meter, Ok(()));
    assert_eq!(told.lines(), [line("open", "allow"), line("close", "-")]);
    assert!(!told.refused_for("denied_by_peer") && !told.refused_for("refused_by_peer"));
}

#[test]
fn what_the_other_side_did_not_let_through_has_one_line_and_is_counted_by_who_refused() {
    for (status, decision, reason) in [
        (Status::Denied, "deny", "denied_by_peer"),
        (Status::Overloaded, "refuse", "refused_by_peer"),
        (Status::Draining, "refuse", "refused_by_peer"),
    ] {
        let told = Told::new();
        told.answered(status);
        told.account
            .not_let_through(Some(status), &Err(Broken::Status(status)));
        assert_eq!(told.lines(), [line("open", decision)]);
        assert!(told.refused_for(reason), "{status:?}");
    }
}

#[test]
fn what_ended_without_an_answer_has_one_line_and_is_a_refusal_only_if_the_peer_is_why() {
    let reset = || Broken::Application(ErrorKind::ConnectionReset.into());
    for (broken, by_peer) in [
        (Broken::NoAnswer, true),
        (Broken::InvalidAnswer(InvalidAnswer::NotVisible), true),
        (reset(), false),
        (Broken::Cut(CutReason::Draining), false),
    ] {
        let told = Told::new();
        let words = broken.to_string();
        told.account.not_let_through(None, &Err(broken));
        assert_eq!(told.lines(), [line("open", "unanswered")]);
        assert_eq!(told.refused_for("refused_by_peer"), by_peer, "{words}");
    }
}

#[test]
fn what_is_told_to_the_log_is_recorded_once_also_when_the_log_is_off() {
    let mut told = Told::new();
    told.answered(Status::Denied);
    let [logged] = <[_; 1]>::try_from(told.recorded()).unwrap();
    assert_eq!(logged.outcome, decision_record::Outcome::Deny);
    assert!(logged.decided_by_peer);
    assert_eq!(
        logged.policy.unwrap().to_string(),
        "shop/api (policy.yaml:3)"
    );
    told.account.log = AccessLog::off();
    told.answered(Status::Denied);
    told.account.refused(Refusal::NoEndpoint.into());
    told.account.not_let_through(None, &Err(Broken::NoAnswer));
    let counts: Vec<_> = told
        .recorded()
        .iter()
        .map(|record| (record.outcome.as_str(), record.count))
        .collect();
    assert_eq!(counts, [("unanswered", 1), ("refuse", 1), ("deny", 2)]);
    assert_eq!(told.lines(), [line("open", "deny")]);
}

#[test]
fn the_end_of_what_was_let_through_is_recorded_also_when_the_log_is_off() {
    let mut told = Told::new();
    told.account.log = AccessLog::off();
    let meter = told.account.meter();
    told.answered(Status::Ok);
    let ended = |told: &Told| told.recorded().first().and_then(|record| record.ended);
    assert_eq!(ended(&told), None);
    told.account.clock = || SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    told.account.closed(&meter, Ok(()));
    assert_eq!(ended(&told), Some(epoch() + Duration::from_secs(60)));
}

#[test]
fn a_connection_that_is_cut_says_in_its_close_line_why() {
    let cases = [
        (CutReason::PlaintextToStrict, "mutual TLS only now (STRICT)"),
        (CutReason::TrustChanged, "no longer in the trust bundle"),
        (
            CutReason::Evicted("a/b (e.yaml:1)".to_owned()),
            "evicted by a/b (e.yaml:1)",
        ),
        (CutReason::Draining, "the sidecar ends"),
    ];
    for (reason, words) in cases {
        let told = Told::new();
        let meter = told.account.meter();
        told.account.closed(&meter, Err(Broken::Cut(reason)));
        assert!(told.log.flush(PATIENCE));
        let log = String::from_utf8(told.memory.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&log).unwrap();
        let error = line["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_goes_in_plaintext_names_nobody_though_another_endpoints_sidecar_was_tried_before() {
    let mut told = Told::new();
    let id = "spiffe://a.test/ns/shop/sa/web".parse().unwrap();
    told.account.source.identity = Some(id);
    told.account.source.serial = Some("0a".parse().unwrap());
    told.account.tls = Some(TlsFacts {
        version: "TLSv1.3",
        group: "X25519MLKEM768",
    });
    let plain = ([10, 0, 0, 2], 8080).into();
    told.account.goes_in_plaintext_to(plain);
    let outcome = Outcome::PassedPlaintext(Plaintext::OutboundOutside);
    drop(told.account.let_through(outcome));
    let [record] = <[_; 1]>::try_from(told.recorded()).unwrap();
    assert_eq!(record.source.identity, None);
    assert_eq!(record.destination.unwrap().address, plain);
    assert!(told.log.flush(PATIENCE));
    let log = String::from_utf8(told.memory.0.lock().unwrap().clone()).unwrap();
    assert!(!log.contains("identity") && !log.contains("serial") && !log.contains("tls"));
}
