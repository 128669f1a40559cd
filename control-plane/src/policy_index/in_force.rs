//! What a document says, as it is kept while it is in force.

use std::sync::Arc;

use mesh_lite_proto::authorization::{
    DefaultAction, Eviction, PeerAuthentication, Policy, SourceRef, document::Loaded,
};

/// A loaded document. Whom it selects is in its scope.
#[derive(Debug, Clone)]
pub(super) enum InForce {
    AuthorizationPolicy {
        policy: Option<SharedPolicy>,
        default_action: Option<(DefaultAction, SourceRef)>,
    },
    PeerAuthentication(PeerAuthentication),
    Eviction(Eviction),
}

/// A policy that all snapshots with it have in common.
#[derive(Debug, Clone)]
pub(super) struct SharedPolicy {
    pub(super) policy: Arc<Policy>,
    /// Bytes in a snapshot: measured once, not for every workload at every change.
    pub(super) wire_size: usize,
}

impl InForce {
    /// A document that says what it said before keeps its policy: whoever compares the snapshots
    /// with it sees at a glance that nothing changed.
    pub(super) fn of(loaded: Loaded, before: Option<Self>) -> Self {
        match loaded {
            Loaded::AuthorizationPolicy(document) => Self::AuthorizationPolicy {
                policy: document.policy.map(|policy| shared(policy, before)),
                default_action: document.default_action,
            },
            Loaded::PeerAuthentication(document) => Self::PeerAuthentication(document),
            Loaded::Eviction(eviction) => Self::Eviction(eviction),
        }
    }
}

fn shared(policy: Policy, before: Option<InForce>) -> SharedPolicy {
    match before {
        Some(InForce::AuthorizationPolicy {
            policy: Some(before),
            ..
        }) if *before.policy == policy => before,
        _ => SharedPolicy {
            wire_size: policy.wire_size(),
            policy: Arc::new(policy),
        },
    }
}
