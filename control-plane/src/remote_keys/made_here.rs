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
            urgency_of(&self.proof, urgency),
        )
    }
}

/// Whoever shows an X509-SVID has one, whatever was made on this stream.
fn urgency_of(proof: &StandingProof, urgency: Urgency) -> Urgency {
    match proof {
        StandingProof::Svid(_) => Urgency::Renewal,
        StandingProof::StreamToken(_) | StandingProof::Pod(_) => urgency,
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_lite_proto::svid::LeafFacts;

    use super::*;
    use crate::{
        caller::Peer, certificate_authority::certificate_request::KeyPrint,
        clock::from_unix_seconds, workload_attestation::join_token::StreamToken,
    };

    #[test]
    fn is_in_no_hurry_for_a_caller_that_has_a_certificate() {
        let (expires, print) = (from_unix_seconds(1), KeyPrint::of(b""));
        let svid = StandingProof::Svid(Arc::new(Peer {
            leaf: LeafFacts {
                id: "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap(),
                serial: "01".parse().unwrap(),
                not_before: from_unix_seconds(0),
                not_after: expires,
                common_name: None,
            },
            key: print,
            root: print,
        }));
        let workload = "shop/web".parse().unwrap();
        let token = StandingProof::StreamToken(StreamToken {
            workload,
            expires,
            print,
        });
        assert_eq!(urgency_of(&svid, Urgency::First), Urgency::Renewal);
        assert_eq!(urgency_of(&svid, Urgency::Renewal), Urgency::Renewal);
        assert_eq!(urgency_of(&token, Urgency::First), Urgency::First);
        assert_eq!(urgency_of(&token, Urgency::Renewal), Urgency::Renewal);
    }
}
