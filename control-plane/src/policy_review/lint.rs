//! What is odd about documents that load: they say something that is probably not meant.
//!
//! Whatever is said to match nobody, or nobody more, is so for every caller: see
//! [`mesh_lite_proto::authorization::covering`]. Silence says nothing.

use std::{fmt, sync::Arc, time::SystemTime};

use mesh_lite_proto::{
    authorization::{
        FieldRef, Policy, PolicyAction,
        document::{AuthorizationPolicy, Loaded, Selector},
    },
    document::{Node, Place, Position, RawDocument, Value, snippet::Severity},
};

use super::{Documents, ReviewedWorkload};

mod effects;
mod identities;
mod plaintext;
mod rules;
mod scopes;
mod service_ports;
mod watched_ports;

/// What is odd about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub oddity: Oddity,
    pub severity: Severity,
    pub place: Place,
    pub problem: String,
    /// What to do about it.
    pub help: String,
}

/// What kind of oddity a finding is: the name in `warning[name]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Oddity {
    /// Another rule of the same action matches whatever this one does.
    ShadowedRule,
    /// A DENY rule matches whatever this ALLOW rule does.
    DeniedRule,
    /// Fields that contradict each other: nobody matches.
    MatchesNobody,
    /// No workload of the documents has this identity, or is in this namespace.
    UnknownIdentity,
    /// Nobody can prove this identity: mesh-lite issues none of this form, or of this trust domain.
    UnprovableIdentity,
    /// A selector that no workload of the documents has the labels for.
    SelectsNothing,
    /// A policy where Istio has what is for the whole mesh, which it is not here.
    NotMeshWide,
    /// Whom documents name was not looked up: some of the workloads can't be told.
    NotChecked,
    /// A rule without `from` and `to`, or without `from` beside others that have it.
    MatchesEverybody,
    /// An ALLOW policy without rules.
    AllowsNobody,
    /// A DENY or AUDIT policy without rules.
    NoRules,
    /// It decides nothing: a dry run, or an audit.
    NotEnforced,
    /// Several defaults of one scope.
    SeveralDefaults,
    /// DISABLE, which means PERMISSIVE here.
    DisableIsPermissive,
    /// A pattern that other trust domains' callers match too.
    ForeignTrustDomains,
    /// A DENY rule that asks for identities, where plaintext has none and is let through.
    MissesPlaintext,
    /// PERMISSIVE, where no rule lets plaintext through.
    PermissiveForNobody,
    /// A service's port, where the workloads behind it are dialled at another.
    ServicePort,
    /// A port that somebody scrapes or probes, and policy would not let them.
    CutsWatchedPort,
    /// There are too many rules to compare each with each.
    NotCompared,
}

impl Oddity {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ShadowedRule => "shadowed-rule",
            Self::DeniedRule => "denied-rule",
            Self::MatchesNobody => "matches-nobody",
            Self::UnknownIdentity => "unknown-identity",
            Self::UnprovableIdentity => "unprovable-identity",
            Self::SelectsNothing => "selects-nothing",
            Self::NotMeshWide => "not-mesh-wide",
            Self::NotChecked => "not-checked",
            Self::MatchesEverybody => "matches-everybody",
            Self::AllowsNobody => "allows-nobody",
            Self::NoRules => "no-rules",
            Self::NotEnforced => "not-enforced",
            Self::SeveralDefaults => "several-defaults",
            Self::DisableIsPermissive => "disable-is-permissive",
            Self::ForeignTrustDomains => "foreign-trust-domains",
            Self::MissesPlaintext => "misses-plaintext",
            Self::PermissiveForNobody => "permissive-for-nobody",
            Self::ServicePort => "service-port",
            Self::CutsWatchedPort => "cuts-watched-port",
            Self::NotCompared => "not-compared",
        }
    }
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Documents {
    /// What is odd about the documents that load, in the order of files and lines.
    #[must_use]
    pub fn findings(&self, now: SystemTime) -> Vec<Finding> {
        let policies: Vec<PolicyDocument<'_>> =
            self.loaded().filter_map(PolicyDocument::of).collect();
        let mut findings = Findings(Vec::new());
        rules::look(self, &policies, &mut findings);
        effects::look(self, &policies, &mut findings);
        identities::look(self, &policies, &mut findings);
        scopes::look(self, &policies, &mut findings);
        service_ports::look(self, &policies, &mut findings);
        plaintext::look(self, &policies, now, &mut findings);
        plaintext::permissive_for_nobody(self, now, &mut findings);
        watched_ports::look(self, now, &mut findings);
        let mut findings = findings.0;
        findings.sort_by(|one, other| {
            let key = |finding: &Finding| {
                (
                    Arc::clone(&finding.place.file),
                    finding.place.at,
                    finding.oddity,
                )
            };
            key(one).cmp(&key(other))
        });
        findings
    }

    /// Whether a document in this namespace, with this selector, is for the workload.
    pub(super) fn concerns(
        &self,
        raw: &RawDocument,
        selector: &Selector,
        workload: &ReviewedWorkload,
    ) -> bool {
        (self.is_for_whole_mesh(raw) || *raw.key.namespace == *workload.name.namespace)
            && selector.selects(&workload.labels)
    }

    pub(super) fn is_for_whole_mesh(&self, raw: &RawDocument) -> bool {
        raw.for_whole_mesh || *raw.key.namespace == *self.settings().mesh_namespace
    }
}

/// An `AuthorizationPolicy` as it is written and as it is meant.
struct PolicyDocument<'a> {
    raw: &'a RawDocument,
    spec: &'a Node,
    document: &'a AuthorizationPolicy,
}

impl<'a> PolicyDocument<'a> {
    fn of((raw, loaded): (&'a RawDocument, &'a Loaded)) -> Option<Self> {
        let Loaded::AuthorizationPolicy(document) = loaded else {
            return None;
        };
        let spec = raw.spec_node().ok()?;
        Some(Self {
            raw,
            spec,
            document,
        })
    }

    fn policy(&self) -> Option<&'a Policy> {
        self.document.policy.as_ref()
    }

    /// The policy, if verdicts can come from it.
    fn enforced(&self) -> Option<&'a Policy> {
        let enforced = |policy: &&Policy| !policy.dry_run && policy.action != PolicyAction::Audit;
        self.policy().filter(enforced)
    }

    fn place(&self, at: Position) -> Place {
        Place::new(&self.raw.file, at)
    }

    /// Of a key of the spec, or of the spec itself if it is not there.
    fn of_key(&self, key: &str) -> Place {
        self.place(self.spec.entry(key).map_or(self.spec.at, |entry| entry.at))
    }

    fn of_rule(&self, index: usize) -> Place {
        let rule = self.rule(index);
        self.place(rule.map_or(self.spec.at, |rule| rule.at))
    }

    fn of_field(&self, field: FieldRef) -> Place {
        let found = self.field(field);
        self.place(found.map_or(
            Position {
                line: field.line,
                column: 1,
            },
            |(at, _)| at,
        ))
    }

    /// Of one value of a field.
    fn of_value(&self, field: FieldRef, index: usize) -> Place {
        let value = self
            .field(field)
            .and_then(|(_, values)| item(values, index));
        value.map_or_else(|| self.of_field(field), |value| self.place(value.at))
    }

    fn rule(&self, index: usize) -> Option<&'a Node> {
        item(&self.spec.entry("rules")?.value, index)
    }

    /// Where its key stands, and its values.
    fn field(&self, field: FieldRef) -> Option<(Position, &'a Node)> {
        let (list, of) = if field.field.of_operation() {
            ("to", "operation")
        } else {
            ("from", "source")
        };
        let entries = &self.rule(field.rule)?.entry(list)?.value;
        let fields = &item(entries, field.entry)?.entry(of)?.value;
        let entry = fields.entry(field.field.as_str())?;
        Some((entry.at, &entry.value))
    }
}

fn item(list: &Node, index: usize) -> Option<&Node> {
    match &list.value {
        Value::List(items) => items.get(index),
        _ => None,
    }
}

struct Findings(Vec<Finding>);

impl Findings {
    fn warn(
        &mut self,
        oddity: Oddity,
        place: Place,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(
            Severity::Warning,
            oddity,
            place,
            problem.into(),
            help.into(),
        );
    }

    fn note(
        &mut self,
        oddity: Oddity,
        place: Place,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Note, oddity, place, problem.into(), help.into());
    }

    fn add(
        &mut self,
        severity: Severity,
        oddity: Oddity,
        place: Place,
        problem: String,
        help: String,
    ) {
        self.0.push(Finding {
            oddity,
            severity,
            place,
            problem,
            help,
        });
    }
}

#[cfg(test)]
mod tests;
