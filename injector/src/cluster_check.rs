//! `mesh-lite check`: whether the mesh in a cluster works, and what would break in a namespace
//! before it is labelled.
//!
//! ```text
//! objects (read) ─▶ installed, trust, policies ─▶ findings       check
//!                └▶ network_policies, callers, pods ─▶ findings  check -n NAMESPACE
//! ```
//! Everything but [`objects::read`] is a pure function of what was read. What could not be read is
//! a finding of its own: a check that saw nothing never blesses.

use std::{fmt, time::SystemTime};

use serde_json::Value;

use crate::mesh_settings::MeshSettings;

mod callers;
mod installed;
mod namespace_switch;
mod network_policies;
pub mod objects;
mod pods;
mod policies;
mod trust;

pub use namespace_switch::switch_of;
use objects::Objects;
pub use pods::{PodsOfNamespace, pods_of_namespaces};
pub use trust::{Roots, roots};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is broken, or would be.
    Problem,
    /// It can't be told: something could not be read.
    Unknown,
    /// It works, and somebody should know.
    Warning,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was found, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The object, as `Kind namespace/name`.
    pub subject: String,
    pub what: String,
    pub next: String,
}

impl Finding {
    fn new(
        severity: Severity,
        subject: impl Into<String>,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            subject: subject.into(),
            what: what.into(),
            next: next.into(),
        }
    }

    fn problem(
        subject: impl Into<String>,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Problem, subject, what, next)
    }

    fn warning(
        subject: impl Into<String>,
        what: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, subject, what, next)
    }
}

/// Of the whole mesh; the worst first.
pub fn of_mesh(objects: &Objects, settings: &MeshSettings, now: SystemTime) -> Vec<Finding> {
    let mut findings = installed::findings(objects, &settings.mesh_namespace);
    findings.extend(trust::findings(
        objects,
        &settings.mesh_namespace,
        now.into(),
    ));
    findings.extend(policies::findings(objects));
    sorted(findings, objects)
}

/// Of one namespace: what breaks when it is labelled, or is broken since it was.
pub fn of_namespace(objects: &Objects, settings: &MeshSettings, namespace: &str) -> Vec<Finding> {
    let mut findings = installed::version(objects);
    findings.extend(namespace_switch::findings(objects, namespace));
    findings.extend(network_policies::findings(
        objects,
        namespace,
        &settings.mesh_namespace,
    ));
    findings.extend(callers::findings(objects, namespace));
    findings.extend(pods::findings(objects, settings, namespace));
    // there, policy is for the whole mesh
    if namespace != settings.mesh_namespace {
        findings.extend(policies::without_pods(objects));
    }
    sorted(findings, objects)
}

fn sorted(mut findings: Vec<Finding>, objects: &Objects) -> Vec<Finding> {
    findings.extend(objects.unreadable().map(|(what, why)| {
        Finding::new(
            Severity::Unknown,
            what,
            format!("could not be read: {why}"),
            "ask for the right to read it, and check again",
        )
    }));
    findings.sort_by(|a, b| (a.severity, &a.subject).cmp(&(b.severity, &b.subject)));
    findings
}

/// A text within an object, or nothing.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A list within an object, or an empty one.
fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let found = object.pointer(pointer).and_then(Value::as_array);
    found.map_or(&[], Vec::as_slice)
}

fn number(object: &Value, pointer: &str) -> u64 {
    object
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

fn namespace_of(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

fn subject(kind: &str, object: &Value) -> String {
    match namespace_of(object) {
        "" => format!("{kind} {}", name(object)),
        namespace => format!("{kind} {namespace}/{}", name(object)),
    }
}

#[cfg(test)]
mod tests;
