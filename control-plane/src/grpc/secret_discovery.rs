//! Envoy's SDS API: issuing to clients that made their own key, and bundles for everybody.

use std::sync::Arc;

use mesh_lite_proto::{
    secret_discovery::{
        DEFAULT_SVID, VersionedSecret, chain_secret, node_metadata,
        service::{SecretSources, answer_once},
        stream::single_response,
    },
    sidecar::{CSR_METADATA_KEY, DNS_NAMES_METADATA_KEY, DNS_NAMES_OF_SERVICES},
    wire::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};
use tonic::{Request, Status, metadata::MetadataValue};

use super::{
    Sources, caller_of,
    credential::{bearer_token, credential, standing_proof},
    secret_source::{CallerSecrets, identity_of},
    stream_opens::StreamOpens,
};
use crate::{
    issuance::{
        Asked, Refusal,
        queue::{IssuanceQueue, NotIssued},
    },
    trust_bundle_publisher::PublicSecrets,
    workload_attestation::service_account_token::NotReviewed,
};

/// A line of waiting requests is done by then.
const RETRY_AFTER_SECONDS: &str = "5";

pub(super) struct SecretDiscovery {
    sources: Sources,
    queue: IssuanceQueue,
    opens: StreamOpens,
}

impl SecretDiscovery {
    pub(super) fn new(sources: Sources) -> Self {
        let issuance = Arc::clone(&sources.issuance);
        let queue = IssuanceQueue::new(issuance, sources.metrics.clone(), sources.clock);
        Self {
            sources,
            queue,
            opens: StreamOpens::default(),
        }
    }

    fn public_secrets(&self, request: &DiscoveryRequest) -> Result<DiscoveryResponse, Status> {
        let public = PublicSecrets(self.sources.authority.trust());
        answer_once(&public, request).ok_or_else(|| {
            self.sources.metrics.unknown_secret();
            Status::not_found(
                "none of these secrets exist for this caller. An X509-SVID is issued to a certificate request \
                 (PEM) in node.metadata under mesh-lite.io/csr. Keys are made here only for StreamSecrets and \
                 DeltaSecrets, and only with --allow-remote-keys",
            )
        })
    }
}

impl SecretSources for SecretDiscovery {
    type Source = CallerSecrets;

    async fn open(&self, opening: Request<()>) -> Result<CallerSecrets, Status> {
        let caller = caller_of(&opening)?;
        let shown = async {
            let bearer = bearer_token(&opening)?;
            standing_proof(&caller, bearer, &self.sources, &self.queue).await
        };
        let proof = shown
            .await
            .map_err(|reason| self.opens.refuse(caller.address.ip(), reason))?;
        self.opens.admit(&proof)?;
        CallerSecrets::open(caller, proof, &self.sources, &self.queue)
    }

    async fn fetch(&self, request: Request<DiscoveryRequest>) -> Result<DiscoveryResponse, Status> {
        let caller = caller_of(&request)?;
        let bearer = bearer_token(&request)?;
        let message = request.into_inner();
        let csr = message
            .node
            .as_ref()
            .and_then(|node| node_metadata(node, CSR_METADATA_KEY));
        let Some(csr) = csr.map(ToOwned::to_owned) else {
            let proof = standing_proof(&caller, bearer, &self.sources, &self.queue).await?;
            identity_of(&proof, &self.sources)?;
            return self.public_secrets(&message);
        };
        let service_names = message
            .node
            .as_ref()
            .and_then(|node| node_metadata(node, DNS_NAMES_METADATA_KEY))
            == Some(DNS_NAMES_OF_SERVICES);
        let name = svid_name(&message.resource_names)?;
        let asked = Asked {
            address: caller.address,
            request_pem: csr.into_bytes(),
            id: named_id(&name),
            service_names,
        };
        let credential = credential(&caller, bearer, &self.sources, &self.queue).await?;
        let granted = self
            .queue
            .issue(credential, asked)
            .await
            .map_err(|error| not_issued(&error))?;
        let secret = VersionedSecret::new(chain_secret(&name, &granted.chain_pem));
        Ok(single_response(&[secret]))
    }
}

/// The one SVID that a request with a certificate request asks for.
fn svid_name(names: &[String]) -> Result<String, Status> {
    match names {
        [] => Ok(DEFAULT_SVID.to_owned()),
        [name] => Ok(name.clone()),
        _ => Err(Status::invalid_argument(
            "a certificate request gets one certificate: ask for \"default\" alone, and for bundles on StreamSecrets",
        )),
    }
}

/// The identity that a name insists on; "default" insists on none.
fn named_id(name: &str) -> Option<String> {
    (name != DEFAULT_SVID).then(|| name.to_owned())
}

/// Callers' faults are never INTERNAL, ours never theirs (SDS-S23).
pub(super) fn not_issued(error: &NotIssued) -> Status {
    match error {
        NotIssued::Refused(refusal) => status_of(refusal),
        NotIssued::NotReviewed(not) => not_reviewed(not),
        NotIssued::Busy(busy) => come_back(busy.to_string()),
        NotIssued::Failed => Status::internal(error.to_string()),
    }
}

/// For a token that is not good, or that nobody can judge now.
pub(super) fn not_reviewed(not: &NotReviewed) -> Status {
    if not.is_refusal() {
        Status::unauthenticated(not.to_string())
    } else {
        come_back(not.to_string())
    }
}

/// It is nobody's fault, and will pass.
fn come_back(text: String) -> Status {
    let mut status = Status::unavailable(text);
    let seconds = MetadataValue::from_static(RETRY_AFTER_SECONDS);
    status.metadata_mut().insert("retry-after", seconds);
    status
}

pub(super) fn status_of(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::Request(_) | Refusal::KeyUsedBefore => Status::invalid_argument(text),
        Refusal::TooOften(_) => Status::resource_exhausted(text),
        Refusal::Token(error) if error.is_refusal() => Status::unauthenticated(text),
        Refusal::Token(_) => Status::unavailable(
            "the join token can't be checked now; the control plane's log says why",
        ),
        Refusal::Attestation(not) if not.is_about_the_credential() => Status::unauthenticated(text),
        Refusal::Attestation(_) | Refusal::OtherUri { .. } | Refusal::Evicted(_) => {
            Status::permission_denied(text)
        }
        Refusal::NotKnownYet(_) | Refusal::OtherPod(_) => come_back(text),
        Refusal::Issue(_) => {
            Status::unavailable("the control plane can't issue now; its log says why")
        }
    }
}

#[cfg(test)]
mod tests;
