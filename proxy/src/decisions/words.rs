//! What is told of a decision beside what tells it apart: the latest time's, and bounded.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::size_of,
    sync::Arc,
};

use mesh_lite_proto::{
    authorization::{Decision, NearestMiss, Recorded},
    decision_record::MAX_REASON,
};

use crate::access_log::Outcome;

/// Dry runs and AUDIT policies that a record names, of those that its decision names. Each takes
/// 150 bytes: all of them would push out as many callers again.
const MAX_DRY_RUNS: usize = 4;
/// Stands where words were too many.
const ELLIPSIS: char = '…';

/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    /// The reason of a decision, or a refusal's error.
    pub(super) text: Option<Arc<str>>,
    /// `None`: there are none.
    dry_runs: Option<Arc<DryRuns>>,
}

#[derive(Debug)]
struct DryRuns {
    named: Arc<[Recorded]>,
    more: usize,
}

impl Words {
    /// What the access log says: made for a new record, or if it is other than before.
    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Decided(decision) | Outcome::DecidedPlaintext(decision, _) => Self {
                text: Some(cut(&decision.reason())),
                dry_runs: DryRuns::of(decision).map(Arc::new),
            },
            Outcome::Refused(_, text) | Outcome::Unanswered(text) => Self {
                text: text.as_deref().map(cut),
                dry_runs: None,
            },
            Outcome::Answered(..) | Outcome::PassedPlaintext(_) => Self::default(),
        }
    }

    /// What dry runs and AUDIT policies said, and how many more there are.
    pub(super) fn recorded(&self) -> (Arc<[Recorded]>, usize) {
        let recorded = |it: &Arc<DryRuns>| (Arc::clone(&it.named), it.more);
        self.dry_runs.as_ref().map(recorded).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |text| text.len());
        text + self.dry_runs.as_ref().map_or(0, |it| it.bytes())
    }
}

impl DryRuns {
    fn of(decision: &Decision) -> Option<Self> {
        let named: Arc<[Recorded]> = decision
            .recorded
            .iter()
            .take(MAX_DRY_RUNS)
            .cloned()
            .collect();
        let unnamed = decision.recorded.len().saturating_sub(named.len());
        (!named.is_empty()).then_some(Self {
            named,
            more: decision.recorded_more.saturating_add(unnamed),
        })
    }

    /// Names are shared with the policy, which may be gone.
    fn bytes(&self) -> usize {
        let one = |it: &Recorded| {
            size_of::<Recorded>() + it.policy.document.len() + it.policy.file.len() + 32
        };
        size_of::<Self>() + 32 + self.named.iter().map(one).sum::<usize>()
    }
}

/// A number that differs where the words do. What the key says, the words may say too: it is not
/// looked at again.
pub(super) fn mark(outcome: &Outcome) -> u64 {
    let mut hasher = DefaultHasher::new();
    match outcome {
        Outcome::Decided(decision) | Outcome::DecidedPlaintext(decision, _) => {
            mark_decision(decision, &mut hasher);
        }
        Outcome::Refused(_, text) | Outcome::Unanswered(text) => text.hash(&mut hasher),
        Outcome::Answered(..) | Outcome::PassedPlaintext(_) => return 0,
    }
    hasher.finish()
}

fn mark_decision(decision: &Decision, hasher: &mut DefaultHasher) {
    (decision.field, &decision.recorded, decision.recorded_more).hash(hasher);
    let Some(NearestMiss {
        policy,
        rule,
        failed,
    }) = decision.nearest_miss.as_deref()
    else {
        return;
    };
    (policy, rule).hash(hasher);
    for failed in failed {
        (failed.field, &failed.value, &failed.got).hash(hasher);
    }
}

fn cut(text: &str) -> Arc<str> {
    if text.len() <= MAX_REASON {
        return text.into();
    }
    let end = text.floor_char_boundary(MAX_REASON - ELLIPSIS.len_utf8());
    let kept = text.get(..end).unwrap_or_default();
    format!("{kept}{ELLIPSIS}").into()
}
