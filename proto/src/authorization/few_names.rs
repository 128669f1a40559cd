//! Policies and callers made up of few names, so that they meet often: for property tests.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use proptest::{collection::vec, prelude::*, sample::select, strategy::BoxedStrategy};

use super::{
    BrokenDocument, Caller, DefaultAction, Facts, MutualTls, MutualTlsMode, OperationMatch,
    PeerMatch, Policy, PolicyAction, PolicySnapshot, Rule, ServiceAccountMatch, SourceRef,
};
use crate::identity::WorkloadId;

const PRINCIPALS: &[&str] = &[
    "cluster.local/ns/shop/sa/web",
    "cluster.local/ns/pay/sa/api",
    "cluster.local/ns/*",
    "cluster.local/ns/shop/*",
    "*/sa/api",
    "*/ns/shop/sa/web",
    "*",
    "other.org/*",
];
const ACCOUNTS: &[&str] = &["web", "pay/api", "pay/web"];
const NAMESPACES: &[&str] = &["shop", "pay", "p*", "*y", "*"];
const DOMAINS: &[&str] = &["cluster.local", "*.org", "other*", "*"];
const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0"];
const PORTS: &[&str] = &["80", "81"];
const CALLERS: &[&str] = &[
    "spiffe://cluster.local/ns/shop/sa/web",
    "spiffe://cluster.local/ns/pay/sa/api",
    "spiffe://cluster.local/ns/pay/sa/web",
    "spiffe://other.org/ns/shop/sa/web",
    "spiffe://other.org/ns/pay/sa/api",
    "spiffe://cluster.local/gateway",
    "spiffe://other.org/ns/shop/sa/web/more",
];
const ADDRESSES: &[&str] = &[
    "10.1.2.3",
    "10.2.0.1",
    "192.0.2.1",
    "fd00::1",
    "2001:db8::1",
    "::ffff:10.1.0.1",
];

fn some_of<T>(values: &[&str]) -> BoxedStrategy<Vec<T>>
where
    T: FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug + 'static,
{
    few(values.iter().map(|value| value.parse().unwrap()).collect())
}

/// Nothing, mostly: a source with many fields matches nobody.
fn few<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> BoxedStrategy<Vec<T>> {
    prop_oneof![5 => Just(Vec::new()), 1 => vec(select(values), 1..3)].boxed()
}

pub(super) fn source() -> impl Strategy<Value = PeerMatch> {
    let accounts: Vec<_> = ACCOUNTS
        .iter()
        .map(|value| ServiceAccountMatch::parse(value, "shop").unwrap())
        .collect();
    (
        (some_of(PRINCIPALS), some_of(PRINCIPALS)),
        (few(accounts.clone()), few(accounts)),
        (some_of(NAMESPACES), some_of(NAMESPACES)),
        (some_of(DOMAINS), some_of(DOMAINS)),
        (some_of(BLOCKS), some_of(BLOCKS)),
    )
        .prop_map(
            |(principals, accounts, namespaces, domains, blocks)| PeerMatch {
                line: 1,
                principals: principals.0,
                not_principals: principals.1,
                service_accounts: accounts.0,
                not_service_accounts: accounts.1,
                namespaces: namespaces.0,
                not_namespaces: namespaces.1,
                trust_domains: domains.0,
                not_trust_domains: domains.1,
                ip_blocks: blocks.0,
                not_ip_blocks: blocks.1,
            },
        )
        .prop_filter("an empty source is refused", |peer| !peer.is_empty())
}

pub(super) fn operation() -> impl Strategy<Value = OperationMatch> {
    (some_of(PORTS), some_of(PORTS))
        // an empty operation is refused
        .prop_map(|(ports, not_ports)| OperationMatch {
            line: 1,
            ports: if not_ports.is_empty() && ports.is_empty() {
                vec![80]
            } else {
                ports
            },
            not_ports,
        })
}

pub(super) fn some_rule() -> impl Strategy<Value = Rule> {
    (vec(source(), 0..3), vec(operation(), 0..3)).prop_map(|(from, to)| Rule { line: 1, from, to })
}

pub(super) fn some_policy() -> impl Strategy<Value = Policy> {
    let actions = vec![PolicyAction::Deny, PolicyAction::Allow, PolicyAction::Audit];
    let dry_run = prop::bool::weighted(0.2);
    (select(actions), dry_run, vec(some_rule(), 0..4)).prop_map(|(action, dry_run, rules)| Policy {
        source: source_ref("shop/p"),
        action,
        dry_run,
        rules,
    })
}

fn source_ref(document: &str) -> SourceRef {
    SourceRef {
        document: document.into(),
        file: "p.yaml".into(),
        line: 1,
    }
}

fn mode() -> impl Strategy<Value = MutualTlsMode> {
    select(vec![MutualTlsMode::Strict, MutualTlsMode::Permissive])
}

pub(super) fn some_snapshot() -> impl Strategy<Value = PolicySnapshot> {
    let default = prop::option::of(select(vec![DefaultAction::Allow, DefaultAction::Deny]));
    let policies = vec(some_policy(), 0..5);
    let broken = prop::bool::weighted(0.05);
    (mode(), prop::option::of(mode()), default, policies, broken).prop_map(
        |(mode, of_port, default, policies, broken)| {
            let policies = policies
                .into_iter()
                .enumerate()
                .map(|(number, policy)| Policy {
                    source: source_ref(&format!("shop/p{number}")),
                    ..policy
                });
            PolicySnapshot {
                revision: 1,
                trust_domain: "cluster.local".parse().unwrap(),
                mutual_tls: MutualTls {
                    mode,
                    ports: of_port
                        .map(|mode| (80, mode))
                        .into_iter()
                        .collect::<BTreeMap<_, _>>(),
                },
                default_action: default.map(|action| (action, source_ref("d/d"))),
                policies: policies.collect(),
                evictions: Vec::new(),
                broken: broken
                    .then(|| BrokenDocument {
                        source: source_ref("b/b"),
                        reason: "broken".into(),
                    })
                    .into_iter()
                    .collect(),
            }
        },
    )
}

/// Who calls from where to which port, in its own memory.
#[derive(Debug, Clone)]
pub(super) struct Call {
    caller: Option<WorkloadId>,
    source: IpAddr,
    port: u16,
}

impl Call {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            caller: self
                .caller
                .as_ref()
                .map_or(Caller::Plaintext, Caller::Authenticated),
            source: self.source,
            port: self.port,
        }
    }
}

pub(super) fn some_call() -> impl Strategy<Value = Call> {
    let callers: Vec<WorkloadId> = CALLERS.iter().map(|id| id.parse().unwrap()).collect();
    let sources: Vec<IpAddr> = ADDRESSES
        .iter()
        .map(|address| address.parse().unwrap())
        .collect();
    let caller = prop::option::weighted(0.8, select(callers));
    (caller, select(sources), 79_u16..82).prop_map(|(caller, source, port)| Call {
        caller,
        source,
        port,
    })
}
