//! What a request shows to prove its caller: a token in its metadata, a certificate on its
//! connection. Nothing in its message counts (SDS-S24).

use tonic::{Request, Status};

use super::secret_discovery::not_issued;
use crate::{
    caller::Caller,
    issuance::{Credential, StandingProof, queue::IssuanceQueue},
    workload_attestation::join_token::JoinToken,
};

/// For one certificate request. The join token if there is one, else the SVID of the connection: a
/// caller that has an SVID and sends a token all the same means to be attested anew.
pub(super) fn credential(caller: &Caller, token: Option<JoinToken>) -> Result<Credential, Status> {
    match (token, &caller.peer) {
        (Some(token), _) => Ok(Credential::JoinToken(token)),
        (None, Some(peer)) => Ok(Credential::Svid(peer.clone())),
        (None, None) => Err(Status::unauthenticated(
            "show who you are: a join token (authorization: Bearer ..., made by `mesh-lite token create NAMESPACE/NAME`) \
             the first time, a client certificate after that",
        )),
    }
}

/// For as long as a stream lives, and for secrets that nobody signs anything for.
pub(super) async fn standing_proof(
    caller: &Caller,
    token: Option<JoinToken>,
    queue: &IssuanceQueue,
) -> Result<StandingProof, Status> {
    match (token, &caller.peer) {
        (Some(token), _) => {
            let opened = queue.open_stream(token).await.map_err(|error| {
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

pub(super) fn bearer_token<T>(request: &Request<T>) -> Result<Option<JoinToken>, Status> {
    let malformed =
        || Status::unauthenticated("the authorization header is not `Bearer <join token>`");
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
    Ok(Some(JoinToken::received(token)))
}
