//! A decision, and why it is what it is.

use std::fmt;

use super::{FieldName, PolicyAction, SourceRef};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Allow,
    Deny,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        })
    }
}

/// Which step of the decision gave the verdict. In the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Plaintext to a STRICT port, refused before policy.
    StrictPort,
    /// A document of this workload's can't be loaded: it might have denied.
    BrokenDocument,
    /// A rule of a DENY policy matches.
    DenyRule,
    /// A rule of an ALLOW policy matches.
    AllowRule,
    /// ALLOW policies select this workload, and none of their rules matches.
    NoAllowRule,
    /// The narrowest scope that states a default.
    DefaultAction,
    /// No scope states a default: STRICT denies, PERMISSIVE allows.
    MutualTlsMode,
}

impl Step {
    /// A name for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StrictPort => "strict-port",
            Self::BrokenDocument => "broken-document",
            Self::DenyRule => "deny-rule",
            Self::AllowRule => "allow-rule",
            Self::NoAllowRule => "no-allow-rule",
            Self::DefaultAction => "default-action",
            Self::MutualTlsMode => "mutual-tls-mode",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Dry runs and AUDIT policies that a decision names: each is written to the access log with every
/// connection, and one mesh may have thousands.
pub const MAX_RECORDED: usize = 16;

/// What may be done with a connection, and all that an operator needs to see why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    pub verdict: Verdict,
    pub step: Step,
    /// The document that decided; the line is the deciding rule's, if a rule decided.
    pub policy: Option<SourceRef>,
    /// Index of the rule that matched.
    pub rule: Option<usize>,
    /// The first stated field of what matched; `None` if the rule matches everything.
    pub field: Option<FieldRef>,
    /// For a denial because no ALLOW rule matches: the rule that came nearest.
    pub nearest_miss: Option<Box<NearestMiss>>,
    /// What dry runs and AUDIT policies would have done: the one that stands for all dry runs that
    /// would deny together, then those that match; at most [`MAX_RECORDED`].
    pub recorded: Vec<Recorded>,
    /// How many more of them there are.
    pub recorded_more: usize,
}

impl Decision {
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// One sentence that names policy, file, line, rule and field, and the nearest miss.
    #[must_use]
    pub fn reason(&self) -> String {
        let policy = Named(self.policy.as_ref());
        match self.step {
            Step::StrictPort => {
                "plaintext was refused: this port takes mutual TLS only (STRICT)".to_owned()
            }
            Step::BrokenDocument => broken_in_words(self.policy.as_ref()),
            Step::DenyRule => format!("denied by {policy}{}", Matched(self)),
            Step::AllowRule => format!("allowed by {policy}{}", Matched(self)),
            Step::NoAllowRule => match &self.nearest_miss {
                Some(miss) => format!("no ALLOW rule matches; nearest is {miss}"),
                None => format!("no ALLOW rule matches: {policy} has no rules and allows nobody"),
            },
            Step::DefaultAction => match self.verdict {
                Verdict::Allow => format!("no rule matches; allowed by default, as {policy} says"),
                Verdict::Deny => format!("no rule matches; denied by default, as {policy} says"),
            },
            Step::MutualTlsMode => match self.verdict {
                Verdict::Allow => "no rule matches; PERMISSIVE allows by default".to_owned(),
                Verdict::Deny => "no policy allows this; STRICT denies by default".to_owned(),
            },
        }
    }
}

/// What denies, until when, and where it is said what is wrong: that is too long for every decision.
fn broken_in_words(policy: Option<&SourceRef>) -> String {
    let named = Named(policy);
    let Some(SourceRef { file, line, .. }) = policy else {
        return format!("{named} can't be loaded, so it denies");
    };
    // several documents, each of which may be as it should
    if *line == 0 {
        return format!(
            "{named} can't be sent, so that all is denied; /policy of its sidecar says why"
        );
    }
    let where_to_look = if file.starts_with("kubernetes:") {
        "its status says what is wrong"
    } else {
        "`mesh-lite policy lint` and /readyz of the control plane say what is wrong"
    };
    format!(
        "{named} can't be loaded and has no earlier version, so it denies until it is repaired or \
         removed; {where_to_look}"
    )
}

struct Named<'a>(Option<&'a SourceRef>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(source) => source.fmt(f),
            None => f.write_str("policy"),
        }
    }
}

struct Matched<'a>(&'a Decision);

impl fmt::Display for Matched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.field, self.0.rule) {
            (Some(field), _) => write!(f, ": {field} matches"),
            (None, Some(rule)) => write!(f, ": rules[{rule}] matches everything"),
            (None, None) => Ok(()),
        }
    }
}

/// A field of a rule of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FieldRef {
    pub rule: usize,
    /// Index in the rule's `from` or, for a field of an operation, in its `to`.
    pub entry: usize,
    pub field: FieldName,
    /// Line of that entry.
    pub line: u32,
}

/// Shown as its path: `rules[0].from[1].source.principals`.
impl fmt::Display for FieldRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, of) = if self.field.of_operation() {
            ("to", "operation")
        } else {
            ("from", "source")
        };
        let Self {
            rule, entry, field, ..
        } = self;
        write!(f, "rules[{rule}].{list}[{entry}].{of}.{}", field.as_str())
    }
}

/// The ALLOW rule that would have matched with the fewest changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearestMiss {
    /// Its line is the rule's.
    pub policy: SourceRef,
    pub rule: usize,
    /// The fields that did not hold: never empty.
    pub failed: Vec<FailedField>,
}

impl fmt::Display for NearestMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(f)?;
        let mut separator = ": ";
        for failed in &self.failed {
            write!(f, "{separator}{failed}")?;
            separator = ", and ";
        }
        Ok(())
    }
}

/// A field that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedField {
    pub field: FieldRef,
    /// The value nearest to what the caller has or, of a `not…` field, the value that excludes it.
    pub value: String,
    /// How many other values would do as well.
    pub others: usize,
    /// What the caller has.
    pub got: String,
}

impl FailedField {
    /// The value, and how many others would do as well: `a`, `a (or 1 other)`.
    #[must_use]
    pub fn wanted(&self) -> String {
        let value = &self.value;
        match self.others {
            0 => value.clone(),
            1 => format!("{value} (or 1 other)"),
            more => format!("{value} (or {more} others)"),
        }
    }
}

impl fmt::Display for FailedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field, value, got, ..
        } = self;
        if field.field.negative() {
            write!(f, "{field} excludes {value}, and the caller has {got}")
        } else {
            write!(f, "{field} wants {}, not {got}", self.wanted())
        }
    }
}

/// What a policy that decides nothing says of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recorded {
    /// Its line is the rule's, if there is one.
    pub policy: SourceRef,
    /// That matches. `None`: no rule of any dry run of an ALLOW policy does, and they would deny
    /// what only a default lets through; this is the first of them.
    pub rule: Option<usize>,
    /// The policy's own: for what comes of it, see [`Self::effect`].
    pub action: PolicyAction,
    pub dry_run: bool,
}

impl Recorded {
    #[must_use]
    pub const fn effect(&self) -> RecordedEffect {
        match (self.action, self.rule) {
            (PolicyAction::Audit, _) => RecordedEffect::Audit,
            (PolicyAction::Allow, Some(_)) => RecordedEffect::WouldAllow,
            (PolicyAction::Allow, None) | (PolicyAction::Deny, _) => RecordedEffect::WouldDeny,
        }
    }
}

/// What a policy that decides nothing would have done, if all dry runs were enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordedEffect {
    WouldAllow,
    WouldDeny,
    /// AUDIT never does anything.
    Audit,
}

impl RecordedEffect {
    /// A name for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WouldAllow => "would_allow",
            Self::WouldDeny => "would_deny",
            Self::Audit => "audit",
        }
    }
}
