//! The decision. Pure: the same snapshot and facts always give the same verdict.

use super::{
    Caller, Decision, DefaultAction, Facts, FieldRef, MutualTlsMode, Policy, PolicyAction,
    PolicySnapshot, Recorded, Rule, SourceRef, Step, Verdict, nearest_miss::nearest_miss,
    peer_match::Asked,
};

/// Judges one connection. In this order: plaintext to a STRICT port is refused; a broken
/// document denies; (1) a DENY rule matches: deny; (2) an ALLOW rule matches: allow; (3) an
/// ALLOW policy selects this workload: deny; (4) the narrowest scope's default action;
/// (5) STRICT: deny, PERMISSIVE: allow.
///
/// Allocates only for what it records and for the nearest miss of a denial.
pub fn decide(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Decision {
    let mode = snapshot.mutual_tls.mode(facts.port);
    if facts.caller == Caller::Plaintext && mode == MutualTlsMode::Strict {
        return verdict(Verdict::Deny, Step::StrictPort, None);
    }
    let mut decision = enforced(snapshot, facts, mode);
    decision.recorded = recorded(snapshot, facts);
    decision
}

fn enforced(snapshot: &PolicySnapshot, facts: &Facts<'_>, mode: MutualTlsMode) -> Decision {
    if let Some(broken) = snapshot.broken.first() {
        return verdict(
            Verdict::Deny,
            Step::BrokenDocument,
            Some(broken.source.clone()),
        );
    }
    for (action, outcome, step) in [
        (PolicyAction::Deny, Verdict::Deny, Step::DenyRule),
        (PolicyAction::Allow, Verdict::Allow, Step::AllowRule),
    ] {
        let asked = Asked::new(facts, &snapshot.trust_domain, action);
        for policy in enforcing(snapshot, action) {
            if let Some(matched) = first_match(policy, &asked) {
                return by_rule(policy, matched, outcome, step);
            }
        }
    }
    if let Some(policy) = enforcing(snapshot, PolicyAction::Allow).next() {
        let mut denial = verdict(
            Verdict::Deny,
            Step::NoAllowRule,
            Some(policy.source.clone()),
        );
        let asked = Asked::new(facts, &snapshot.trust_domain, PolicyAction::Allow);
        denial.nearest_miss =
            nearest_miss(enforcing(snapshot, PolicyAction::Allow), &asked).map(Box::new);
        return denial;
    }
    match (&snapshot.default_action, mode) {
        (Some((DefaultAction::Allow, source)), _) => {
            verdict(Verdict::Allow, Step::DefaultAction, Some(source.clone()))
        }
        (Some((DefaultAction::Deny, source)), _) => {
            verdict(Verdict::Deny, Step::DefaultAction, Some(source.clone()))
        }
        (None, MutualTlsMode::Permissive) => verdict(Verdict::Allow, Step::MutualTlsMode, None),
        (None, MutualTlsMode::Strict) => verdict(Verdict::Deny, Step::MutualTlsMode, None),
    }
}

fn enforcing(
    snapshot: &PolicySnapshot,
    action: PolicyAction,
) -> impl Iterator<Item = &Policy> + Clone {
    snapshot
        .policies
        .iter()
        .filter(move |policy| policy.action == action && !policy.dry_run)
}

fn recorded(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Vec<Recorded> {
    snapshot
        .policies
        .iter()
        .filter(|policy| policy.dry_run || policy.action == PolicyAction::Audit)
        .filter_map(|policy| {
            let asked = Asked::new(facts, &snapshot.trust_domain, policy.action);
            let matched = first_match(policy, &asked)?;
            Some(Recorded {
                policy: at_rule(policy, matched.rule),
                rule: matched.index,
                action: policy.action,
                dry_run: policy.dry_run,
            })
        })
        .collect()
}

struct MatchedRule<'a> {
    index: usize,
    rule: &'a Rule,
    field: Option<FieldRef>,
}

fn first_match<'a>(policy: &'a Policy, asked: &Asked<'_>) -> Option<MatchedRule<'a>> {
    policy.rules.iter().enumerate().find_map(|(index, rule)| {
        let from = rule.from.iter().position(|peer| peer.matches(asked));
        let to = rule
            .to
            .iter()
            .position(|operation| operation.matches(asked));
        let matches =
            (rule.from.is_empty() || from.is_some()) && (rule.to.is_empty() || to.is_some());
        matches.then(|| MatchedRule {
            index,
            rule,
            field: deciding_field(index, rule, from, to, asked),
        })
    })
}

/// The first stated field of the entry that matched.
fn deciding_field(
    index: usize,
    rule: &Rule,
    from: Option<usize>,
    to: Option<usize>,
    asked: &Asked<'_>,
) -> Option<FieldRef> {
    let of_source = || {
        let entry = from?;
        let peer = rule.from.get(entry)?;
        let field = peer.stated(asked).next()?.field;
        Some(FieldRef {
            rule: index,
            entry,
            field,
            line: peer.line,
        })
    };
    let of_operation = || {
        let entry = to?;
        let operation = rule.to.get(entry)?;
        let field = operation.stated(asked).next()?.field;
        Some(FieldRef {
            rule: index,
            entry,
            field,
            line: operation.line,
        })
    };
    of_source().or_else(of_operation)
}

fn by_rule(policy: &Policy, matched: MatchedRule<'_>, outcome: Verdict, step: Step) -> Decision {
    let mut decision = verdict(outcome, step, Some(at_rule(policy, matched.rule)));
    decision.rule = Some(matched.index);
    decision.field = matched.field;
    decision
}

/// A policy's source, with the line of one of its rules.
pub(super) fn at_rule(policy: &Policy, rule: &Rule) -> SourceRef {
    SourceRef {
        line: rule.line,
        ..policy.source.clone()
    }
}

const fn verdict(verdict: Verdict, step: Step, policy: Option<SourceRef>) -> Decision {
    Decision {
        verdict,
        step,
        policy,
        rule: None,
        field: None,
        nearest_miss: None,
        recorded: Vec::new(),
    }
}

#[cfg(test)]
mod naive_evaluator;
#[cfg(test)]
mod tests;
