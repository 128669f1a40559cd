//! What a request shows to prove its caller: a token in its metadata, a certificate on its
//! connection. Nothing in its message counts (SDS-S24).

use std::sync::Arc;

use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::{
    Sources, peer_of,
    secret_discovery::{not_issued, not_reviewed},
};
use crate::{
    caller::Caller,
    issuance::{
        Credential, StandingProof,
        queue::{IssuanceQueue, urgency_of},
    },
    workload_attestation::{
        Attestation,
        join_token::JoinToken,
        service_account_token::{PodProof, ServiceAccountToken, ServiceAccountTokens},
    },
};

/// Join tokens begin so, whatever they are for.
const JOIN_TOKENS: &str = "mesh-lite-";
/// Service-account tokens begin so: it is `{"` in base64.
const SERVICE_ACCOUNT_TOKENS: &str = "eyJ";

/// The token of a request, of whatever kind. No `Debug`.
pub(super) struct Bearer(Zeroizing<String>);

impl Bearer {
    /// # Errors
    /// If it is what a pod shows, which counts in a cluster only.
    fn into_join_token(self) -> Result<JoinToken, Status> {
        if self.0.starts_with(SERVICE_ACCOUNT_TOKENS) {
            return Err(Status::unauthenticated(
                "service-account tokens are accepted by a control plane with --kubernetes, and this one reads its workloads \
                 from a directory: show a join token, made by `mesh-lite token create NAMESPACE/NAME`",
            ));
        }
        Ok(JoinToken::received(&self.0))
    }

    /// # Errors
    /// If it is something else.
    fn into_service_account_token(self) -> Result<Arc<ServiceAccountToken>, Status> {
        if self.0.starts_with(JOIN_TOKENS) {
            return Err(Status::unauthenticated(
                "join tokens are not accepted in a cluster: show the pod's service-account token \
                 (--service-account-token-file of the sidecar)",
            ));
        }
        let token = ServiceAccountToken::received(&self.0);
        Ok(Arc::new(token.map_err(|not| not_reviewed(&not))?))
    }
}

/// For one certificate request. In a cluster the pod's token each time. Elsewhere the join token
/// if there is one, else the SVID of the connection: a caller that has an SVID and sends a token
/// all the same means to be attested anew.
pub(super) async fn credential(
    caller: &Caller,
    bearer: Option<Bearer>,
    sources: &Sources,
    queue: &IssuanceQueue,
) -> Result<Credential, Status> {
    if let Attestation::ServiceAccountTokens(tokens) = &sources.attestation {
        let token = needed(bearer, "a certificate")?;
        let peer = caller.peer.clone();
        let urgency = urgency_of(peer.as_deref());
        let pod = tokens.attest_for_certificate(&token, urgency).await;
        let pod = pod.map_err(|not| not_issued(&queue.not_reviewed(not, caller.address)))?;
        return Ok(Credential::Pod(PodProof { pod, token, peer }));
    }
    match (bearer, &caller.peer) {
        (Some(bearer), _) => Ok(Credential::JoinToken(bearer.into_join_token()?)),
        (None, Some(peer)) => Ok(Credential::Svid(peer.clone())),
        (None, None) => Err(Status::unauthenticated(
            "show who you are: a join token (authorization: Bearer ..., made by `mesh-lite token create NAMESPACE/NAME`) \
             the first time, a client certificate after that",
        )),
    }
}

/// For as long as an SDS stream lives, and for secrets that nobody signs anything for.
pub(super) async fn standing_proof(
    caller: &Caller,
    bearer: Option<Bearer>,
    sources: &Sources,
    queue: &IssuanceQueue,
) -> Result<StandingProof, Status> {
    if let Attestation::ServiceAccountTokens(tokens) = &sources.attestation {
        return standing_pod(caller, bearer, tokens).await;
    }
    match (bearer, &caller.peer) {
        (Some(bearer), _) => {
            let opened = queue.open_stream(bearer.into_join_token()?).await;
            let opened = opened.map_err(|error| {
                tracing::warn!(client.addr = %caller.address, %error, "a token opens no stream");
                not_issued(&error)
            })?;
            Ok(StandingProof::StreamToken(opened))
        }
        (None, Some(peer)) => Ok(StandingProof::Svid(peer.clone())),
        (None, None) => Err(Status::unauthenticated(
            "secrets are for callers with a client certificate, which FetchSecrets gives for a join token, \
             or with a reusable token (authorization: Bearer ..., made by `mesh-lite token create NAMESPACE/NAME --reusable`)",
        )),
    }
}

/// For as long as a stream of the directory or of policies lives: those are for workloads that
/// have their certificate already, or for a pod with its token.
pub(super) async fn workload_proof(
    caller: &Caller,
    bearer: Option<Bearer>,
    sources: &Sources,
) -> Result<StandingProof, Status> {
    match &sources.attestation {
        Attestation::ServiceAccountTokens(tokens) => standing_pod(caller, bearer, tokens).await,
        Attestation::JoinTokens => Ok(StandingProof::Svid(peer_of(caller)?)),
    }
}

async fn standing_pod(
    caller: &Caller,
    bearer: Option<Bearer>,
    tokens: &ServiceAccountTokens,
) -> Result<StandingProof, Status> {
    let token = needed(bearer, "a stream")?;
    let peer = caller.peer.clone();
    let pod = tokens.attest(&token, urgency_of(peer.as_deref())).await;
    let pod = pod.map_err(|error| {
        tracing::warn!(client.addr = %caller.address, %error, "a token opens no stream");
        not_reviewed(&error)
    })?;
    Ok(StandingProof::Pod(PodProof { pod, token, peer }))
}

/// A certificate alone lives on in the hands of whoever copied it; a pod's token ends with the pod.
fn needed(bearer: Option<Bearer>, what: &str) -> Result<Arc<ServiceAccountToken>, Status> {
    let Some(bearer) = bearer else {
        return Err(Status::unauthenticated(format!(
            "in a cluster {what} is for callers that show their pod's service-account token each time \
             (authorization: Bearer ...; --service-account-token-file of the sidecar): a client certificate alone is not \
             enough, and renews nothing"
        )));
    };
    bearer.into_service_account_token()
}

pub(super) fn bearer_token<T>(request: &Request<T>) -> Result<Option<Bearer>, Status> {
    let malformed = || Status::unauthenticated("the authorization header is not `Bearer <token>`");
    let mut headers = request.metadata().get_all("authorization").iter();
    let Some(header) = headers.next() else {
        return Ok(None);
    };
    if headers.next().is_some() {
        return Err(Status::unauthenticated(
            "there is more than one authorization header",
        ));
    }
    let text = header.to_str().map_err(|_| malformed())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    Ok(Some(Bearer(Zeroizing::new(token.trim().to_owned()))))
}
