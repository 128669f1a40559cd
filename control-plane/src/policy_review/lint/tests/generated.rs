//! Rules that are said to change nothing are removed from documents made up of few names, and no
//! workload lets anybody through, or denies anybody, whom it did not before.

use std::net::IpAddr;

use mesh_lite_proto::{
    authorization::{Caller, Facts, Verdict, decide},
    identity::WorkloadId,
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const LABELS: [&str; 4] = ["{}", "{app: api}", "{tier: back}", "{app: api, tier: back}"];
const RULES: [&str; 12] = [
    "{}",
    "{to: [{operation: {ports: [80]}}]}",
    "{to: [{operation: {ports: [80, 81], notPorts: [80]}}]}",
    "{to: [{operation: {ports: [80], notPorts: [80]}}]}",
    "{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}",
    "{from: [{source: {namespaces: [shop]}}]}",
    "{from: [{source: {namespaces: [shop], notNamespaces: [\"s*\"]}}]}",
    "{from: [{source: {notPrincipals: [\"*\"]}}]}",
    "{from: [{source: {principals: [\"*\"]}}], to: [{operation: {notPorts: [80]}}]}",
    "{from: [{source: {serviceAccounts: [shop/web], ipBlocks: [10.1.0.0/16]}}]}",
    "{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}",
    "{from: [{source: {notServiceAccounts: [shop/web]}}], to: [{operation: {ports: [80]}}]}",
];

/// A policy whose first rule stands in the line after its own eighth.
#[derive(Debug, Clone)]
struct Written {
    namespace: &'static str,
    labels: &'static str,
    action: &'static str,
    dry_run: bool,
    rules: Vec<&'static str>,
}

const LINES_ABOVE_RULES: usize = 8;

impl Written {
    fn text(&self, name: usize) -> String {
        let Self {
            namespace,
            labels,
            action,
            dry_run,
            rules,
        } = self;
        let list: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
        let none = if rules.is_empty() { " []" } else { "" };
        format!(
            "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p{name}, namespace: {namespace}}}\nspec:\n  \
             selector: {{matchLabels: {labels}}}\n  action: {action}\n  dryRun: {dry_run}\n  \
             rules:{none}\n{list}---\n"
        )
    }

    fn lines(&self) -> usize {
        LINES_ABOVE_RULES + self.rules.len() + 1
    }
}

fn written() -> impl Strategy<Value = Written> {
    (
        select(vec!["shop", "pay", "mesh-lite-system"]),
        select(LABELS.to_vec()),
        select(vec!["ALLOW", "DENY", "AUDIT"]),
        prop::bool::weighted(0.15),
        vec(select(RULES.to_vec()), 0..4),
    )
        .prop_map(|(namespace, labels, action, dry_run, rules)| Written {
            namespace,
            labels,
            action,
            dry_run,
            rules,
        })
}

/// A workload for each namespace and labels, and both modes.
fn workloads(permissive: bool) -> String {
    let mut text = String::new();
    for namespace in ["shop", "pay"] {
        for (number, labels) in LABELS.iter().enumerate() {
            let address = format!("10.{}.0.{}", 50 + namespace.len(), number + 1);
            text += &format!(
                "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                 metadata: {{name: w{number}, namespace: {namespace}}}\n\
                 spec: {{serviceAccount: web, addresses: [{address}], labels: {labels}}}\n---\n"
            );
        }
    }
    if permissive {
        text += PERMISSIVE;
    }
    text
}

fn verdicts(policies: &[Written], workloads: &str) -> Vec<Verdict> {
    let documents = documents(&[&text(policies), workloads]);
    assert_eq!(documents.errors(), []);
    let callers: Vec<Option<WorkloadId>> = [
        "spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://cluster.local/ns/pay/sa/web",
        "spiffe://other.org/ns/shop/sa/web",
    ]
    .into_iter()
    .map(|id| Some(id.parse().unwrap()))
    .chain([None])
    .collect();
    let sources: [IpAddr; 3] = ["10.1.0.1", "10.2.0.1", "192.0.2.1"].map(|ip| ip.parse().unwrap());
    let mut verdicts = Vec::new();
    for workload in documents.workloads() {
        let snapshot = documents.snapshot_for(workload, noon());
        for caller in &callers {
            for source in sources {
                for port in [80, 81] {
                    let caller = caller
                        .as_ref()
                        .map_or(Caller::Plaintext, Caller::Authenticated);
                    let facts = Facts {
                        caller,
                        source,
                        port,
                    };
                    verdicts.push(decide(&snapshot, &facts).verdict);
                }
            }
        }
    }
    verdicts
}

fn text(policies: &[Written]) -> String {
    let texts = policies.iter().enumerate();
    texts.map(|(name, policy)| policy.text(name)).collect()
}

/// Which rule of which policy stands in that line.
fn rule_at(policies: &[Written], line: u32) -> (usize, usize) {
    let mut below = usize::try_from(line).unwrap() - 1;
    for (number, policy) in policies.iter().enumerate() {
        if below < policy.lines() {
            return (number, below - LINES_ABOVE_RULES);
        }
        below -= policy.lines();
    }
    panic!("line {line}");
}

/// Rules that are said to change nothing, all that is said of them being about the whole rule.
fn useless(policies: &[Written], workloads: &str) -> Vec<(usize, usize)> {
    let findings = documents(&[&text(policies), workloads]).findings(noon());
    let said = findings.iter().filter(|finding| match finding.oddity {
        Oddity::ShadowedRule | Oddity::DeniedRule => true,
        Oddity::MatchesNobody => finding.problem.starts_with("the rule "),
        _ => false,
    });
    said.map(|finding| rule_at(policies, finding.place.at.line))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_rule_that_is_said_to_change_nothing_can_be_removed(
        policies in vec(written(), 1..5), permissive in any::<bool>(),
    ) {
        let workloads = workloads(permissive);
        let useless = useless(&policies, &workloads);
        if useless.is_empty() {
            return Ok(());
        }
        let before = verdicts(&policies, &workloads);
        for (policy, rule) in useless {
            let mut less = policies.clone();
            less[policy].rules.remove(rule);
            prop_assert_eq!(&before, &verdicts(&less, &workloads), "p{} rules[{}] of\n{}", policy, rule, text(&policies));
        }
    }
}

#[test]
fn rules_that_change_nothing_are_found_among_the_generated_ones() {
    let everybody = Written {
        namespace: "mesh-lite-system",
        labels: "{}",
        action: "DENY",
        dry_run: false,
        rules: vec!["{}"],
    };
    let one = Written {
        namespace: "shop",
        labels: "{app: api}",
        action: "ALLOW",
        rules: RULES.to_vec(),
        ..everybody
    };
    let found = useless(&[everybody, one], &workloads(true));
    assert_eq!(found.len(), RULES.len());
}
