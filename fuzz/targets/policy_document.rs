//! Policy documents: files that people write, and what a decision makes of them.
#![no_main]

use std::{collections::BTreeMap, fmt::Write, net::IpAddr};

use libfuzzer_sys::fuzz_target;
use mesh_lite_proto::{
    authorization::{
        AuthorizationPolicy, BrokenDocument, Caller, Facts, MutualTls, MutualTlsMode, PeerMatch,
        Policies, Policy, PolicySnapshot, SourceRef, Step, Verdict, decide,
        document::{Loaded, load},
    },
    document::{DocumentErrors, Documents, RawDocument, split},
    identity::WorkloadId,
    wire::mesh_lite::v1 as wire,
};
use spiffe::TrustDomain;

fuzz_target!(|bytes: &[u8]| {
    let documents = split("f.yaml", bytes);
    assert_eq!(documents, split("f.yaml", bytes), "the same file is the same documents");
    let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
    let own = TrustDomain::new("cluster.local").expect("a trust domain");
    for unreadable in &documents.unreadable {
        errors_are_of_the_file(&unreadable.errors, lines);
    }
    let mut snapshot = empty(&own);
    let mut policies = Vec::new();
    for document in &documents.readable {
        assert!(document.line >= 1 && document.line as usize <= lines);
        let loaded = load(document, &own);
        assert_eq!(loaded, load(document, &own), "loading has no memory");
        match loaded {
            Ok(Loaded::AuthorizationPolicy(policy)) => {
                written_again(document, &policy, &own);
                snapshot.default_action = policy.default_action.clone();
                policies.extend(policy.policy);
            }
            Ok(Loaded::PeerAuthentication(document)) => {
                snapshot.mutual_tls.mode = document.mode.unwrap_or(MutualTlsMode::Permissive);
                snapshot.mutual_tls.ports.extend(document.ports);
            }
            Ok(Loaded::Eviction(eviction)) => snapshot.evictions.push(eviction),
            Err(unloadable) => errors_are_of_the_file(&unloadable.errors, lines),
        }
    }
    snapshot.policies = policies.into();
    judge(&snapshot);
    a_broken_document_denies(snapshot, &documents);
});

fn empty(own: &TrustDomain) -> PolicySnapshot {
    PolicySnapshot {
        revision: 1,
        trust_domain: own.clone(),
        mutual_tls: MutualTls { mode: MutualTlsMode::Permissive, ports: BTreeMap::new() },
        default_action: None,
        policies: Policies::default(),
        evictions: Vec::new(),
        broken: Vec::new(),
    }
}

fn errors_are_of_the_file(errors: &DocumentErrors, lines: usize) {
    assert!(errors.count() > 0);
    for error in errors.iter() {
        // the parser may point behind the last line
        assert!(error.place.at.line as usize <= lines + 1, "{error} of {lines} lines");
        assert!(!error.problem.is_empty() && !error.remedy.is_empty());
    }
}

fn callers() -> [Option<WorkloadId>; 4] {
    let id = |text: &str| Some(text.parse().expect("an identity"));
    [
        None,
        id("spiffe://cluster.local/ns/shop/sa/web"),
        id("spiffe://other.org/ns/shop/sa/web"),
        id("spiffe://cluster.local/gateway"),
    ]
}

fn decisions(snapshot: &PolicySnapshot) -> Vec<mesh_lite_proto::authorization::Decision> {
    let mut decisions = Vec::new();
    for id in &callers() {
        let caller = id.as_ref().map_or(Caller::Plaintext, Caller::Authenticated);
        for (source, port) in [([10, 0, 0, 1], 80), ([192, 0, 2, 1], 8080)] {
            let facts = Facts { caller, source: IpAddr::from(source), port };
            decisions.push(decide(snapshot, &facts));
        }
    }
    decisions
}

fn judge(snapshot: &PolicySnapshot) {
    let message = wire::PolicySnapshot::from(snapshot);
    assert_eq!(PolicySnapshot::try_from(message).as_ref(), Ok(snapshot), "it survives the wire");
    for decision in decisions(snapshot) {
        assert!(!decision.reason().is_empty());
        assert_eq!(
            decision.rule.is_some(),
            matches!(decision.step, Step::AllowRule | Step::DenyRule)
        );
        assert!(decision.nearest_miss.is_none_or(|miss| !miss.failed.is_empty()));
    }
}

fn a_broken_document_denies(mut snapshot: PolicySnapshot, documents: &Documents) {
    for unreadable in documents.unreadable.iter().filter(|document| document.may_be_policy) {
        let source = SourceRef {
            document: "?".into(),
            file: unreadable.file.clone(),
            line: unreadable.line,
        };
        let reason = unreadable.errors.to_string().into();
        snapshot.broken.push(BrokenDocument { source, reason });
    }
    if !snapshot.broken.is_empty() {
        assert!(decisions(&snapshot).iter().all(|decision| decision.verdict == Verdict::Deny));
    }
}

/// A policy that was loaded, written as a document and loaded again, is the same but for lines.
fn written_again(document: &RawDocument, loaded: &AuthorizationPolicy, own: &TrustDomain) {
    let Some(policy) = &loaded.policy else { return };
    let text = write(document, policy);
    let documents = split("f.yaml", text.as_bytes());
    assert_eq!(documents.unreadable, [], "{text}");
    let again = documents.readable.first().map(|document| load(document, own));
    let Some(Ok(Loaded::AuthorizationPolicy(again))) = again else {
        panic!("{text}\n{again:?}");
    };
    assert_eq!(again.policy.map(without_lines), Some(without_lines(policy.clone())), "{text}");
}

fn without_lines(mut policy: Policy) -> Policy {
    policy.source.line = 0;
    for rule in &mut policy.rules {
        rule.line = 0;
        rule.from.iter_mut().for_each(|peer| peer.line = 0);
        rule.to.iter_mut().for_each(|operation| operation.line = 0);
    }
    policy
}

fn write(document: &RawDocument, policy: &Policy) -> String {
    let mut rules = Vec::new();
    for rule in &policy.rules {
        let from: Vec<String> =
            rule.from.iter().map(|peer| format!("{{source: {{{}}}}}", source(peer))).collect();
        let to: Vec<String> = rule
            .to
            .iter()
            .map(|to| {
                let fields = [field("ports", &to.ports), field("notPorts", &to.not_ports)];
                format!("{{operation: {{{}}}}}", fields.concat())
            })
            .collect();
        let list = |name: &str, items: Vec<String>| match items.len() {
            0 => String::new(),
            _ => format!("{name}: [{}],", items.join(",")),
        };
        rules.push(format!("{{{}{}}}", list("from", from), list("to", to)));
    }
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {:?}, namespace: {:?}}}\n\
         spec: {{action: {}, dryRun: {}, rules: [{}]}}\n",
        document.key.name,
        document.key.namespace,
        policy.action,
        policy.dry_run,
        rules.join(",")
    )
}

fn source(peer: &PeerMatch) -> String {
    [
        field("principals", &peer.principals),
        field("notPrincipals", &peer.not_principals),
        field("serviceAccounts", &peer.service_accounts),
        field("notServiceAccounts", &peer.not_service_accounts),
        field("namespaces", &peer.namespaces),
        field("notNamespaces", &peer.not_namespaces),
        field("trustDomains", &peer.trust_domains),
        field("notTrustDomains", &peer.not_trust_domains),
        field("ipBlocks", &peer.ip_blocks),
        field("notIpBlocks", &peer.not_ip_blocks),
    ]
    .concat()
}

fn field<T: std::fmt::Display>(name: &str, values: &[T]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let mut text = format!("{name}: [");
    for value in values {
        write!(text, "\"{value}\",").expect("a String takes everything");
    }
    text + "],"
}
