//! Rules that match nobody, and rules that match nobody more than others do.

use mesh_lite_proto::authorization::{
    Policy, PolicyAction, Rule,
    covering::{contradictions, covers, never_matches},
};

use super::{Documents, Findings, Oddity, PolicyDocument};

/// Pairs of rules that are compared: those of two thousand rules that are for one workload each.
/// A second's work.
const MAX_COMPARED: usize = 4_000_000;

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    contradicting(documents, policies, findings);
    covered(documents, policies, findings);
}

fn contradicting(documents: &Documents, policies: &[PolicyDocument<'_>], findings: &mut Findings) {
    let own = &documents.settings().trust_domain;
    for document in policies {
        let Some(policy) = document.policy() else {
            continue;
        };
        for (index, rule) in policy.rules.iter().enumerate() {
            let whole = never_matches(rule, policy.action, own);
            for found in contradictions(index, rule, policy.action, own) {
                let (field, by) = (found.field, found.by.as_str());
                let of = if whole { "the rule" } else { "this entry" };
                let problem = if field.field == found.by {
                    format!(
                        "{of} matches nobody: {field} excludes everybody, and plaintext never matches a not… field of an ALLOW rule"
                    )
                } else {
                    format!("{of} matches nobody: {field} asks for what its {by} never lets be")
                };
                let help = "correct one of the two fields, or remove the entry";
                findings.warn(
                    Oddity::MatchesNobody,
                    document.of_field(field),
                    problem,
                    help,
                );
            }
        }
    }
}

/// A rule of an enforced policy, and where it stands among all of them.
struct Enforced<'a> {
    document: &'a PolicyDocument<'a>,
    policy: &'a Policy,
    index: usize,
    rule: &'a Rule,
    place: usize,
}

impl Enforced<'_> {
    fn name(&self) -> String {
        let source = &self.policy.source;
        let line = self.rule.line;
        format!(
            "{} rules[{}] ({}:{line})",
            source.document, self.index, source.file
        )
    }
}

fn covered(documents: &Documents, policies: &[PolicyDocument<'_>], findings: &mut Findings) {
    let own = &documents.settings().trust_domain;
    let rules: Vec<Enforced<'_>> = policies
        .iter()
        .filter_map(|document| Some((document, document.enforced()?)))
        .flat_map(|(document, policy)| {
            let rules = policy.rules.iter().enumerate();
            rules.map(move |(index, rule)| (document, policy, index, rule))
        })
        .filter(|(_, policy, _, rule)| !never_matches(rule, policy.action, own))
        .enumerate()
        .map(|(place, (document, policy, index, rule))| Enforced {
            document,
            policy,
            index,
            rule,
            place,
        })
        .collect();
    let mut compared = 0_usize;
    for narrow in &rules {
        let mut wider = rules.iter().filter(|wide| {
            compared = compared.saturating_add(1);
            compared <= MAX_COMPARED && reaches(documents, wide, narrow)
        });
        let wide = wider.find(|wide| {
            let covers_it = covers(wide.rule, narrow.rule, own);
            // of two that match the same callers, the later one is said to be too much
            let same = || reaches(documents, narrow, wide) && covers(narrow.rule, wide.rule, own);
            covers_it
                && (wide.policy.action != narrow.policy.action
                    || wide.place < narrow.place
                    || !same())
        });
        if let Some(wide) = wide {
            tell(wide, narrow, findings);
        }
    }
    if let Some(first) = rules.first().filter(|_| compared > MAX_COMPARED) {
        let problem = format!(
            "there are {} rules, too many to compare each with each",
            rules.len()
        );
        let help = "rules that are shadowed are not all told of; look at fewer documents at once";
        findings.note(
            Oddity::NotCompared,
            first.document.of_rule(first.index),
            problem,
            help,
        );
    }
}

/// Whether a verdict of `wide` makes `narrow` unnecessary, wherever `narrow` is asked.
fn reaches(documents: &Documents, wide: &Enforced<'_>, narrow: &Enforced<'_>) -> bool {
    let actions = (wide.policy.action, narrow.policy.action);
    let decides = actions.0 == actions.1 || actions == (PolicyAction::Deny, PolicyAction::Allow);
    let (wide_raw, narrow_raw) = (wide.document.raw, narrow.document.raw);
    let namespace = documents.is_for_whole_mesh(wide_raw)
        || (!documents.is_for_whole_mesh(narrow_raw)
            && wide_raw.key.namespace == narrow_raw.key.namespace);
    let (wide_labels, narrow_labels) = (
        &wide.document.document.selector,
        &narrow.document.document.selector,
    );
    wide.place != narrow.place
        && decides
        && namespace
        && wide_labels.selects(narrow_labels.labels())
}

fn tell(wide: &Enforced<'_>, narrow: &Enforced<'_>, findings: &mut Findings) {
    let place = narrow.document.of_rule(narrow.index);
    let (number, by) = (narrow.index, wide.name());
    if wide.policy.action == narrow.policy.action {
        let problem =
            format!("rules[{number}] changes nothing: {by} matches everybody whom it matches");
        let help = "remove it, or narrow the other one";
        findings.warn(Oddity::ShadowedRule, place, problem, help);
    } else {
        let problem =
            format!("rules[{number}] allows nobody: {by} denies everybody whom it matches");
        let help = "DENY is asked first: narrow that rule, or remove this one";
        findings.warn(Oddity::DeniedRule, place, problem, help);
    }
}
