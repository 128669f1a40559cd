//! A new key in this process, and a certificate for it from the issuance queue.

use std::{future::Future, net::SocketAddr};

use rcgen::{KeyPair, PublicKeyData as _};
use zeroize::Zeroizing;

use super::{Made, Maker};
use crate::{
    certificate_authority::{IssueError, certificate_request::PublicKey},
    issuance::{
        Refusal, StandingProof,
        queue::{IssuanceQueue, NotIssued},
        turns::Urgency,
    },
};

/// For the caller of one stream.
pub(crate) struct MadeHere {
    pub(crate) queue: IssuanceQueue,
    pub(crate) proof: StandingProof,
    pub(crate) address: SocketAddr,
}

impl Maker for MadeHere {
    fn make(
        &self,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Made, NotIssued>> + Send + 'static {
        make(
            self.queue.clone(),
            self.proof.clone(),
            self.address,
            urgency,
        )
    }
}

async fn make(
    queue: IssuanceQueue,
    proof: StandingProof,
    address: SocketAddr,
    urgency: Urgency,
) -> Result<Made, NotIssued> {
    let failed = |error: rcgen::Error| Refusal::Issue(IssueError::from(error));
    let key = Zeroizing::new(KeyPair::generate().map_err(failed)?);
    let public_key = PublicKey::from_der(&key.subject_public_key_info()).map_err(Refusal::from)?;
    let issued = queue.issue_for(proof, address, public_key, urgency).await?;
    Ok(Made {
        chain: issued.chain,
        key: Zeroizing::new(key.serialize_der()),
        issuer_key_id: issued.issuer_key_id,
    })
}
