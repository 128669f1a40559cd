//! `decide` against the naive evaluator, on snapshots and callers made up of few names, so that
//! they meet often.

use std::{net::IpAddr, str::FromStr};

use proptest::{collection::vec, prelude::*, sample::select, strategy::BoxedStrategy};

use super::*;
use crate::{authorization::ServiceAccountMatch, wire::mesh_lite::v1 as wire};

fn some_of<T>(values: &'static [&'static str]) -> BoxedStrategy<Vec<T>>
where
    T: FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug + 'static,
{
    let values: Vec<T> = values.iter().map(|value| value.parse().unwrap()).collect();
    prop_oneof![3 => Just(Vec::new()), 1 => vec(select(values), 1..3)].boxed()
}

fn accounts() -> BoxedStrategy<Vec<ServiceAccountMatch>> {
    let values: Vec<_> = ["web", "pay/api", "pay/web"]
        .map(|value| ServiceAccountMatch::parse(value, "shop").unwrap())
        .into();
    prop_oneof![3 => Just(Vec::new()), 1 => vec(select(values), 1..3)].boxed()
}

fn identity_fields() -> impl Strategy<Value = PeerMatch> {
    const PRINCIPALS: &[&str] = &[
        "cluster.local/ns/shop/sa/web",
        "cluster.local/ns/*",
        "*/sa/api",
        "*",
        "other.org/*",
    ];
    const NAMESPACES: &[&str] = &["shop", "p*", "*y", "*"];
    const DOMAINS: &[&str] = &["cluster.local", "*.org", "other*", "*"];
    (
        (some_of(PRINCIPALS), some_of(PRINCIPALS)),
        (accounts(), accounts()),
        (some_of(NAMESPACES), some_of(NAMESPACES)),
        (some_of(DOMAINS), some_of(DOMAINS)),
    )
        .prop_map(|(principals, accounts, namespaces, domains)| PeerMatch {
            line: 1,
            principals: principals.0,
            not_principals: principals.1,
            service_accounts: accounts.0,
            not_service_accounts: accounts.1,
            namespaces: namespaces.0,
            not_namespaces: namespaces.1,
            trust_domains: domains.0,
            not_trust_domains: domains.1,
            ..PeerMatch::default()
        })
}

fn source() -> impl Strategy<Value = PeerMatch> {
    const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "fd00::/8", "::/0"];
    (identity_fields(), some_of(BLOCKS), some_of(BLOCKS))
        .prop_map(|(peer, ip_blocks, not_ip_blocks)| PeerMatch {
            ip_blocks,
            not_ip_blocks,
            ..peer
        })
        .prop_filter("an empty source is refused", |peer| !peer.is_empty())
}

fn operation() -> impl Strategy<Value = OperationMatch> {
    const PORTS: &[&str] = &["80", "81"];
    (some_of(PORTS), some_of(PORTS))
        .prop_map(|(ports, not_ports)| OperationMatch {
            line: 1,
            ports,
            not_ports,
        })
        .prop_filter("an empty operation is refused", |operation| {
            !operation.is_empty()
        })
}

fn some_policy() -> impl Strategy<Value = Policy> {
    let rule = (vec(source(), 0..3), vec(operation(), 0..2)).prop_map(|(from, to)| rule(from, to));
    let actions = vec![PolicyAction::Deny, PolicyAction::Allow, PolicyAction::Audit];
    (select(actions), prop::bool::weighted(0.2), vec(rule, 0..3)).prop_map(
        |(action, dry_run, rules)| Policy {
            dry_run,
            ..policy(action, rules)
        },
    )
}

fn mode() -> impl Strategy<Value = MutualTlsMode> {
    select(vec![MutualTlsMode::Strict, MutualTlsMode::Permissive])
}

fn some_snapshot() -> impl Strategy<Value = PolicySnapshot> {
    let default = select(vec![
        None,
        Some(DefaultAction::Allow),
        Some(DefaultAction::Deny),
    ]);
    (
        mode(),
        prop::option::of(mode()),
        default,
        vec(some_policy(), 0..4),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(mode, of_port, default, policies, broken)| {
            let mut snapshot = snapshot(mode, policies);
            snapshot
                .mutual_tls
                .ports
                .extend(of_port.map(|mode| (80, mode)));
            snapshot.default_action = default.map(|action| (action, source_ref("d/d", 1)));
            if broken {
                let source = source_ref("b/b", 1);
                snapshot.broken.push(BrokenDocument {
                    source,
                    reason: "broken".into(),
                });
            }
            snapshot
        })
}

fn caller() -> impl Strategy<Value = Option<WorkloadId>> {
    const CALLERS: [&str; 6] = [
        WEB,
        "spiffe://cluster.local/ns/pay/sa/api",
        "spiffe://other.org/ns/shop/sa/web",
        "spiffe://other.org/ns/pay/sa/api",
        "spiffe://cluster.local/gateway",
        "spiffe://other.org/ns/shop/sa/web/more",
    ];
    prop::option::weighted(0.8, select(CALLERS.map(|id| id.parse().unwrap()).to_vec()))
}

fn address() -> impl Strategy<Value = IpAddr> {
    const ADDRESSES: [&str; 5] = [
        "10.1.2.3",
        "10.2.0.1",
        "192.0.2.1",
        "fd00::1",
        "::ffff:10.1.0.1",
    ];
    select(ADDRESSES.map(|address| address.parse().unwrap()).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn decides_as_the_text_of_the_design_says(
        snapshot in some_snapshot(), caller in caller(), source in address(), port in 79_u16..82,
    ) {
        let caller = caller.as_ref().map_or(Caller::Plaintext, Caller::Authenticated);
        let facts = Facts { caller, source, port };
        let decision = decide(&snapshot, &facts);
        prop_assert_eq!(decision.verdict, naive_evaluator::verdict(&snapshot, &facts));
        prop_assert!(!decision.reason().is_empty());
        let by_rule = matches!(decision.step, Step::AllowRule | Step::DenyRule);
        prop_assert_eq!(decision.rule.is_some(), by_rule);
    }

    #[test]
    fn what_dry_runs_and_audits_say_changes_no_verdict(
        snapshot in some_snapshot(), caller in caller(), source in address(), port in 79_u16..82,
    ) {
        let caller = caller.as_ref().map_or(Caller::Plaintext, Caller::Authenticated);
        let facts = Facts { caller, source, port };
        let mut without = snapshot.clone();
        without.policies.retain(|p| !p.dry_run && p.action != PolicyAction::Audit);
        let decision = decide(&without, &facts);
        prop_assert!(decision.recorded.is_empty());
        prop_assert_eq!(decision.verdict, decide(&snapshot, &facts).verdict);
    }

    #[test]
    fn a_snapshot_survives_the_wire(snapshot in some_snapshot()) {
        let message = wire::PolicySnapshot::from(&snapshot);
        prop_assert_eq!(PolicySnapshot::try_from(message), Ok(snapshot));
    }
}
