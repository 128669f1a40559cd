//! One call, judged as the sidecar of its destination would judge it.

use std::{net::IpAddr, time::SystemTime};

use mesh_lite_control_plane::policy_review::{by_serial, eviction_of};
use mesh_lite_proto::{
    authorization::{Caller, Considered, Facts, PolicySnapshot, SourceRef, Step, considered},
    identity::WorkloadId,
};

/// Who calls whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// `None`: plaintext.
    pub(super) caller: Option<WorkloadId>,
    /// `namespace/name` of the caller, if a document names it.
    pub(super) caller_name: Option<String>,
    /// `None`: no policy asks for it.
    pub(super) source: Option<IpAddr>,
    /// `namespace/name` or, where nobody knows it, an address or an identity.
    pub(super) destination: String,
    pub(super) port: u16,
}

/// The answer, and all that led to it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) considered: Considered,
    /// The caller is evicted, which comes before any policy.
    pub(super) evicted: Option<SourceRef>,
    /// Evictions of certificates, which the question does not name.
    pub(super) evicted_certificates: usize,
}

/// Where the address does not matter, this one stands for all: of TEST-NET-1, where nobody is.
const ANYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

impl Judged {
    /// As the sidecar does it: evictions first, then policy.
    pub(super) fn of(call: &Call, snapshot: &PolicySnapshot, now: SystemTime) -> Self {
        let caller = call
            .caller
            .as_ref()
            .map_or(Caller::Plaintext, Caller::Authenticated);
        let facts = Facts {
            caller,
            source: call.source.unwrap_or(ANYWHERE),
            port: call.port,
        };
        let evicted = eviction_of(snapshot, caller, now);
        Self {
            considered: considered(snapshot, &facts),
            evicted: evicted.map(|eviction| eviction.source.clone()),
            evicted_certificates: if call.caller.is_some() {
                by_serial(snapshot, now).count()
            } else {
                0
            },
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        self.evicted.is_none() && self.considered.decision.is_allowed()
    }

    /// As the access log says it.
    pub(super) fn reason(&self) -> String {
        match &self.evicted {
            Some(source) => format!("the peer is evicted by {source}"),
            None => self.considered.decision.reason(),
        }
    }

    /// The document that decided.
    pub(super) fn policy(&self) -> Option<&SourceRef> {
        self.evicted
            .as_ref()
            .or(self.considered.decision.policy.as_ref())
    }

    pub(super) fn step(&self) -> StepTaken {
        match self.evicted {
            Some(_) => StepTaken::Evicted,
            None => StepTaken::Policy(self.considered.decision.step),
        }
    }
}

/// Whether any policy asks where a caller comes from.
pub(super) fn asks_for_addresses(snapshot: &PolicySnapshot) -> bool {
    snapshot
        .policies
        .iter()
        .flat_map(|policy| &policy.rules)
        .flat_map(|rule| &rule.from)
        .any(|peer| !peer.ip_blocks.is_empty() || !peer.not_ip_blocks.is_empty())
}

/// What gave the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepTaken {
    Evicted,
    Policy(Step),
}

impl StepTaken {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Policy(step) => step.as_str(),
        }
    }

    /// Of the five steps of a decision; `None`: before all of them.
    pub(super) const fn number(self) -> Option<u8> {
        match self {
            Self::Evicted | Self::Policy(Step::StrictPort | Step::BrokenDocument) => None,
            Self::Policy(Step::DenyRule) => Some(1),
            Self::Policy(Step::AllowRule) => Some(2),
            Self::Policy(Step::NoAllowRule) => Some(3),
            Self::Policy(Step::DefaultAction) => Some(4),
            Self::Policy(Step::MutualTlsMode) => Some(5),
        }
    }

    pub(super) const fn in_words(self) -> &'static str {
        match self {
            Self::Evicted => "the caller is evicted, which is looked at before policy",
            Self::Policy(Step::StrictPort) => {
                "plaintext to a STRICT port, which is refused before policy"
            }
            Self::Policy(Step::BrokenDocument) => {
                "a document that can't be loaded denies in its scope, before any rule is asked"
            }
            Self::Policy(Step::DenyRule) => "a rule of a DENY policy matches",
            Self::Policy(Step::AllowRule) => {
                "no DENY rule matches, and a rule of an ALLOW policy does"
            }
            Self::Policy(Step::NoAllowRule) => {
                "ALLOW policies select this workload, and none of their rules matches"
            }
            Self::Policy(Step::DefaultAction) => {
                "no rule matches, no ALLOW policy selects this workload: the default of the narrowest scope holds"
            }
            Self::Policy(Step::MutualTlsMode) => {
                "nobody states a default: STRICT denies, PERMISSIVE allows"
            }
        }
    }
}
