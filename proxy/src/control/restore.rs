//! What of a state file may be used at start.

use std::{sync::Arc, time::SystemTime};

use mesh_lite_proto::{
    authorization::PolicySnapshot, identity::WorkloadId, trust_bundle::TrustBundle,
    wire::mesh_lite::v1 as wire,
};
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;

use crate::identity::{
    PrivateKey,
    issued_chain::check_chain,
    owner::Leaf,
    state_file::{SavedFacts, SavedState},
};

/// What a restarted sidecar begins with. Each part stands for itself: an ended leaf does not
/// make the policy worse.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) trust_bundle: Option<Arc<TrustBundle>>,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) policy: Option<PolicySnapshot>,
    pub(crate) directory: Option<wire::DirectoryResponse>,
    /// What was in the file and is not used, and why.
    pub(crate) left_out: Vec<String>,
}

/// Of which sidecar the state must be.
pub(crate) struct Own<'a> {
    pub(crate) pod_uid: &'a str,
    pub(crate) trust_domain: &'a TrustDomain,
    /// What the trust bundle file says now.
    pub(crate) bundle_file: Option<TrustBundle>,
}

impl Restored {
    /// Without a state file.
    pub(crate) fn nothing(bundle_file: Option<TrustBundle>) -> Self {
        Self {
            trust_bundle: bundle_file.map(Arc::new),
            ..Self::default()
        }
    }

    pub(crate) fn from_state(state: SavedState, own: Own<'_>, now: SystemTime) -> Self {
        let SavedState { key, rest } = state;
        if rest.pod_uid != own.pod_uid {
            let mut nothing = Self::nothing(own.bundle_file);
            nothing.left_out.push(format!(
                "all of it: it is the state of {:?}, this is {:?}",
                rest.pod_uid, own.pod_uid
            ));
            return nothing;
        }
        let mut restored = Self::default();
        restored.trust_bundle = restored.choose_bundle(&rest, &own);
        restored.leaf = restored.take_leaf(key, &rest, now);
        restored.policy = restored.take_policy(rest.policy, own.trust_domain);
        restored.directory = rest.directory;
        restored
    }

    /// The kept bundle, which the control plane sent last, unless the file was changed since
    /// that was written: then somebody wants the file to be believed.
    fn choose_bundle(&mut self, rest: &SavedFacts, own: &Own<'_>) -> Option<Arc<TrustBundle>> {
        let file_changed = own
            .bundle_file
            .as_ref()
            .is_some_and(|file| file.digest() != rest.trust_bundle_file);
        if file_changed || rest.trust_bundle.is_empty() {
            return own.bundle_file.clone().map(Arc::new);
        }
        let authorities = rest
            .trust_bundle
            .iter()
            .cloned()
            .map(CertificateDer::from)
            .collect();
        match TrustBundle::new(own.trust_domain.clone(), authorities) {
            Ok(bundle) => Some(Arc::new(bundle)),
            Err(reason) => {
                self.left_out.push(format!("the trust bundle: {reason}"));
                own.bundle_file.clone().map(Arc::new)
            }
        }
    }

    fn take_leaf(
        &mut self,
        key: Option<PrivateKey>,
        rest: &SavedFacts,
        now: SystemTime,
    ) -> Option<Leaf> {
        let (key, bundle) = (key?, self.trust_bundle.as_ref()?);
        let chain: Vec<CertificateDer<'static>> = rest
            .chain
            .iter()
            .cloned()
            .map(CertificateDer::from)
            .collect();
        let any_workload: Option<&WorkloadId> = None;
        match check_chain(&chain, &key, bundle, any_workload, now) {
            Ok(leaf) => Some(Leaf { leaf, chain, key }),
            Err(reason) => {
                self.left_out.push(format!("the certificate: {reason}"));
                None
            }
        }
    }

    fn take_policy(
        &mut self,
        policy: Option<wire::PolicySnapshot>,
        trust_domain: &TrustDomain,
    ) -> Option<PolicySnapshot> {
        match PolicySnapshot::try_from(policy?) {
            Ok(policy) if policy.trust_domain == *trust_domain => Some(policy),
            Ok(policy) => {
                let found = policy.trust_domain;
                self.left_out
                    .push(format!("the policy: it is for the trust domain {found}"));
                None
            }
            Err(reason) => {
                self.left_out.push(format!("the policy: {reason}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
