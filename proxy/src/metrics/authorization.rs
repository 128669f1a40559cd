//! What policy decided, by policy and rule.

use std::{fmt, sync::Arc};

use mesh_lite_proto::authorization::{Decision, Recorded, RecordedEffect};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};

use super::{connection::Printable, series::Overflow};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DecisionLabels {
    ruling: Ruling,
    /// `namespace/name` of the document that decided
    policy: Option<Arc<str>>,
    rule: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ruling {
    Allow,
    Deny,
    Recorded(RecordedEffect),
}

impl DecisionLabels {
    pub(super) fn of(decision: &Decision) -> Self {
        Self {
            ruling: if decision.is_allowed() {
                Ruling::Allow
            } else {
                Ruling::Deny
            },
            policy: decision
                .policy
                .as_ref()
                .map(|policy| Arc::clone(&policy.document)),
            rule: decision.rule,
        }
    }

    pub(super) fn of_recorded(recorded: &Recorded) -> Self {
        Self {
            ruling: Ruling::Recorded(recorded.effect()),
            policy: Some(Arc::clone(&recorded.policy.document)),
            rule: recorded.rule,
        }
    }
}

impl Ruling {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Recorded(effect) => effect.as_str(),
        }
    }
}

impl EncodeLabelSet for DecisionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let rule = self.rule.map(|rule| rule.to_string());
        [
            ("decision", self.ruling.as_str()),
            ("policy", self.policy.as_deref().unwrap_or("none")),
            ("rule", rule.as_deref().unwrap_or("none")),
        ]
        .map(|(name, value)| (name, Printable(value)))
        .encode(encoder)
    }
}

impl Overflow for DecisionLabels {
    fn encode_overflow(encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [
            ("decision", "other"),
            ("policy", "other"),
            ("rule", "other"),
        ]
        .encode(encoder)
    }
}
