//! Policies that mean more or less than they seem to.

use mesh_lite_proto::authorization::{
    FieldName, FieldRef, Pattern, Policy, PolicyAction, document::Loaded,
};

use super::{Documents, Findings, Oddity, Place, PolicyDocument, Position};

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    for document in policies {
        let Some(policy) = document.policy() else {
            continue;
        };
        not_enforced(document, policy, findings);
        without_rules(document, policy, findings);
        for (index, rule) in policy.rules.iter().enumerate() {
            if rule.from.is_empty() && rule.to.is_empty() {
                matches_everybody(document, policy, index, findings);
            } else if rule.from.is_empty() && policy.action == PolicyAction::Allow {
                lets_everybody_in(document, policy, index, findings);
            }
        }
        if policy.action == PolicyAction::Allow {
            foreign_trust_domains(documents, document, policy, findings);
        }
    }
    for (raw, loaded) in documents.loaded() {
        if let Loaded::PeerAuthentication(authentication) = loaded
            && authentication.says_disable
        {
            let at = disabled(raw.spec_node().ok(), raw.line);
            let problem = "DISABLE means PERMISSIVE here: plaintext is accepted, mutual TLS too";
            let help = "write PERMISSIVE; callers inside of the mesh use mutual TLS all the same";
            findings.warn(
                Oddity::DisableIsPermissive,
                Place::new(&raw.file, at),
                problem,
                help,
            );
        }
    }
}

/// Where DISABLE is written: `mtls.mode`, or a port's.
fn disabled(spec: Option<&super::Node>, line: u32) -> Position {
    let says = |node: &super::Node| {
        let mode = node.entry("mode")?;
        (node.text("mode") == Some("DISABLE")).then_some(mode.value.at)
    };
    let found = spec.and_then(|spec| {
        let whole = spec.entry("mtls").and_then(|entry| says(&entry.value));
        whole.or_else(|| match &spec.entry("portLevelMtls")?.value.value {
            super::Value::Map(ports) => ports.iter().find_map(|port| says(&port.value)),
            _ => None,
        })
    });
    found.unwrap_or(Position { line, column: 1 })
}

fn not_enforced(document: &PolicyDocument<'_>, policy: &Policy, findings: &mut Findings) {
    if policy.dry_run {
        let key = document.spec.entry("dryRun").map(|entry| entry.at);
        let at = key.or(document.raw.dry_run).unwrap_or(document.spec.at);
        let (problem, help) = dry_run(policy.action);
        findings.note(Oddity::NotEnforced, document.place(at), problem, help);
    } else if policy.action == PolicyAction::Audit {
        let problem = "AUDIT decides nothing: what its rules match is recorded";
        let help = "use DENY or ALLOW if it shall decide";
        findings.note(
            Oddity::NotEnforced,
            document.of_key("action"),
            problem,
            help,
        );
    }
}

/// The problem and what helps: what there is to be seen before it is enforced.
const fn dry_run(action: PolicyAction) -> (&'static str, &'static str) {
    match action {
        PolicyAction::Allow => (
            "a dry run allows nobody and cuts nobody: whom it would let in is recorded as \
             would_allow, whom it would cut as would_deny",
            "remove dryRun once nobody who shall get in is recorded as would_deny; of whom never \
             came nothing is recorded",
        ),
        PolicyAction::Deny => (
            "a dry run denies nobody: whom it would deny is recorded as would_deny",
            "remove dryRun once nobody who shall get in is recorded as would_deny; of whom never \
             came nothing is recorded",
        ),
        PolicyAction::Audit => (
            "a dry run of AUDIT decides nothing, as AUDIT without it: what its rules match is \
             recorded",
            "remove dryRun; use DENY or ALLOW if it shall decide",
        ),
    }
}

fn without_rules(document: &PolicyDocument<'_>, policy: &Policy, findings: &mut Findings) {
    if !policy.rules.is_empty() {
        return;
    }
    let place = document.of_key("rules");
    match policy.action {
        PolicyAction::Allow => {
            let problem = "an ALLOW policy without rules allows nobody, and denies whomever no other ALLOW policy of these workloads allows";
            let help = "write `rules: [{}]` if it shall allow everybody";
            findings.note(Oddity::AllowsNobody, place, problem, help);
        }
        PolicyAction::Deny | PolicyAction::Audit => {
            let problem = format!("a policy of {} without rules does nothing", policy.action);
            let help = "write `rules: [{}]` if it shall match everybody, or remove the document";
            findings.warn(Oddity::NoRules, place, problem, help);
        }
    }
}

fn matches_everybody(
    document: &PolicyDocument<'_>,
    policy: &Policy,
    index: usize,
    findings: &mut Findings,
) {
    let place = document.of_rule(index);
    match policy.action {
        PolicyAction::Allow => {
            let problem =
                "a rule without from and to allows everybody, plaintext too where it is accepted";
            let help = "state from, or at least ports; `namespaces: [\"*\"]` is every workload of the mesh";
            findings.warn(Oddity::MatchesEverybody, place, problem, help);
        }
        PolicyAction::Deny => {
            let problem = "a rule without from and to denies everybody";
            let help = "state from or to if it shall let anybody through";
            findings.note(Oddity::MatchesEverybody, place, problem, help);
        }
        PolicyAction::Audit => {}
    }
}

/// Beside rules that say who: two list items may have been meant as one.
fn lets_everybody_in(
    document: &PolicyDocument<'_>,
    policy: &Policy,
    index: usize,
    findings: &mut Findings,
) {
    if policy.rules.iter().all(|rule| rule.from.is_empty()) {
        return;
    }
    let to = policy.rules.get(index).map_or(&[][..], |rule| &rule.to);
    let ports: Vec<String> = to
        .iter()
        .flat_map(|operation| &operation.ports)
        .map(ToString::to_string)
        .collect();
    let ports = match ports.len() {
        0 => "the ports that it does not exclude".to_owned(),
        1 => format!("port {}", ports.concat()),
        _ => format!("the ports {}", ports.join(", ")),
    };
    let problem = format!(
        "rules[{index}] has no from, and others of this policy have: it lets every caller in on \
         {ports}, plaintext too where it is accepted"
    );
    let help = "if it is the `to` of the rule above, write it without the dash; else state from, or \
                give it a policy of its own";
    findings.warn(
        Oddity::MatchesEverybody,
        document.of_rule(index),
        problem,
        help,
    );
}

/// Principals that do not begin with a trust domain reach into others, where somebody else says
/// who has which name.
fn foreign_trust_domains(
    documents: &Documents,
    document: &PolicyDocument<'_>,
    policy: &Policy,
    findings: &mut Findings,
) {
    let own = &documents.settings().trust_domain;
    for (rule, of_rule) in policy.rules.iter().enumerate() {
        for (entry, peer) in of_rule.from.iter().enumerate() {
            if !peer.trust_domains.is_empty() {
                continue;
            }
            for (value, principal) in peer.principals.iter().enumerate() {
                let foreign = match principal {
                    Pattern::Exact(_) => false,
                    Pattern::Prefix(prefix) => !prefix.contains('/'),
                    Pattern::Suffix(_) | Pattern::Any => true,
                };
                if !foreign {
                    continue;
                }
                let field = FieldRef {
                    rule,
                    entry,
                    field: FieldName::Principals,
                    line: peer.line,
                };
                let place = document.of_value(field, value);
                let problem =
                    format!("{principal} also matches callers of other trust domains than {own}");
                let help = format!("add `trustDomains: [{own}]` if it shall not");
                if *principal == Pattern::Any {
                    findings.note(Oddity::ForeignTrustDomains, place, problem, help);
                } else {
                    findings.warn(Oddity::ForeignTrustDomains, place, problem, help);
                }
            }
        }
    }
}
