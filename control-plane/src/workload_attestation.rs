//! Who is asking for a certificate. The answer comes from the credential alone: in a cluster the
//! pod's service-account token each time, elsewhere a join token the first time and the current
//! X509-SVID after that. Nothing in the request widens it.

use std::time::SystemTime;

use mesh_lite_proto::{identity::WorkloadId, svid::LeafFacts, trust_bundle::TrustBundle};

use service_account_token::{PodProof, ServiceAccountTokens};

use crate::{
    caller::Peer,
    clock::readable,
    workload_index::{WorkloadIndex, WorkloadName},
};

pub(crate) mod join_token;
pub(crate) mod service_account_token;

/// A workload that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attested {
    pub(crate) id: WorkloadId,
    pub(crate) workload: WorkloadName,
}

/// What callers prove themselves by: one way in a cluster, another elsewhere, never both.
#[derive(Clone)]
pub(crate) enum Attestation {
    JoinTokens,
    ServiceAccountTokens(ServiceAccountTokens),
}

/// By a pod's service-account token, which was reviewed. A certificate on the same connection must
/// be the same workload's, and still be trusted: it proves nothing here, but whoever shows
/// another's has stolen one of the two. The pod need not be in the index yet, but one that was there
/// and is gone is nobody, whatever was said of its token before.
pub(crate) fn by_pod(
    proof: &PodProof,
    bundle: &TrustBundle,
    index: &WorkloadIndex,
) -> Result<Attested, NotAttested> {
    let pod = &proof.pod;
    if index.is_gone(&pod.uid) {
        return Err(NotAttested::PodGone(pod.workload.clone()));
    }
    if let Some(peer) = &proof.peer {
        if peer.leaf.id != pod.id {
            return Err(NotAttested::OtherThanToken {
                token: pod.id.clone(),
                svid: peer.leaf.id.clone(),
            });
        }
        if !peer.is_trusted_in(bundle) {
            return Err(NotAttested::RootDropped(peer.leaf.id.clone()));
        }
    }
    Ok(Attested {
        id: pod.id.clone(),
        workload: pod.workload.clone(),
    })
}

/// By a join token: the token names the document, the document the identity.
pub(crate) fn by_name(
    workload: &WorkloadName,
    index: &WorkloadIndex,
) -> Result<Attested, NotAttested> {
    let document = index
        .workload(workload)
        .ok_or_else(|| NotAttested::NoDocument(workload.clone()))?;
    Ok(Attested {
        id: document.id.clone(),
        workload: workload.clone(),
    })
}

/// By the X509-SVID of a connection, whose chain was verified when it was opened. It must still
/// be valid now, and its root still be trusted.
pub(crate) fn by_svid(
    peer: &Peer,
    bundle: &TrustBundle,
    index: &WorkloadIndex,
    now: SystemTime,
) -> Result<Attested, NotAttested> {
    let leaf = &peer.leaf;
    if !peer.is_trusted_in(bundle) {
        return Err(NotAttested::RootDropped(leaf.id.clone()));
    }
    if now >= leaf.not_after {
        return Err(NotAttested::Expired {
            at: readable(leaf.not_after),
            now: readable(now),
        });
    }
    by_document(leaf, index)
}

/// The Workload document that a leaf was issued to, if it still exists and still has the leaf's
/// identity.
pub(crate) fn by_document(
    leaf: &LeafFacts,
    index: &WorkloadIndex,
) -> Result<Attested, NotAttested> {
    let (Some(namespace), Some(name)) = (leaf.id.namespace(), leaf.common_name.as_deref()) else {
        return Err(NotAttested::NoWorkloadName(leaf.id.clone()));
    };
    let workload = WorkloadName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let attested = by_name(&workload, index)?;
    if attested.id != leaf.id {
        return Err(NotAttested::OtherIdentity {
            workload,
            document: attested.id,
            svid: leaf.id.clone(),
        });
    }
    Ok(attested)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotAttested {
    #[error(
        "there is no usable Workload document {0} in the configuration directory: add it, or see the control plane's /readyz for why it was refused"
    )]
    NoDocument(WorkloadName),
    #[error(
        "the X509-SVID of this connection expired at {at}, and it is {now} here: ask with a new join token, made by \
         `mesh-lite token create`. If the certificate is not that old, compare the clocks"
    )]
    Expired { at: String, now: String },
    #[error(
        "the root that vouched for {0} when this connection was opened is no longer in the trust bundle: \
         connect again, with a certificate of a current root, or with a token alone (outside Kubernetes a new join \
         token, made by `mesh-lite token create`)"
    )]
    RootDropped(WorkloadId),
    #[error(
        "the X509-SVID of {0} names no workload, so it gets no other certificate, key or policy: one that was made for a \
         reusable token is followed by another on a stream that shows such a token. For one that renews, send a certificate \
         request with a join token, made by `mesh-lite token create NAMESPACE/NAME`"
    )]
    NoWorkloadName(WorkloadId),
    #[error(
        "the X509-SVID of this connection is of {svid}, and the service-account token of {token}: show the two of one pod"
    )]
    OtherThanToken { token: WorkloadId, svid: WorkloadId },
    #[error(
        "the pod {0} that the service-account token was made for is gone: a pod of the same name has a token of its own"
    )]
    PodGone(WorkloadName),
    #[error(
        "the Workload document {workload} is {document} now, not {svid}: ask with a new join token, made by `mesh-lite token create {workload}`"
    )]
    OtherIdentity {
        workload: WorkloadName,
        document: WorkloadId,
        svid: WorkloadId,
    },
}

impl NotAttested {
    /// The credential proves nothing, rather than somebody without a place in the mesh.
    pub(crate) fn is_about_the_credential(&self) -> bool {
        matches!(
            self,
            Self::Expired { .. } | Self::RootDropped(_) | Self::PodGone(_)
        )
    }
}

#[cfg(test)]
mod tests;
