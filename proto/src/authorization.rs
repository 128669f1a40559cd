//! Who may connect to a workload: one pure decision over a numbered snapshot of policy.
//!
//! ```text
//!   YAML documents ── document ──┐
//!                                ├─ PolicySnapshot ── decide(snapshot, facts) ── Decision
//!   wire messages ── from_wire ──┘    └─ policies     └─ rule_index, peer_match  └─ explain
//! ```

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::SystemTime};

use spiffe::TrustDomain;

pub use self::{
    considered::{Considered, ConsideredPolicy, ConsideredRule, RuleOutcome, considered},
    decide::decide,
    document::{AuthorizationPolicy, PeerAuthentication, Selector},
    explain::{
        Decision, FailedField, FieldRef, MAX_RECORDED, NearestMiss, Recorded, RecordedEffect, Step,
        Verdict,
    },
    from_wire::InvalidSnapshot,
    pattern::{InvalidMatch, Pattern, ServiceAccountMatch},
    peer_match::{FieldName, OperationMatch, PeerMatch},
    policies::Policies,
};
use crate::{identity::WorkloadId, svid::Serial};

pub mod considered;
pub mod covering;
pub mod decide;
pub mod document;
pub mod explain;
#[cfg(test)]
mod few_names;
pub mod from_wire;
mod nearest_miss;
pub mod pattern;
pub mod peer_match;
pub mod policies;
mod rule_index;
pub mod snapshot_json;
mod to_wire;

/// Everything that decides who may connect to one workload. It is replaced whole, never edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySnapshot {
    /// Numbered by whoever sends it; grows with every change.
    pub revision: u64,
    /// Our own: what `namespaces` and `serviceAccounts` mean unless a source says otherwise.
    pub trust_domain: TrustDomain,
    pub mutual_tls: MutualTls,
    /// Of the narrowest scope that states one, and where it states it.
    pub default_action: Option<(DefaultAction, SourceRef)>,
    /// Those that select this workload, and no others.
    pub policies: Policies,
    pub evictions: Vec<Eviction>,
    /// Documents that select this workload, or may, and can't be loaded: each of them denies.
    pub broken: Vec<BrokenDocument>,
}

impl PolicySnapshot {
    /// The eviction that ends trust in this identity or certificate, if one is in force at `now`.
    #[must_use]
    pub fn evicted(&self, id: &WorkloadId, serial: &Serial, now: SystemTime) -> Option<&Eviction> {
        self.evictions.iter().find(|eviction| {
            let of_this_one = match &eviction.subject {
                EvictionSubject::Id(evicted) => evicted == id,
                EvictionSubject::Serial(evicted) => evicted == serial,
            };
            of_this_one && eviction.until.is_none_or(|until| now < until)
        })
    }
}

/// Where something was written. Cheap to clone: decisions carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceRef {
    /// `namespace/name` of the document.
    pub document: Arc<str>,
    pub file: Arc<str>,
    /// Counted from 1; 0 of what stands in no line.
    pub line: u32,
}

/// Shown as `namespace/name (file:line)`; line 0 is no line, as of what is built in.
impl fmt::Display for SourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return write!(f, "{} ({})", self.document, self.file);
        }
        write!(f, "{} ({}:{})", self.document, self.file, self.line)
    }
}

/// What may arrive without mutual TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutualTls {
    pub mode: MutualTlsMode,
    /// Ports with a mode of their own.
    pub ports: BTreeMap<u16, MutualTlsMode>,
}

impl MutualTls {
    /// The mode of the port that a caller dialled in the pod.
    #[must_use]
    pub fn mode(&self, port: u16) -> MutualTlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

/// Ordered from lax to strict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MutualTlsMode {
    /// Plaintext is accepted, and judged by policy.
    Permissive,
    /// Plaintext is refused before policy.
    Strict,
}

impl MutualTlsMode {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

impl fmt::Display for MutualTlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a caller whom no policy names, where no ALLOW policy exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefaultAction {
    Allow,
    Deny,
}

impl fmt::Display for DefaultAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyAction {
    Allow,
    Deny,
    /// Matches are recorded and decide nothing.
    Audit,
}

impl PolicyAction {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
        }
    }
}

impl fmt::Display for PolicyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One policy that selects the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub source: SourceRef,
    pub action: PolicyAction,
    /// Evaluated with the other dry runs as if all were enforced, and recorded; never part of the
    /// verdict.
    pub dry_run: bool,
    /// None: nothing matches (an ALLOW policy without rules allows nobody).
    pub rules: Vec<Rule>,
}

/// Matches if one of `from` and one of `to` match; an empty list matches everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub line: u32,
    pub from: Vec<PeerMatch>,
    pub to: Vec<OperationMatch>,
}

/// The end of trust in an identity, or in one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    pub source: SourceRef,
    pub subject: EvictionSubject,
    /// `None`: for good.
    pub until: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictionSubject {
    Id(WorkloadId),
    Serial(Serial),
}

impl fmt::Display for EvictionSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Serial(serial) => write!(f, "serial {serial}"),
        }
    }
}

/// A document that can't be loaded and has no last good version: it denies in its scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenDocument {
    pub source: SourceRef,
    pub reason: Arc<str>,
}

/// All that a decision may rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    pub caller: Caller<'a>,
    /// The TCP peer. Never what a tunnel header claims.
    pub source: IpAddr,
    /// The port dialled in the pod.
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller<'a> {
    /// Proved by mutual TLS.
    Authenticated(&'a WorkloadId),
    Plaintext,
}

#[cfg(test)]
mod tests;
