use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_lite_proto::{
    authorization::{
        Decision, FailedField, FieldName, FieldRef, NearestMiss, PolicyAction, Recorded, SourceRef,
        Step, Verdict,
    },
    decision_record::{self, DecisionRecord, MAX_CONNECTIONS_NAMED, MAX_REASON},
    identity::WorkloadId,
    tunnel::Status,
};

use super::*;
use crate::{
    live_connections::{Registered, Subject},
    metrics::{MetricsPrefix, Plaintext, Refusal},
};

mod cost;
mod open;
mod room;
mod words;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const API: &str = "spiffe://cluster.local/ns/shop/sa/api";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn peer(address: &str, id: Option<&str>) -> Peer {
    Peer {
        address: address.parse().unwrap(),
        identity: id.map(|id| id.parse().unwrap()),
        serial: None,
    }
}

fn source(file: &str, line: u32) -> Option<SourceRef> {
    Some(SourceRef {
        document: "shop/api-from-web".into(),
        file: file.into(),
        line,
    })
}

fn allowed() -> Decision {
    Decision {
        verdict: Verdict::Allow,
        step: Step::AllowRule,
        policy: source("policy.yaml", 7),
        rule: Some(0),
        field: None,
        nearest_miss: None,
        recorded: Vec::new(),
        recorded_more: 0,
    }
}

/// Denied because a principal that a rule wants is `wanted`.
fn denied(wanted: &str) -> Decision {
    let field = FieldRef {
        rule: 0,
        entry: 0,
        field: FieldName::Principals,
        line: 9,
    };
    let miss = NearestMiss {
        policy: source("policy.yaml", 7).unwrap(),
        rule: 0,
        failed: vec![FailedField {
            field,
            value: wanted.to_owned(),
            others: 0,
            got: "sa/guest".to_owned(),
        }],
    };
    Decision {
        verdict: Verdict::Deny,
        step: Step::NoAllowRule,
        rule: None,
        nearest_miss: Some(Box::new(miss)),
        ..allowed()
    }
}

/// A connection to be told of.
#[derive(Clone)]
struct Call {
    id: u64,
    at: SystemTime,
    direction: Direction,
    source: Peer,
    destination: Option<Peer>,
    outcome: Outcome,
}

impl Call {
    fn inbound(outcome: Outcome) -> Self {
        Self {
            id: 1,
            at: at(1),
            direction: Direction::Inbound,
            source: peer("10.0.0.9:4000", Some(WEB)),
            destination: Some(peer("10.0.0.2:8080", Some(API))),
            outcome,
        }
    }

    fn allowed() -> Self {
        Self::inbound(Outcome::Decided(allowed()))
    }

    fn stranger(n: u32) -> Self {
        let outcome = Outcome::Refused(Refusal::HandshakeFailed, Some("not a client".into()));
        Self {
            source: Peer {
                address: SocketAddr::new(IpAddr::from(n.to_be_bytes()), 9),
                identity: None,
                serial: None,
            },
            destination: None,
            ..Self::inbound(outcome)
        }
    }

    fn plaintext(n: u32) -> Self {
        let outcome = Outcome::DecidedPlaintext(allowed(), Plaintext::InboundPermissive);
        Self {
            outcome,
            destination: Some(peer("10.0.0.2:8080", None)),
            ..Self::stranger(n)
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            at: self.at,
            connection: ConnectionId::from_u64(self.id),
            direction: self.direction,
            source: &self.source,
            destination: self.destination.as_ref(),
            outcome: &self.outcome,
        }
    }
}

struct Told {
    decisions: Decisions,
    live: LiveConnections,
    metrics: Metrics,
}

impl Told {
    fn with_room(room: usize) -> Self {
        let metrics = Metrics::new(&MetricsPrefix::default(), 10);
        Self {
            decisions: Decisions::new(room, at(0), &metrics),
            live: LiveConnections::default(),
            metrics,
        }
    }

    fn new() -> Self {
        Self::with_room(MAX_ROOM)
    }

    fn of(calls: &[Call]) -> Self {
        let told = Self::new();
        for call in calls {
            told.tell(call);
        }
        told
    }

    fn tell(&self, call: &Call) {
        drop(self.decisions.record(&call.seen()));
    }

    /// As [`Self::tell`], and the connection has ended at `seconds`.
    fn tell_ended(&self, call: &Call, seconds: u64) {
        self.decisions.record(&call.seen()).note(at(seconds));
    }

    fn recording(&self) -> Recording {
        self.decisions.recording(None, &self.live, at(1_000))
    }

    fn records(&self) -> Vec<DecisionRecord> {
        self.recording().records
    }

    fn only_record(&self) -> DecisionRecord {
        let [record] = <[_; 1]>::try_from(self.records()).unwrap();
        record
    }

    /// Plaintext that is open, from the same place as [`Call::plaintext`].
    fn open(&self, id: u64, n: u32) -> Registered {
        let subject = Subject {
            direction: Direction::Inbound,
            peer: None,
            source: IpAddr::from(n.to_be_bytes()),
            destination: "10.0.0.2:8080".parse().unwrap(),
        };
        self.live.register(ConnectionId::from_u64(id), subject)
    }

    fn metric(&self, name: &str) -> u64 {
        let page = self.metrics.encode(at(0));
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    }
}

#[test]
fn connections_with_the_same_facts_are_one_record_whatever_their_port_serial_and_time() {
    let calls: Vec<_> = (1..=3)
        .map(|n| Call {
            id: n,
            at: at(n),
            source: Peer {
                serial: Some(format!("{n:02x}").parse().unwrap()),
                ..peer(&format!("10.0.0.9:{n}"), Some(WEB))
            },
            ..Call::allowed()
        })
        .collect();
    let record = Told::of(&calls).only_record();
    assert_eq!((record.count, record.open), (3, 0));
    assert_eq!((record.first, record.last), (at(1), at(3)));
    assert_eq!(record.source.address.port(), 3);
    assert_eq!(record.connections, [1, 2, 3].map(ConnectionId::from_u64));
    assert_eq!(record.reason.as_deref(), Some(&*allowed().reason()));
}

#[test]
fn only_the_latest_connections_are_named_the_latest_last() {
    for count in [1, 15, 16, 17, 40, 64] {
        let calls: Vec<_> = (1..=count)
            .map(|id| Call {
                id,
                ..Call::allowed()
            })
            .collect();
        let named = Told::of(&calls).only_record().connections;
        let latest = count.saturating_sub(MAX_CONNECTIONS_NAMED as u64) + 1..=count;
        assert_eq!(
            named,
            latest.map(ConnectionId::from_u64).collect::<Vec<_>>()
        );
    }
}

#[test]
fn whatever_tells_decisions_apart_makes_another_record() {
    let decided = |change: fn(&mut Decision)| {
        let mut decision = allowed();
        change(&mut decision);
        Call::inbound(Outcome::Decided(decision))
    };
    let mut calls = vec![
        Call::allowed(),
        decided(|it| it.policy = source("other.yaml", 7)),
        decided(|it| it.policy = source("policy.yaml", 8)),
        decided(|it| it.policy = None),
        decided(|it| it.rule = Some(1)),
        decided(|it| it.step = Step::DefaultAction),
        decided(|it| it.verdict = Verdict::Deny),
        Call::inbound(Outcome::DecidedPlaintext(
            allowed(),
            Plaintext::InboundPermissive,
        )),
        Call::inbound(Outcome::Refused(Refusal::Limit, None)),
        Call::inbound(Outcome::Refused(Refusal::Draining, None)),
        Call::inbound(Outcome::PassedPlaintext(Plaintext::OutboundDns)),
        Call::inbound(Outcome::PassedPlaintext(Plaintext::OutboundOutside)),
        Call::inbound(Outcome::Unanswered(None)),
        Call::inbound(Outcome::Answered(Status::Ok, None)),
        Call::inbound(Outcome::Answered(Status::Ok, Some("shop/a (b:1)".into()))),
        Call::inbound(Outcome::Answered(Status::Denied, None)),
        Call::inbound(Outcome::Answered(Status::Draining, None)),
    ];
    let changed = |change: fn(&mut Call)| {
        let mut call = Call::allowed();
        change(&mut call);
        call
    };
    calls.extend([
        changed(|it| it.direction = Direction::Outbound),
        changed(|it| it.source = peer("10.0.0.8:4000", Some(WEB))),
        changed(|it| it.source = peer("10.0.0.9:4000", Some(API))),
        changed(|it| it.source = peer("10.0.0.9:4000", None)),
        changed(|it| it.destination = Some(peer("10.0.0.2:8081", Some(API)))),
        changed(|it| it.destination = Some(peer("10.0.0.3:8080", Some(API)))),
        changed(|it| it.destination = Some(peer("10.0.0.2:8080", Some(WEB)))),
        changed(|it| it.destination = None),
    ]);
    let told = Told::of(&calls);
    assert_eq!(told.records().len(), calls.len());
    assert_eq!(
        told.metric("mesh_lite_decision_records "),
        calls.len() as u64
    );
    // told again in another order, each finds its own
    calls.iter().rev().for_each(|call| told.tell(call));
    assert_eq!(told.records().len(), calls.len());
    assert!(told.records().iter().all(|record| record.count == 2));
}

#[test]
fn everything_that_is_recorded_is_read_back_from_the_page_as_it_was() {
    let told = Told::of(&[
        Call::allowed(),
        Call::plaintext(7),
        Call::stranger(8),
        Call::inbound(Outcome::Decided(denied("a\u{1b}[2J\"b"))),
        Call::inbound(Outcome::Answered(Status::Ok, Some("shop/a (b:1)".into()))),
        Call {
            direction: Direction::Outbound,
            outcome: Outcome::PassedPlaintext(Plaintext::OutboundDns),
            ..Call::plaintext(9)
        },
    ]);
    told.tell_ended(&Call::allowed(), 900);
    let _open = [told.open(1, 7), told.open(2, 9)];
    let recording = told.recording();
    assert_eq!(recording.records.len(), 7);
    let page = recording.to_lines();
    assert_eq!(Recording::read("page", page.as_bytes()).unwrap(), recording);
}

#[test]
fn a_record_tells_when_the_latest_of_its_connections_ended_and_one_of_what_was_refused_nothing() {
    let told = Told::of(&[Call::plaintext(1)]);
    assert!(told.recording().ends_noted);
    assert_eq!(told.only_record().ended, None);
    told.tell_ended(&Call::plaintext(1), 500);
    told.tell_ended(&Call::plaintext(1), 300);
    let record = told.only_record();
    assert_eq!((record.last, record.ended), (at(1), Some(at(500))));
    let told = Told::new();
    told.tell_ended(&Call::stranger(1), 500);
    assert_eq!(told.only_record().ended, None);
}

#[test]
fn what_is_told_at_the_same_time_is_counted_as_told() {
    const TIMES: u64 = 500;
    let told = Told::new();
    std::thread::scope(|scope| {
        for words in ["first", "second", "third", "fourth"] {
            let told = &told;
            scope.spawn(move || {
                for n in 0..TIMES {
                    let refused = Outcome::Refused(Refusal::Limit, Some(words.into()));
                    told.tell(&Call::inbound(refused));
                    told.tell(&Call::plaintext((n % 7) as u32));
                }
            });
        }
    });
    let records = told.records();
    let counted = |through| {
        let counts = records.iter().filter(|it| it.is_let_through() == through);
        counts.map(|it| it.count).collect::<Vec<_>>()
    };
    assert_eq!(counted(false), [4 * TIMES]);
    assert_eq!(counted(true).len(), 7);
    assert_eq!(counted(true).iter().sum::<u64>(), 4 * TIMES);
    for half in [&told.decisions.0.let_through, &told.decisions.0.rest] {
        let half = locked(half);
        assert_eq!(half.bytes(), half.counted_again());
    }
}

#[test]
fn the_recording_says_whose_it_is_since_when_and_until_when() {
    let told = Told::new();
    let nobody = told.recording();
    assert_eq!((nobody.workload, nobody.identity), (None, None));
    assert_eq!((nobody.since, nobody.until), (at(0), at(1_000)));
    let id: WorkloadId = API.parse().unwrap();
    let mut leaf = leaf(id.clone(), Some("api-0"));
    let of = |leaf: &LeafFacts| told.decisions.recording(Some(leaf), &told.live, at(1));
    assert_eq!(of(&leaf).workload.as_deref(), Some("shop/api-0"));
    assert_eq!(of(&leaf).identity, Some(id));
    leaf.common_name = None;
    assert_eq!(of(&leaf).workload, None);
}

fn leaf(id: WorkloadId, common_name: Option<&str>) -> LeafFacts {
    LeafFacts {
        id,
        serial: "0a".parse().unwrap(),
        not_before: at(0),
        not_after: at(9),
        common_name: common_name.map(str::to_owned),
    }
}
