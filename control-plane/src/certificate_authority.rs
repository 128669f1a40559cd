//! Issues X509-SVIDs in three steps: `svid_template` (what we intend), the signature here (the
//! mechanism), `svid_inspection` (what came out, read again by another parser).
//!
//! ```text
//! root (root init, root renew only) ── signs ──▶ issuing CA ── signs ──▶ leaf
//! certificate_request: the caller's public key and its proof of possession, nothing else
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{identity::WorkloadId, svid::LeafFacts, trust_bundle::pem};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

pub(crate) mod authority;
pub(crate) mod authority_facts;
pub(crate) mod authority_watch;
pub(crate) mod certificate_request;
pub(crate) mod cluster_store;
pub(crate) mod directory_owner;
pub(crate) mod expiry_warnings;
pub(crate) mod file_replacement;
mod imported;
pub(crate) mod key_kind;
pub(crate) mod key_store;
mod mounted_volume;
pub(crate) mod plugged_in;
pub(crate) mod random;
pub(crate) mod root;
pub(crate) mod root_mode;
pub(crate) mod rotation;
pub(crate) mod svid_inspection;
pub(crate) mod svid_template;
pub(crate) mod trial;

use certificate_request::PublicKey;
use rotation::Trust;
use svid_inspection::InspectionError;
use svid_template::{Subject, SvidTemplate, TemplateError};

/// A leaf, the issuing CA that signed it, and the intermediates above that.
#[derive(Debug, Clone)]
pub(crate) struct IssuedSvid {
    pub(crate) facts: LeafFacts,
    /// Key id of the issuing CA that signed it.
    pub(crate) issuer_key_id: String,
    /// Leaf first. Without the root: peers have it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl IssuedSvid {
    pub(crate) fn chain_pem(&self) -> String {
        self.chain
            .iter()
            .map(|certificate| pem("CERTIFICATE", certificate))
            .collect()
    }
}

/// Signs with the issuing CA that is active now.
#[derive(Clone)]
pub(crate) struct CertificateAuthority {
    trust: watch::Receiver<Arc<Trust>>,
    leaf_lifetime: Duration,
}

impl CertificateAuthority {
    pub(crate) fn new(trust: watch::Receiver<Arc<Trust>>, leaf_lifetime: Duration) -> Self {
        Self {
            trust,
            leaf_lifetime,
        }
    }

    /// What everybody trusts and who signs, now.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.borrow())
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Trust>> {
        self.trust.clone()
    }

    /// A leaf for a workload that was attested. The caller answers for `id` and `common_name`; without
    /// one the leaf proves its identity to peers, and gets no other certificate here.
    pub(crate) fn issue(
        &self,
        id: WorkloadId,
        common_name: Option<String>,
        public_key: PublicKey,
        now: SystemTime,
    ) -> Result<IssuedSvid, IssueError> {
        let subject = Subject {
            common_name,
            ..Subject::of(id)
        };
        self.issue_for(subject, public_key, self.leaf_lifetime, now)
    }

    /// How long leaves live if nobody asks for less.
    pub(crate) fn leaf_lifetime(&self) -> Duration {
        self.leaf_lifetime
    }

    /// As [`Self::issue`], with names of services, or for less long than usual.
    pub(crate) fn issue_for(
        &self,
        subject: Subject,
        public_key: PublicKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<IssuedSvid, IssueError> {
        let authority = Arc::clone(&self.trust.borrow().authority);
        let lifetime = lifetime.min(self.leaf_lifetime);
        let limits = authority.limits();
        let template = SvidTemplate::new(subject, public_key, lifetime, limits, now)?;
        let leaf = authority.sign(&template)?;
        let facts = svid_inspection::inspect(&leaf, &template, &authority)?;
        let chain = std::iter::once(leaf)
            .chain(authority.chain().cloned())
            .collect();
        Ok(IssuedSvid {
            facts,
            issuer_key_id: authority.facts().key_id.clone(),
            chain,
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("the certificate could not be signed: {0}")]
    Sign(#[from] rcgen::Error),
    #[error("what was signed is not what was meant, so it is not handed out: {0}")]
    Inspection(#[from] InspectionError),
}

#[cfg(test)]
mod tests;
