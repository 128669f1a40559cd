//! Everything that a decision looked at, in the order in which it did: for people who ask why.

use super::{
    Decision, DefaultAction, Facts, FailedField, MutualTlsMode, Policy, PolicyAction,
    PolicySnapshot, Recorded, Rule, SourceRef, Step, decide, nearest_miss::failed_fields,
    peer_match::Asked,
};

/// Policies that are told of one by one: more than anybody reads. The rest is counted.
const SHOWN_POLICIES: usize = 200;
/// Rules of one policy that are told of one by one.
const SHOWN_RULES: usize = 50;

/// A decision, and every policy that was or was not asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    pub decision: Decision,
    /// Of the port dialled.
    pub mode: MutualTlsMode,
    /// DENY, then ALLOW, then those that are only recorded; each in the order of the snapshot.
    pub policies: Vec<ConsideredPolicy>,
    /// Policies that are not told of one by one, none of which decided.
    pub left_out: usize,
    /// Of the narrowest scope that states one: what counts where no policy decides.
    pub default_action: Option<(DefaultAction, SourceRef)>,
}

/// What one policy said of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsideredPolicy {
    pub source: SourceRef,
    pub action: PolicyAction,
    pub dry_run: bool,
    /// `false`: the verdict was there before it was this one's turn.
    pub asked: bool,
    /// The dry run that is named for all of them: a default lets the caller through, and no rule
    /// of any ALLOW policy in dry run would.
    pub would_deny: bool,
    pub rules: Vec<ConsideredRule>,
    /// Rules that are not told of one by one, none of which matched.
    pub left_out: usize,
}

impl ConsideredPolicy {
    /// Whether the verdict can come from it.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        is_enforced(self.action, self.dry_run)
    }

    /// The rule that matched, if one did.
    #[must_use]
    pub fn matched(&self) -> Option<&ConsideredRule> {
        let matched = |rule: &&ConsideredRule| rule.outcome == RuleOutcome::Matched;
        self.rules.iter().find(matched)
    }
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsideredRule {
    /// In its policy.
    pub index: usize,
    pub line: u32,
    pub outcome: RuleOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleOutcome {
    /// It was not this one's turn any more.
    NotAsked,
    Matched,
    /// The fields that don't hold, of the source and the operation that come nearest. Never
    /// empty; the first is where it stopped.
    Stopped(Vec<FailedField>),
}

/// What [`decide`] decides, and what every policy says of it.
#[must_use]
pub fn considered(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Considered {
    let decision = decide(snapshot, facts);
    let before_policy = matches!(decision.step, Step::StrictPort | Step::BrokenDocument);
    let mut told = Told {
        policies: Vec::new(),
        left_out: 0,
    };
    let mut decided = before_policy;
    for action in [PolicyAction::Deny, PolicyAction::Allow] {
        for policy in of(snapshot, |policy| {
            policy.action == action && !policy.dry_run
        }) {
            let told_of = told_of(snapshot, facts, policy, !decided);
            decided |= told_of.matched().is_some();
            told.add(told_of);
        }
    }
    // plaintext to a STRICT port is refused before anything is recorded
    let recorded = decision.step != Step::StrictPort;
    for policy in of(snapshot, |policy| {
        !is_enforced(policy.action, policy.dry_run)
    }) {
        let mut told_of = told_of(snapshot, facts, policy, recorded);
        told_of.would_deny = would_deny(&decision, policy);
        told.add(told_of);
    }
    Considered {
        decision,
        mode: snapshot.mutual_tls.mode(facts.port),
        policies: told.policies,
        left_out: told.left_out,
        default_action: snapshot.default_action.clone(),
    }
}

fn would_deny(decision: &Decision, policy: &Policy) -> bool {
    let of_this_one =
        |recorded: &Recorded| recorded.rule.is_none() && recorded.policy == policy.source;
    decision.recorded.iter().any(of_this_one)
}

fn is_enforced(action: PolicyAction, dry_run: bool) -> bool {
    action != PolicyAction::Audit && !dry_run
}

fn of(
    snapshot: &PolicySnapshot,
    chosen: impl Fn(&Policy) -> bool,
) -> impl Iterator<Item = &Policy> {
    snapshot
        .policies
        .iter()
        .map(|policy| -> &Policy { policy })
        .filter(move |policy| chosen(policy))
}

struct Told {
    policies: Vec<ConsideredPolicy>,
    left_out: usize,
}

impl Told {
    /// What matched, or would deny, is told of wherever it stands.
    fn add(&mut self, policy: ConsideredPolicy) {
        let counts = policy.matched().is_some() || policy.would_deny;
        if self.policies.len() < SHOWN_POLICIES || counts {
            self.policies.push(policy);
        } else {
            self.left_out = self.left_out.saturating_add(1);
        }
    }
}

fn told_of(
    snapshot: &PolicySnapshot,
    facts: &Facts<'_>,
    policy: &Policy,
    mut asked: bool,
) -> ConsideredPolicy {
    let compared = Asked::new(facts, &snapshot.trust_domain, policy.action);
    let mut told = ConsideredPolicy {
        source: policy.source.clone(),
        action: policy.action,
        dry_run: policy.dry_run,
        asked,
        would_deny: false,
        rules: Vec::new(),
        left_out: 0,
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let outcome = if asked {
            outcome(index, rule, &compared)
        } else {
            RuleOutcome::NotAsked
        };
        let matched = outcome == RuleOutcome::Matched;
        asked &= !matched;
        if told.rules.len() < SHOWN_RULES || matched {
            told.rules.push(ConsideredRule {
                index,
                line: rule.line,
                outcome,
            });
        } else {
            told.left_out = told.left_out.saturating_add(1);
        }
    }
    told
}

fn outcome(index: usize, rule: &Rule, asked: &Asked<'_>) -> RuleOutcome {
    let failed = failed_fields(index, rule, asked);
    if failed.is_empty() {
        RuleOutcome::Matched
    } else {
        RuleOutcome::Stopped(failed)
    }
}

#[cfg(test)]
mod tests;
