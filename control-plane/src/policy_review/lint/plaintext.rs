//! DENY rules that plaintext gets past: it has no identity that a rule could ask for.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{
        Caller, Facts, MutualTlsMode, PeerMatch, Policy, PolicyAction, PolicySnapshot, Rule,
        decide, document::Loaded,
    },
    document::{Place, Position},
};

use super::{Documents, Findings, Oddity, PolicyDocument};

/// Of TEST-NET-1, where nobody is.
pub(super) const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Stands for every port that no document names.
const SOME_PORT: u16 = 1;

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    now: SystemTime,
    findings: &mut Findings,
) {
    for document in policies {
        let Some(policy) = document
            .enforced()
            .filter(|policy| policy.action == PolicyAction::Deny)
        else {
            continue;
        };
        let asking: Vec<(usize, &Rule)> = policy
            .rules
            .iter()
            .enumerate()
            .filter(|(_, rule)| !rule.from.is_empty() && rule.from.iter().all(asks_for_identity))
            .collect();
        if asking.is_empty() {
            continue;
        }
        let snapshots = snapshots(documents, document, now);
        for (index, rule) in asking {
            let open = snapshots.iter().find_map(|(name, snapshot)| {
                let ports = ports(rule);
                let open = ports
                    .into_iter()
                    .find(|port| takes_plaintext(snapshot, *port))?;
                Some((name, open))
            });
            if let Some((name, port)) = open {
                let port = if port == SOME_PORT {
                    String::new()
                } else {
                    format!(" on port {port}")
                };
                let problem = format!(
                    "plaintext gets past this rule: {name} takes it{port} (PERMISSIVE), it has no \
                     identity that the rule could match, and nothing else denies it"
                );
                let help = "deny it with a rule of its own, `source: {notPrincipals: [\"*\"]}`, or make the port STRICT";
                findings.warn(
                    Oddity::MissesPlaintext,
                    document.of_rule(index),
                    problem,
                    help,
                );
            }
        }
    }
}

/// PERMISSIVE lets plaintext come as far as policy: where that denies all of it, the port might as
/// well be STRICT.
pub(super) fn permissive_for_nobody(
    documents: &Documents,
    now: SystemTime,
    findings: &mut Findings,
) {
    for (raw, loaded) in documents.loaded() {
        let Loaded::PeerAuthentication(document) = loaded else {
            continue;
        };
        let permissive = |(port, mode): (&u16, &MutualTlsMode)| {
            (*mode == MutualTlsMode::Permissive).then_some(*port)
        };
        let mut ports: Vec<u16> = document.ports.iter().filter_map(permissive).collect();
        if document.mode == Some(MutualTlsMode::Permissive) {
            ports.push(SOME_PORT);
        }
        let snapshots: Vec<PolicySnapshot> = documents
            .workloads()
            .iter()
            .filter(|one| one.meshed && documents.concerns(raw, &document.selector, one))
            .map(|one| documents.snapshot_for(one, now))
            .collect();
        let comes_in = |port| {
            let mut snapshots = snapshots.iter();
            snapshots.any(|snapshot| may_take_plaintext(snapshot, port))
        };
        if ports.is_empty() || snapshots.is_empty() || ports.into_iter().any(comes_in) {
            continue;
        }
        let at = Position {
            line: raw.line,
            column: 1,
        };
        findings.note(
            Oddity::PermissiveForNobody,
            Place::new(&raw.file, at),
            "PERMISSIVE lets plaintext come, and policy denies all of it: no rule lets it in, and \
             nothing allows by default",
            "make it STRICT; or let plaintext in by a rule of ALLOW without principals, as one with \
             ipBlocks",
        );
    }
}

/// Whether it is allowed, or a rule may allow some of it.
fn may_take_plaintext(snapshot: &PolicySnapshot, port: u16) -> bool {
    let may_match = |rule: &Rule| rule.from.is_empty() || !rule.from.iter().all(asks_for_identity);
    let allows = |policy: &&Arc<Policy>| policy.action == PolicyAction::Allow && !policy.dry_run;
    let mut allowing = snapshot.policies.iter().filter(allows);
    allowing.any(|policy| policy.rules.iter().any(may_match)) || takes_plaintext(snapshot, port)
}

pub(super) fn asks_for_identity(peer: &PeerMatch) -> bool {
    !(peer.principals.is_empty()
        && peer.service_accounts.is_empty()
        && peer.namespaces.is_empty()
        && peer.trust_domains.is_empty())
}

/// Of each workload that the document is for or, if documents name none, of one such as it asks
/// for.
fn snapshots(
    documents: &Documents,
    document: &PolicyDocument<'_>,
    now: SystemTime,
) -> Vec<(String, PolicySnapshot)> {
    let selector = &document.document.selector;
    let found: Vec<_> = documents
        .workloads()
        .iter()
        .filter(|workload| workload.meshed && documents.concerns(document.raw, selector, workload))
        .map(|workload| {
            (
                workload.name.to_string(),
                documents.snapshot_for(workload, now),
            )
        })
        .collect();
    if !found.is_empty() || !documents.workloads().is_empty() {
        return found;
    }
    let labels: &BTreeMap<String, String> = selector.labels();
    let snapshot = documents.snapshot_of(&document.raw.key.namespace, labels, now);
    vec![("a workload that it selects".to_owned(), snapshot)]
}

/// Those that the rule is about: what it states, else any.
fn ports(rule: &Rule) -> Vec<u16> {
    if rule.to.is_empty() || rule.to.iter().any(|operation| operation.ports.is_empty()) {
        return vec![SOME_PORT];
    }
    rule.to
        .iter()
        .flat_map(|operation| operation.ports.iter().copied())
        .collect()
}

fn takes_plaintext(snapshot: &PolicySnapshot, port: u16) -> bool {
    let facts = Facts {
        caller: Caller::Plaintext,
        source: SOMEWHERE,
        port,
    };
    decide(snapshot, &facts).is_allowed()
}
