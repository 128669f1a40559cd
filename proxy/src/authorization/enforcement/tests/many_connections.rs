//! As many connections as a sidecar holds, no two alike, held to edits of their policy.

use std::collections::BTreeSet;

use ipnet::IpNet;
use mesh_lite_proto::authorization::{
    OperationMatch, Pattern, PeerMatch, Policy, PolicyAction, Rule,
};

use super::*;

const CONNECTIONS: usize = 10_000;
const IDENTITIES: usize = 40;
const NAMESPACES: [&str; 4] = ["shop", "pay", "data", "web"];
/// One connection each has this identity, this port, this address.
const GUEST: &str = "spiffe://a.test/ns/shop/sa/guest";
const LONELY_PORT: u16 = 7777;
const LONELY_ADDRESS: &str = "10.9.9.9";
/// Evicted by each edit: once it is cut, all are being judged.
const WATCHED: &str = "spiffe://a.test/ns/shop/sa/watched";
/// Both take plaintext.
const PLAIN_PORTS: [u16; 2] = [9090, 9091];

/// What one connection is known by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    caller: Option<String>,
    direction: &'static str,
    source: IpAddr,
    port: u16,
}

/// The connections of a test, and those that are still open.
struct Crowd {
    mesh: Mesh,
    connections: Vec<Registered>,
    evictions: usize,
}

impl Crowd {
    /// All are registered and, where policy has a say, permitted.
    async fn gather() -> Self {
        let mesh = Mesh::new(DefaultAction::Deny);
        mesh.change(first_policy);
        let callers: Vec<_> = (0..IDENTITIES)
            .map(|number| {
                let namespace = NAMESPACES[number % NAMESPACES.len()];
                mesh.peer(&format!(
                    "spiffe://a.test/ns/{namespace}/sa/caller-{number}"
                ))
            })
            .collect();
        let guest = mesh.peer(GUEST);
        let subjects = (0..CONNECTIONS).map(|number| {
            let inbound = |peer, port| subject(Direction::Inbound, peer, number, port);
            let caller = || Some(Arc::clone(&callers[number / 8 % IDENTITIES]));
            match number {
                0 => inbound(Some(Arc::clone(&guest)), 8080),
                1 => inbound(caller(), LONELY_PORT),
                2 => Subject {
                    source: LONELY_ADDRESS.parse().unwrap(),
                    ..inbound(caller(), 8080)
                },
                _ => match number % 8 {
                    0 => subject(Direction::Outbound, caller(), number, 8080),
                    1 => inbound(None, PLAIN_PORTS[0]),
                    2 => inbound(None, PLAIN_PORTS[1]),
                    3 => inbound(caller(), PLAIN_PORTS[0]),
                    4 => inbound(caller(), 8081),
                    _ => inbound(caller(), 8080),
                },
            }
        });
        let subjects: Vec<_> = subjects.collect();
        let register = |subject| {
            mesh.enforcement
                .live()
                .register(mesh.ids.next_id(), subject)
        };
        let connections: Vec<_> = subjects.into_iter().map(register).collect();
        for connection in &connections {
            match connection.subject().direction {
                Direction::Inbound => drop(mesh.enforcement.permit(connection).unwrap()),
                Direction::Outbound => mesh.enforcement.may_talk_to(connection).unwrap(),
            }
        }
        mesh.hold().await;
        Self {
            mesh,
            connections,
            evictions: 0,
        }
    }

    /// For each turn that this task gives away, enforcement takes one.
    async fn all_are_judged(&self) {
        for _ in 0..CONNECTIONS / JUDGED_AT_A_TIME + 10 {
            yield_now().await;
        }
    }

    fn count_cut(&self) -> usize {
        let cut = |connection: &&Registered| connection.cut().reason().is_some();
        self.connections.iter().filter(cut).count()
    }

    /// Edits the policy and waits until everybody has been judged by it; who was cut.
    async fn cut_by(&mut self, edit: impl FnOnce(&mut PolicySnapshot)) -> BTreeSet<Known> {
        // a fresh name each time: an eviction of before would cut it too early
        self.evictions += 1;
        let id = format!("{WATCHED}-{}", self.evictions);
        let watched = self.mesh.peer(&id);
        let watched = self.mesh.register(Some(watched), Direction::Outbound, 1);
        self.mesh.change(|snapshot| {
            edit(snapshot);
            let id = id.parse().unwrap();
            snapshot.evictions.push(evict(EvictionSubject::Id(id)));
        });
        assert!(is_cut(&watched).await, "nobody was judged");
        self.all_are_judged().await;
        let is_open = |connection: &Registered| connection.cut().reason().is_none();
        let (open, cut): (Vec<_>, Vec<_>) = self.connections.drain(..).partition(is_open);
        self.connections = open;
        cut.iter().map(known).collect()
    }
}

fn subject(
    direction: Direction,
    peer: Option<Arc<PeerIdentity>>,
    number: usize,
    port: u16,
) -> Subject {
    let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
    Subject {
        direction,
        peer,
        source: IpAddr::from([10, 1, high, low]),
        destination: ([10, 0, 0, 2], port).into(),
    }
}

fn known(connection: &Registered) -> Known {
    let subject = connection.subject();
    Known {
        caller: subject.peer.as_ref().map(|peer| peer.id().to_string()),
        direction: subject.direction.as_str(),
        source: subject.source,
        port: subject.destination.port(),
    }
}

/// Everybody is allowed, each for a reason of their own; the mesh's default denies.
fn first_policy(snapshot: &mut PolicySnapshot) {
    let plaintext = PLAIN_PORTS.map(|port| (port, MutualTlsMode::Permissive));
    snapshot.mutual_tls.ports = plaintext.into();
    let in_namespaces = |namespaces: &[&str]| PeerMatch {
        namespaces: namespaces
            .iter()
            .map(|name| name.parse().unwrap())
            .collect(),
        ..PeerMatch::default()
    };
    let allowed = [
        policy(
            "shop/neighbours",
            PolicyAction::Allow,
            [
                rule([in_namespaces(&["shop", "pay"])], []),
                rule([in_namespaces(&["data"])], []),
            ],
        ),
        policy(
            "shop/principals",
            PolicyAction::Allow,
            [rule([principals(["a.test/ns/web/*"])], [])],
        ),
        policy(
            "shop/plaintext",
            PolicyAction::Allow,
            [rule([blocks(["10.1.0.0/16"])], [ports(PLAIN_PORTS)])],
        ),
        policy(
            "shop/strangers",
            PolicyAction::Deny,
            [rule([blocks(["192.0.2.0/24"])], [])],
        ),
    ];
    snapshot.policies = allowed.into_iter().collect();
}

fn policy<const N: usize>(name: &str, action: PolicyAction, rules: [Rule; N]) -> Policy {
    Policy {
        source: SourceRef {
            document: name.into(),
            file: "policy.yaml".into(),
            line: 1,
        },
        action,
        dry_run: false,
        rules: rules.into(),
    }
}

fn rule<const F: usize, const T: usize>(from: [PeerMatch; F], to: [OperationMatch; T]) -> Rule {
    Rule {
        line: 7,
        from: from.into(),
        to: to.into(),
    }
}

fn everybody() -> Rule {
    rule([], [])
}

fn principals<const N: usize>(patterns: [&str; N]) -> PeerMatch {
    let parsed = patterns.map(|text| text.parse::<Pattern<_>>().unwrap());
    PeerMatch {
        principals: parsed.into(),
        ..PeerMatch::default()
    }
}

fn blocks<const N: usize>(blocks: [&str; N]) -> PeerMatch {
    PeerMatch {
        ip_blocks: blocks.map(|text| text.parse::<IpNet>().unwrap()).into(),
        ..PeerMatch::default()
    }
}

fn ports<const N: usize>(ports: [u16; N]) -> OperationMatch {
    OperationMatch {
        ports: ports.into(),
        ..OperationMatch::default()
    }
}

/// Edits the list of policies, which is shared otherwise.
fn edit_policies(snapshot: &mut PolicySnapshot, edit: impl FnOnce(&mut Vec<Policy>)) {
    let policies = snapshot.policies.iter();
    let mut policies: Vec<Policy> = policies.map(|policy| Policy::clone(policy)).collect();
    edit(&mut policies);
    snapshot.policies = policies.into_iter().collect();
}

fn add(snapshot: &mut PolicySnapshot, added: Policy) {
    edit_policies(snapshot, |policies| policies.push(added));
}

#[tokio::test]
async fn an_edit_that_denies_one_of_ten_thousand_closes_that_one_and_no_other() {
    let mut crowd = Crowd::gather().await;
    let deny = |name, rule| policy(name, PolicyAction::Deny, [rule]);
    type IsIt = fn(&Known) -> bool;
    let edits: [(Policy, IsIt); 3] = [
        (
            deny(
                "shop/by-identity",
                rule([principals(["a.test/ns/shop/sa/guest"])], []),
            ),
            |one| one.caller.as_deref() == Some(GUEST),
        ),
        (
            deny("shop/by-port", rule([], [ports([LONELY_PORT])])),
            |one| one.port == LONELY_PORT,
        ),
        (
            deny("shop/by-address", rule([blocks(["10.9.9.0/24"])], [])),
            |one| one.source.to_string() == LONELY_ADDRESS,
        ),
    ];
    for (denies, is_it) in edits {
        let name = denies.source.document.clone();
        let cut = crowd.cut_by(|snapshot| add(snapshot, denies)).await;
        assert_eq!(cut.len(), 1, "{name}: {cut:?}");
        assert!(cut.iter().all(is_it), "{name}: {cut:?}");
    }
    assert_eq!(crowd.connections.len(), CONNECTIONS - 3);
}

#[tokio::test]
async fn one_who_is_no_longer_allowed_is_closed_though_no_rule_denies_it() {
    let mut crowd = Crowd::gather().await;
    let cut = crowd
        .cut_by(|snapshot| {
            edit_policies(snapshot, |policies| {
                let neighbours = &mut policies[0].rules[0].from[0];
                neighbours.not_principals = principals(["*/sa/guest"]).principals;
            });
        })
        .await;
    let callers: Vec<_> = cut.iter().map(|one| one.caller.as_deref()).collect();
    assert_eq!(callers, [Some(GUEST)]);
}

type Edit = fn(&mut PolicySnapshot);

fn policies_that_say_the_same() -> [(&'static str, Edit); 7] {
    [
        ("policies renamed and moved", |snapshot| {
            edit_policies(snapshot, |policies| {
                for policy in policies {
                    policy.source.document = format!("{}-2", policy.source.document).into();
                    policy.source.file = "elsewhere.yaml".into();
                    policy.source.line += 100;
                    policy.rules.iter_mut().for_each(|rule| rule.line += 100);
                }
            });
        }),
        ("rules and policies in another order", |snapshot| {
            edit_policies(snapshot, |policies| {
                policies.reverse();
                policies
                    .iter_mut()
                    .for_each(|policy| policy.rules.reverse());
            });
        }),
        ("an ALLOW policy that matches nobody", |snapshot| {
            add(snapshot, policy("shop/nobody", PolicyAction::Allow, []));
        }),
        ("a DENY policy that matches nobody", |snapshot| {
            let nobody = rule([principals(["a.test/ns/nowhere/*"])], [ports([1])]);
            add(snapshot, policy("shop/none", PolicyAction::Deny, [nobody]));
        }),
        ("a DENY of everybody, as a dry run", |snapshot| {
            let denies = policy("shop/dry", PolicyAction::Deny, [everybody()]);
            let dry_run = Policy {
                dry_run: true,
                ..denies
            };
            add(snapshot, dry_run);
        }),
        ("an AUDIT of everybody", |snapshot| {
            add(
                snapshot,
                policy("shop/audit", PolicyAction::Audit, [everybody()]),
            );
        }),
        ("the same said by one more rule", |snapshot| {
            edit_policies(snapshot, |policies| {
                let again = policies[0].rules[0].clone();
                policies[0].rules.push(again);
            });
        }),
    ]
}

fn the_rest_says_the_same() -> [(&'static str, Edit); 5] {
    [
        ("another revision", |snapshot| snapshot.revision += 1),
        ("the default, stated elsewhere", |snapshot| {
            let elsewhere = SourceRef {
                document: "shop/y".into(),
                ..source()
            };
            snapshot.default_action = Some((DefaultAction::Deny, elsewhere));
        }),
        (
            "no default at all, where STRICT denies as well",
            |snapshot| {
                snapshot.default_action = None;
            },
        ),
        (
            "the mode of a port that nobody speaks plaintext to",
            |snapshot| {
                snapshot
                    .mutual_tls
                    .ports
                    .insert(8080, MutualTlsMode::Permissive);
            },
        ),
        ("an eviction that is over", |snapshot| {
            snapshot.evictions.push(Eviction {
                until: Some(SystemTime::UNIX_EPOCH),
                ..evict(EvictionSubject::Id(GUEST.parse().unwrap()))
            });
        }),
    ]
}

#[tokio::test]
async fn an_edit_that_changes_nothing_for_anybody_closes_nobody() {
    let mut crowd = Crowd::gather().await;
    let edits = policies_that_say_the_same().into_iter();
    for (what, edit) in edits.chain(the_rest_says_the_same()) {
        let cut = crowd.cut_by(edit).await;
        assert!(cut.is_empty(), "{what}: {cut:?}");
    }
    assert_eq!(crowd.connections.len(), CONNECTIONS);
}

#[tokio::test]
async fn an_edit_that_opens_more_closes_nobody() {
    let mut crowd = Crowd::gather().await;
    let edits: [(&str, Edit); 6] = [
        ("a DENY policy less", |snapshot| {
            edit_policies(snapshot, |policies| {
                policies.retain(|policy| policy.action != PolicyAction::Deny);
            });
        }),
        ("a wider rule", |snapshot| {
            edit_policies(snapshot, |policies| policies[0].rules[0].from.clear());
        }),
        ("an ALLOW of everybody", |snapshot| {
            add(
                snapshot,
                policy("shop/all", PolicyAction::Allow, [everybody()]),
            );
        }),
        ("a default that allows", |snapshot| {
            snapshot.default_action = Some((DefaultAction::Allow, source()));
        }),
        ("no policy, where the default allows", |snapshot| {
            edit_policies(snapshot, Vec::clear);
        }),
        ("PERMISSIVE everywhere", |snapshot| {
            snapshot.mutual_tls.mode = MutualTlsMode::Permissive;
            snapshot.mutual_tls.ports.clear();
        }),
    ];
    for (what, edit) in edits {
        let cut = crowd.cut_by(edit).await;
        assert!(cut.is_empty(), "{what}: {cut:?}");
    }
    assert_eq!(crowd.connections.len(), CONNECTIONS);
}

#[tokio::test]
async fn a_port_that_becomes_strict_closes_its_plaintext_and_nothing_else() {
    let mut crowd = Crowd::gather().await;
    let plaintext_of = |crowd: &Crowd, port| {
        let of_port = |one: &Known| one.caller.is_none() && one.port == port;
        let all = crowd.connections.iter().map(known);
        all.filter(of_port).collect::<BTreeSet<_>>()
    };
    let expected = plaintext_of(&crowd, PLAIN_PORTS[0]);
    assert_eq!(expected.len(), CONNECTIONS / 8 - 1);
    let strict = |port| {
        move |snapshot: &mut PolicySnapshot| {
            snapshot
                .mutual_tls
                .ports
                .insert(port, MutualTlsMode::Strict);
        }
    };
    let cut = crowd.cut_by(strict(PLAIN_PORTS[0])).await;
    assert_eq!(cut, expected);
    let expected = plaintext_of(&crowd, PLAIN_PORTS[1]);
    let cut = crowd.cut_by(strict(PLAIN_PORTS[1])).await;
    assert_eq!(cut, expected);
    assert!(
        crowd
            .connections
            .iter()
            .all(|one| one.subject().peer.is_some())
    );
}

#[tokio::test]
async fn while_all_are_judged_others_get_their_turn_and_what_comes_next_counts_at_once() {
    let crowd = Crowd::gather().await;
    let before = (**crowd.mesh.policy.borrow().as_ref().unwrap()).clone();
    crowd.mesh.change(|snapshot| {
        let denies = policy("shop/none", PolicyAction::Deny, [everybody()]);
        add(snapshot, denies);
    });
    for _ in 0..100 {
        if crowd.count_cut() > 0 {
            break;
        }
        yield_now().await;
    }
    let at_first = crowd.count_cut();
    assert!((1..=JUDGED_AT_A_TIME).contains(&at_first), "{at_first}");
    crowd.mesh.change(|snapshot| *snapshot = before);
    crowd.all_are_judged().await;
    assert_eq!(crowd.count_cut(), at_first);
}
