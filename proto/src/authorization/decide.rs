//! The decision. Pure: the same snapshot and facts always give the same verdict.

use super::{
    Caller, Decision, DefaultAction, Facts, FieldRef, MAX_RECORDED, MutualTlsMode, Policy,
    PolicyAction, PolicySnapshot, Recorded, Rule, SourceRef, Step, Verdict,
    nearest_miss::nearest_miss,
    peer_match::{Asked, Judged},
    policies::RuleOf,
    rule_index::Role,
};

/// Judges one connection. In this order: plaintext to a STRICT port is refused; a broken
/// document denies; (1) a DENY rule matches: deny; (2) an ALLOW rule matches: allow; (3) an
/// ALLOW policy selects this workload: deny; (4) the narrowest scope's default action;
/// (5) STRICT: deny, PERMISSIVE: allow.
///
/// Dry runs and AUDIT policies are recorded beside the verdict and never part of it: the dry runs
/// together, as if all of them were enforced.
///
/// Asks only rules that can match, and allocates only for what it records and for the nearest
/// miss of a denial.
pub fn decide(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Decision {
    let mode = snapshot.mutual_tls.mode(facts.port);
    if facts.caller == Caller::Plaintext && mode == MutualTlsMode::Strict {
        return verdict(Verdict::Deny, Step::StrictPort, None);
    }
    let decided = enforced(snapshot, facts, mode);
    let (recorded, recorded_more) = recorded(snapshot, facts, &decided);
    Decision {
        recorded,
        recorded_more,
        ..decided
    }
}

fn enforced(snapshot: &PolicySnapshot, facts: &Facts<'_>, mode: MutualTlsMode) -> Decision {
    if let Some(broken) = snapshot.broken.first() {
        return verdict(Verdict::Deny, Step::BrokenDocument, Some(&broken.source));
    }
    if let Some(matched) = matches(snapshot, facts, Role::Denies).next() {
        return by_rule(&matched, Verdict::Deny, Step::DenyRule);
    }
    if let Some(matched) = matches(snapshot, facts, Role::Allows).next() {
        return by_rule(&matched, Verdict::Allow, Step::AllowRule);
    }
    if let Some(policy) = snapshot.policies.first_that_allows() {
        return nobody_allows(snapshot, facts, policy);
    }
    if let Some((default, source)) = &snapshot.default_action {
        let outcome = match default {
            DefaultAction::Allow => Verdict::Allow,
            DefaultAction::Deny => Verdict::Deny,
        };
        return verdict(outcome, Step::DefaultAction, Some(source));
    }
    let outcome = match mode {
        MutualTlsMode::Permissive => Verdict::Allow,
        MutualTlsMode::Strict => Verdict::Deny,
    };
    verdict(outcome, Step::MutualTlsMode, None)
}

fn nobody_allows(snapshot: &PolicySnapshot, facts: &Facts<'_>, policy: &Policy) -> Decision {
    let asked = Asked::new(facts, &snapshot.trust_domain, PolicyAction::Allow);
    let nearest = nearest_miss(snapshot.policies.nearest_first(facts), &asked);
    Decision {
        nearest_miss: nearest.map(Box::new),
        ..verdict(Verdict::Deny, Step::NoAllowRule, Some(&policy.source))
    }
}

/// What the policies say that only record: the first of them, and how many more there are.
fn recorded(
    snapshot: &PolicySnapshot,
    facts: &Facts<'_>,
    decided: &Decision,
) -> (Vec<Recorded>, usize) {
    let mut before = None;
    let first_of_policy = matches(snapshot, facts, Role::Records)
        .map(|matched| matched.of)
        .filter(|of| before.replace(of.at.policy) != Some(of.at.policy))
        .map(|of| (of.policy, Some(of)));
    let by_none = would_deny(snapshot, facts, decided).map(|policy| (policy, None));
    let mut said = by_none.into_iter().chain(first_of_policy);
    let named = said.by_ref().take(MAX_RECORDED).map(record).collect();
    (named, said.count())
}

/// The first ALLOW policy in dry run, if those would deny what only a default lets through: none
/// of their rules matches.
fn would_deny<'a>(
    snapshot: &'a PolicySnapshot,
    facts: &Facts<'a>,
    decided: &Decision,
) -> Option<&'a Policy> {
    let first = snapshot.policies.first_that_would_allow()?;
    if !decided.is_allowed() || decided.step == Step::AllowRule {
        return None;
    }
    let mut matched = matches(snapshot, facts, Role::Records);
    let allows = matched.any(|matched| matched.of.policy.action == PolicyAction::Allow);
    (!allows).then_some(first)
}

fn record((policy, of): (&Policy, Option<RuleOf<'_>>)) -> Recorded {
    let source = || policy.source.clone();
    Recorded {
        policy: of.map_or_else(source, |of| at_rule(policy, of.rule)),
        rule: of.map(|of| of.at.rule),
        action: policy.action,
        dry_run: policy.dry_run,
    }
}

struct Matched<'a> {
    of: RuleOf<'a>,
    /// The first stated field of the entry that matched.
    field: Option<FieldRef>,
}

/// The rules of this role that match, in their order.
fn matches<'a>(
    snapshot: &'a PolicySnapshot,
    facts: &Facts<'a>,
    role: Role,
) -> impl Iterator<Item = Matched<'a>> {
    snapshot
        .policies
        .candidates(role, facts)
        .filter_map(move |of| {
            let asked = Asked::new(facts, &snapshot.trust_domain, of.policy.action);
            matched(of, &asked)
        })
}

fn matched<'a>(of: RuleOf<'a>, asked: &Asked<'_>) -> Option<Matched<'a>> {
    let Rule { from, to, .. } = of.rule;
    let source = first(from, |peer| peer.matches(asked));
    let operation = first(to, |operation| operation.matches(asked));
    if source.is_none() && !from.is_empty() || operation.is_none() && !to.is_empty() {
        return None;
    }
    let field = |entry, line, stated: Option<Judged>| {
        Some(FieldRef {
            rule: of.at.rule,
            entry,
            field: stated?.field,
            line,
        })
    };
    let of_source =
        source.and_then(|(entry, peer)| field(entry, peer.line, peer.stated(asked).next()));
    let of_operation = operation.and_then(|(entry, operation)| {
        field(entry, operation.line, operation.stated(asked).next())
    });
    Some(Matched {
        of,
        field: of_source.or(of_operation),
    })
}

fn first<T>(entries: &[T], matches: impl Fn(&T) -> bool) -> Option<(usize, &T)> {
    let mut entries = entries.iter().enumerate();
    entries.find(|(_, entry)| matches(entry))
}

fn by_rule(matched: &Matched<'_>, outcome: Verdict, step: Step) -> Decision {
    let of = &matched.of;
    Decision {
        rule: Some(of.at.rule),
        field: matched.field,
        ..verdict(outcome, step, Some(&at_rule(of.policy, of.rule)))
    }
}

/// A policy's source, with the line of one of its rules.
pub(super) fn at_rule(policy: &Policy, rule: &Rule) -> SourceRef {
    SourceRef {
        line: rule.line,
        ..policy.source.clone()
    }
}

fn verdict(verdict: Verdict, step: Step, policy: Option<&SourceRef>) -> Decision {
    Decision {
        verdict,
        step,
        policy: policy.cloned(),
        rule: None,
        field: None,
        nearest_miss: None,
        recorded: Vec::new(),
        recorded_more: 0,
    }
}

#[cfg(test)]
mod naive_evaluator;
#[cfg(test)]
mod tests;
