use std::collections::BTreeMap;

use super::{
    naive_evaluator::{self, Naive},
    *,
};
use crate::{
    authorization::{BrokenDocument, FieldName, MutualTls, OperationMatch, PeerMatch},
    identity::WorkloadId,
};

mod dry_runs;
mod fields;
mod generated;
mod nearest_miss;
mod steps;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const GUEST: &str = "spiffe://cluster.local/ns/shop/sa/guest";
const FOREIGN_WEB: &str = "spiffe://other.org/ns/shop/sa/web";
const ODD: &str = "spiffe://cluster.local/gateway/7";

fn source_ref(document: &str, line: u32) -> SourceRef {
    SourceRef {
        document: document.into(),
        file: "p.yaml".into(),
        line,
    }
}

fn snapshot(mode: MutualTlsMode, policies: Vec<Policy>) -> PolicySnapshot {
    PolicySnapshot {
        revision: 1,
        trust_domain: "cluster.local".parse().unwrap(),
        mutual_tls: MutualTls {
            mode,
            ports: BTreeMap::new(),
        },
        default_action: None,
        policies: policies.into(),
        evictions: Vec::new(),
        broken: Vec::new(),
    }
}

fn permissive(policies: Vec<Policy>) -> PolicySnapshot {
    snapshot(MutualTlsMode::Permissive, policies)
}

fn policy(action: PolicyAction, rules: Vec<Rule>) -> Policy {
    Policy {
        source: source_ref("shop/p", 1),
        action,
        dry_run: false,
        rules,
    }
}

fn rule(from: Vec<PeerMatch>, to: Vec<OperationMatch>) -> Rule {
    Rule { line: 7, from, to }
}

fn everybody() -> Rule {
    rule(Vec::new(), Vec::new())
}

fn ports(ports: &[u16]) -> OperationMatch {
    OperationMatch {
        line: 9,
        ports: ports.to_vec(),
        not_ports: Vec::new(),
    }
}

fn principals(values: &[&str]) -> PeerMatch {
    let principals = values.iter().map(|value| value.parse().unwrap()).collect();
    PeerMatch {
        line: 8,
        principals,
        ..PeerMatch::default()
    }
}

/// A caller from 10.0.0.9 to port 8080; an empty text is plaintext.
fn judge(snapshot: &PolicySnapshot, caller: &str) -> Decision {
    judge_from(snapshot, caller, "10.0.0.9", 8080)
}

fn judge_from(snapshot: &PolicySnapshot, caller: &str, source: &str, port: u16) -> Decision {
    let id: Option<WorkloadId> = (!caller.is_empty()).then(|| caller.parse().unwrap());
    let facts = Facts {
        caller: id.as_ref().map_or(Caller::Plaintext, Caller::Authenticated),
        source: source.parse().unwrap(),
        port,
    };
    let decision = decide(snapshot, &facts);
    assert_eq!(
        summary(&decision),
        first_recorded(naive_evaluator::judge(snapshot, &facts)),
        "{snapshot:#?}"
    );
    decision
}

/// As the naive evaluator says it, and how many more are recorded.
fn summary(decision: &Decision) -> (Naive<'_>, usize) {
    let by = decision.policy.as_ref().filter(|_| decision.rule.is_some());
    let recorded = decision.recorded.iter();
    let naive = (
        decision.verdict,
        decision.step,
        by.map(|policy| (&*policy.document, decision.rule)),
        recorded
            .map(|recorded| (&*recorded.policy.document, recorded.rule))
            .collect(),
    );
    (naive, decision.recorded_more)
}

/// It names all that is recorded, and a decision the first 16.
fn first_recorded(mut naive: Naive<'_>) -> (Naive<'_>, usize) {
    let recorded = &mut naive.3;
    let more = recorded.split_off(recorded.len().min(16)).len();
    (naive, more)
}

/// Whether a source with one field matches, in a rule of each action.
fn matches(action: PolicyAction, peer: &PeerMatch, caller: &str, source: &str) -> bool {
    let snapshot = permissive(vec![policy(
        action,
        vec![rule(vec![peer.clone()], Vec::new())],
    )]);
    let decision = judge_from(&snapshot, caller, source, 8080);
    match action {
        PolicyAction::Allow => decision.is_allowed(),
        PolicyAction::Deny => !decision.is_allowed(),
        PolicyAction::Audit => !decision.recorded.is_empty(),
    }
}

fn peer(field: FieldName, values: &[&str]) -> PeerMatch {
    use FieldName as F;
    fn all<T: std::str::FromStr<Err: std::fmt::Debug>>(values: &[&str]) -> Vec<T> {
        values.iter().map(|value| value.parse().unwrap()).collect()
    }
    let accounts = |values: &[&str]| {
        values
            .iter()
            .map(|value| crate::authorization::ServiceAccountMatch::parse(value, "shop").unwrap())
            .collect()
    };
    let mut peer = PeerMatch {
        line: 8,
        ..PeerMatch::default()
    };
    match field {
        F::Principals => peer.principals = all(values),
        F::NotPrincipals => peer.not_principals = all(values),
        F::ServiceAccounts => peer.service_accounts = accounts(values),
        F::NotServiceAccounts => peer.not_service_accounts = accounts(values),
        F::Namespaces => peer.namespaces = all(values),
        F::NotNamespaces => peer.not_namespaces = all(values),
        F::TrustDomains => peer.trust_domains = all(values),
        F::NotTrustDomains => peer.not_trust_domains = all(values),
        F::IpBlocks => peer.ip_blocks = all(values),
        F::NotIpBlocks => peer.not_ip_blocks = all(values),
        F::Ports | F::NotPorts => panic!("not of a source"),
    }
    peer
}
