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
    workload_attestation::{
        Attestation,
        service_account_token::{NotReviewed, PodProof},
    },
};

/// For the caller of one stream.
pub(crate) struct MadeHere {
    pub(crate) queue: IssuanceQueue,
    pub(crate) proof: StandingProof,
    /// Judges the proof anew for each certificate, where that is a pod's token.
    pub(crate) attestation: Attestation,
    pub(crate) address: SocketAddr,
}

impl Maker for MadeHere {
    fn make(
        &self,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Made, NotIssued>> + Send + 'static {
        let urgency = urgency_of(&self.proof, urgency);
        let (queue, address) = (self.queue.clone(), self.address);
        let (proof, attestation) = (self.proof.clone(), self.attestation.clone());
        async move {
            let proof = judged_anew(proof, &attestation, urgency).await;
            let proof = proof.map_err(|not| queue.not_reviewed(not, address))?;
            make(queue, proof, address, urgency).await
        }
    }
}

/// Whoever shows an X509-SVID has one, whatever was made on this stream.
fn urgency_of(proof: &StandingProof, urgency: Urgency) -> Urgency {
    match proof {
        StandingProof::Svid(_) => Urgency::Renewal,
        StandingProof::StreamToken(_) | StandingProof::Pod(_) => urgency,
    }
}

/// A stream lives on what was said of a pod's token minutes ago. A certificate does not.
async fn judged_anew(
    proof: StandingProof,
    attestation: &Attestation,
    urgency: Urgency,
) -> Result<StandingProof, NotReviewed> {
    match (proof, attestation) {
        (StandingProof::Pod(proof), Attestation::ServiceAccountTokens(tokens)) => {
            let pod = tokens.attest_for_certificate(&proof.token, urgency).await?;
            Ok(StandingProof::Pod(PodProof { pod, ..proof }))
        }
        (proof, _) => Ok(proof),
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
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{sync::Arc, time::Duration};

    use mesh_lite_proto::svid::LeafFacts;
    use mesh_lite_test_support::{
        ApiServer,
        service_account_token::{TokenIssuer, TokenOf},
    };
    use tokio::time;

    use super::*;
    use crate::{
        caller::Peer,
        certificate_authority::certificate_request::KeyPrint,
        clock::{self, from_unix_seconds},
        metrics::Metrics,
        workload_attestation::{
            join_token::StreamToken,
            service_account_token::{ServiceAccountToken, ServiceAccountTokens},
        },
    };

    #[tokio::test]
    async fn a_pods_token_is_judged_anew_for_each_certificate() {
        // kube's client takes the process's provider
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (server, issuer) = (ApiServer::start(), TokenIssuer::new());
        let kubeconfig = server.kubeconfig();
        let client = crate::cluster::connect(Some(&kubeconfig));
        let domain = "mesh.test".parse().unwrap();
        let (client, metrics) = (client.await.unwrap(), Metrics::new());
        let tokens = ServiceAccountTokens::new(client, domain, metrics, clock::now);
        let of = TokenOf::pod(("shop", "web"), ("web", "uid"), clock::now());
        let text = issuer.accepted_at(&server, &of);
        let token = Arc::new(ServiceAccountToken::received(&text).unwrap());
        let pod = tokens.attest(&token, Urgency::First).await.unwrap();
        let peer = None;
        let proof = StandingProof::Pod(PodProof { pod, token, peer });
        let attestation = Attestation::ServiceAccountTokens(tokens);
        let judge = || judged_anew(proof.clone(), &attestation, Urgency::Renewal);
        assert_eq!(judge().await.unwrap(), proof);
        server.forget_token(&text);
        time::pause();
        time::advance(Duration::from_secs(11)).await;
        time::resume();
        assert!(judge().await.unwrap_err().is_refusal());
    }

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
