//! What dry runs and AUDIT policies said of a connection, as a line has it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::line::{Wrong, named, place, policy};
use crate::authorization::{PolicyAction, Recorded};

const ACTIONS: [PolicyAction; 3] = [PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Audit];

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRun {
    action: Box<str>,
    policy: Box<str>,
    policy_source: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<usize>,
    dry_run: bool,
    /// Sidecars of before did not write it: it follows from the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Box<str>>,
}

/// As a line has them; a line without any does not say so.
pub(super) fn dry_runs(recorded: &[Recorded]) -> Option<Vec<DryRun>> {
    (!recorded.is_empty()).then(|| recorded.iter().map(DryRun::of).collect())
}

/// Those of a line: as many as it has room for.
pub(super) fn recorded(line: Option<Vec<DryRun>>) -> Result<Arc<[Recorded]>, Wrong> {
    let dry_runs = line.into_iter().flatten();
    dry_runs.map(DryRun::into_recorded).collect()
}

impl DryRun {
    fn of(recorded: &Recorded) -> Self {
        Self {
            action: recorded.action.as_str().into(),
            policy: (&*recorded.policy.document).into(),
            policy_source: place(&recorded.policy),
            rule: recorded.rule,
            dry_run: recorded.dry_run,
            effect: Some(recorded.effect().as_str().into()),
        }
    }

    fn into_recorded(self) -> Result<Recorded, Wrong> {
        let action = named("action", &self.action, &ACTIONS, |it| it.as_str())?;
        let Some(policy) = policy(Some(self.policy), Some(self.policy_source))? else {
            return Err("what is recorded names its policy".to_owned());
        };
        let recorded = Recorded {
            policy,
            rule: self.rule,
            action,
            dry_run: self.dry_run,
        };
        if recorded.rule.is_none() && (action != PolicyAction::Allow || !recorded.dry_run) {
            return Err(format!(
                "{action} is recorded without a rule, as only a dry run of ALLOW is"
            ));
        }
        let effect = recorded.effect().as_str();
        if let Some(other) = self.effect.filter(|said| **said != *effect) {
            return Err(format!("effect is {other:?}, and the rest says {effect}"));
        }
        Ok(recorded)
    }
}
