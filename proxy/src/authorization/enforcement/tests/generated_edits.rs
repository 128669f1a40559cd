//! Whatever a policy was and whatever it becomes: exactly those are cut who were allowed and no
//! longer are.

use std::cell::Cell;

use mesh_lite_proto::authorization::{OperationMatch, PeerMatch, Policy, PolicyAction, Rule, Step};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{TestCaseError, TestRunner},
};
use tokio::runtime::{Builder, Runtime};

use super::*;

const CALLERS: [&str; 4] = [
    "spiffe://a.test/ns/shop/sa/web",
    "spiffe://a.test/ns/shop/sa/guest",
    "spiffe://a.test/ns/pay/sa/web",
    "spiffe://a.test/gateway",
];
const PATTERNS: [&str; 4] = ["a.test/ns/shop/sa/web", "a.test/ns/pay/*", "*/sa/web", "*"];
const ADDRESSES: [[u8; 4]; 3] = [[10, 0, 0, 1], [10, 1, 0, 1], [192, 0, 2, 1]];
const BLOCKS: [&str; 3] = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.1/32"];
const PORTS: [u16; 2] = [80, 81];
const WATCHED: &str = "spiffe://a.test/ns/shop/sa/watched";
const CASES: u32 = 1500;

/// Few values, so that rules and callers meet often.
fn some_of<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(select(values), 1..3)]
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn peers() -> impl Strategy<Value = PeerMatch> {
    (
        some_of(parsed(&PATTERNS)),
        some_of(parsed(&PATTERNS)),
        some_of(parsed(&["shop", "p*"])),
        some_of(parsed(&BLOCKS)),
    )
        .prop_map(
            |(principals, not_principals, namespaces, ip_blocks)| PeerMatch {
                principals,
                not_principals,
                namespaces,
                ip_blocks,
                ..PeerMatch::default()
            },
        )
        .prop_filter("an empty source is refused", |peer| !peer.is_empty())
}

fn rules() -> impl Strategy<Value = Rule> {
    let operation = vec(select(PORTS.to_vec()), 1..2).prop_map(|ports| OperationMatch {
        ports,
        ..OperationMatch::default()
    });
    (vec(peers(), 0..3), vec(operation, 0..2)).prop_map(|(from, to)| Rule { line: 1, from, to })
}

fn policies() -> impl Strategy<Value = Policy> {
    let actions = vec![PolicyAction::Deny, PolicyAction::Allow, PolicyAction::Audit];
    (
        select(actions),
        prop::bool::weighted(0.1),
        vec(rules(), 0..3),
    )
        .prop_map(|(action, dry_run, rules)| Policy {
            source: source(),
            action,
            dry_run,
            rules,
        })
}

fn snapshots() -> impl Strategy<Value = PolicySnapshot> {
    let mode = || select(vec![MutualTlsMode::Strict, MutualTlsMode::Permissive]);
    let default = select(vec![
        None,
        Some(DefaultAction::Allow),
        Some(DefaultAction::Deny),
    ]);
    (
        mode(),
        prop::option::of(mode()),
        default,
        vec(policies(), 0..4),
    )
        .prop_map(|(mode, of_port, default, policies)| PolicySnapshot {
            mutual_tls: MutualTls {
                mode,
                ports: of_port.map(|mode| (PORTS[0], mode)).into_iter().collect(),
            },
            default_action: default.map(|action| (action, source())),
            policies: policies.into_iter().collect(),
            ..snapshot(DefaultAction::Deny)
        })
}

#[derive(Debug, Clone)]
struct Connection {
    /// `None`: plaintext.
    caller: Option<usize>,
    direction: Direction,
    source: IpAddr,
    port: u16,
}

fn connections() -> impl Strategy<Value = Connection> {
    (
        prop::option::weighted(0.8, 0..CALLERS.len()),
        prop::bool::weighted(0.1),
        select(ADDRESSES.to_vec()),
        select(PORTS.to_vec()),
    )
        .prop_map(|(caller, outbound, source, port)| Connection {
            direction: match caller {
                Some(_) if outbound => Direction::Outbound,
                _ => Direction::Inbound,
            },
            caller,
            source: source.into(),
            port,
        })
}

/// One enforcement at work, for all cases.
struct Held {
    runtime: Runtime,
    mesh: Mesh,
    callers: Vec<Arc<PeerIdentity>>,
    watched: Arc<PeerIdentity>,
    /// Of those that were allowed: kept, and cut.
    kept: Cell<u32>,
    cut: Cell<u32>,
}

impl Held {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let mesh = Mesh::new(DefaultAction::Allow);
        runtime.block_on(mesh.hold());
        Self {
            runtime,
            callers: CALLERS.iter().map(|uri| mesh.peer(uri)).collect(),
            watched: mesh.peer(WATCHED),
            mesh,
            kept: Cell::default(),
            cut: Cell::default(),
        }
    }

    fn register(&self, connection: &Connection) -> Registered {
        let peer = connection
            .caller
            .map(|caller| Arc::clone(&self.callers[caller]));
        let subject = Subject {
            direction: connection.direction,
            peer,
            source: connection.source,
            destination: ([10, 0, 0, 2], connection.port).into(),
        };
        self.mesh
            .enforcement
            .live()
            .register(self.mesh.ids.next_id(), subject)
    }

    fn check(
        &self,
        (old, new): (PolicySnapshot, PolicySnapshot),
        connections: &[Connection],
    ) -> Result<(), TestCaseError> {
        self.mesh.policy.send_replace(Some(Arc::new(old.clone())));
        let watched = Some(Arc::clone(&self.watched));
        let watched = self.mesh.register(watched, Direction::Outbound, 1);
        let mut live = Vec::new();
        for connection in connections {
            let registered = self.register(connection);
            let allowed = match connection.direction {
                Direction::Inbound => self.mesh.enforcement.permit(&registered).is_ok(),
                Direction::Outbound => self.mesh.enforcement.may_talk_to(&registered).is_ok(),
            };
            prop_assert_eq!(
                allowed,
                self.says(&old, connection).is_none(),
                "{:?}",
                connection
            );
            if allowed {
                live.push((connection, registered));
            }
        }
        let evicted = evict(EvictionSubject::Id(WATCHED.parse().unwrap()));
        let and_one_more = PolicySnapshot {
            evictions: vec![evicted],
            ..new.clone()
        };
        self.mesh.policy.send_replace(Some(Arc::new(and_one_more)));
        prop_assert!(self.runtime.block_on(is_cut(&watched)), "nobody was judged");
        for (connection, registered) in live {
            let now_denied = self.says(&new, connection);
            let counted = if now_denied.is_some() {
                &self.cut
            } else {
                &self.kept
            };
            counted.set(counted.get() + 1);
            match (now_denied, registered.cut().reason()) {
                (None, None) => {}
                (Some(denial), Some(CutReason::PlaintextToStrict))
                    if denial.step == Step::StrictPort => {}
                (Some(denial), Some(CutReason::Policy(reason)))
                    if denial.step != Step::StrictPort =>
                {
                    prop_assert_eq!(&denial, &**reason);
                }
                (now_denied, cut) => {
                    let denial = now_denied.map(|denial| denial.reason());
                    return Err(TestCaseError::fail(format!(
                        "{connection:?} was allowed; denied now: {denial:?}; cut: {cut:?}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The denial of what comes in; whom we call is not for our policy to say.
    fn says(&self, snapshot: &PolicySnapshot, connection: &Connection) -> Option<Decision> {
        if connection.direction == Direction::Outbound {
            return None;
        }
        let caller = match connection.caller {
            Some(caller) => Caller::Authenticated(self.callers[caller].id()),
            None => Caller::Plaintext,
        };
        let facts = Facts {
            caller,
            source: connection.source,
            port: connection.port,
        };
        let decision = decide(snapshot, &facts);
        (!decision.is_allowed()).then_some(decision)
    }
}

#[test]
fn those_are_cut_who_were_allowed_and_no_longer_are_and_nobody_else() {
    let held = Held::new();
    let cases = ((snapshots(), snapshots()), vec(connections(), 1..30));
    TestRunner::new(ProptestConfig::with_cases(CASES))
        .run(&cases, |(edit, connections)| held.check(edit, &connections))
        .unwrap_or_else(|error| panic!("{error}"));
    // a test that never cuts, or never keeps, shows nothing
    for count in [held.kept.get(), held.cut.get()] {
        assert!(
            count > CASES,
            "{} kept, {} cut",
            held.kept.get(),
            held.cut.get()
        );
    }
}
