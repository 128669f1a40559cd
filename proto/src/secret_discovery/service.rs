//! The gRPC SDS service, once for all who serve it: the control plane over TLS, the sidecar on
//! its Unix socket. Who the caller is and what it may have is [`SecretSources`]' to say; what it
//! is owed is the machines'.
//!
//! ```text
//! a stream opens ─▶ SecretSources::open ─▶ SecretSource ─┐
//!                        (who, once)        (what, now)   ├─▶ conversation ─▶ responses
//! requests ───────────────────────────────▶ machine ──────┘
//! ```

use std::{future::Future, sync::Arc};

use tonic::{Request, Response, Status, Streaming};

use super::{
    DEFAULT_SVID, DeltaStream, NamedVersion, OWN_BUNDLE, Rejection, SecretStream, Secrets,
    VersionedSecret, Violation,
    intake::{Mounting, check_names, check_type},
    stream::single_response,
};
use crate::{
    secret_discovery::BundleForm,
    sidecar::MAX_GRPC_MESSAGE,
    wire::envoy::service::{
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
        secret::v3::secret_discovery_service_server::{
            SecretDiscoveryService, SecretDiscoveryServiceServer,
        },
    },
};

mod conversation;

use conversation::{Machine, Responses, start};

/// What one caller may have. Its identity was fixed when the stream opened (SDS-S24). Lives as
/// long as the stream: what a stream counts or holds is dropped with it.
pub trait SecretSource: Secrets + Send + 'static {
    /// The names now asked for, all of them, sorted; told after each request. A source that makes
    /// secrets on demand begins here, says [`Secrets::is_being_made`] meanwhile, and completes
    /// [`SecretSource::changed`] when done.
    fn wanted(&mut self, names: &[&str]);

    /// Asked after each change and before every response (SDS-S26, S27).
    ///
    /// # Errors
    /// Ends the stream with this status.
    fn check(&mut self) -> Result<(), Status>;

    /// Completes, once for each time, when a secret or the answer of [`SecretSource::check`] may
    /// have changed: also when the connection closes or the credential expires. Dropped and called
    /// again at will: a change must not be lost by that.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// For metrics and log.
    fn observe(&mut self, event: SecretEvent<'_>);
}

/// What a client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretEvent<'a> {
    Accepted(&'a [NamedVersion]),
    /// The client keeps what it had. Envoy tells on the stream of whichever of the two completes
    /// a pair, so a rejected bundle may be the certificate's fault: `pair` are both as the caller
    /// may have them now (SDS-S14).
    Rejected {
        rejection: &'a Rejection,
        pair: &'a [NamedVersion],
    },
    /// Asked for now, and there is nothing to send (SDS-S8).
    Unknown(&'a str),
}

/// Where the sources of callers come from.
pub trait SecretSources: Send + Sync + 'static {
    type Source: SecretSource;

    /// The source of whoever opens a stream, from the transport and the metadata alone (SDS-S24).
    ///
    /// # Errors
    /// The stream is not opened, with this status.
    fn open(
        &self,
        opening: Request<()>,
    ) -> impl Future<Output = Result<Self::Source, Status>> + Send;

    /// FetchSecrets: one answer, without a stream. Type and names were checked. What has no need
    /// of its own asks [`answer_once`].
    ///
    /// # Errors
    /// Instead of an answer.
    fn fetch(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> impl Future<Output = Result<DiscoveryResponse, Status>> + Send;
}

/// One answer from a source that has everything ready: what there is of the names, or of an SVID
/// and its bundle if none is named (SDS-S7); `None` if there is nothing of it.
pub fn answer_once(
    secrets: &impl Secrets,
    request: &DiscoveryRequest,
) -> Option<DiscoveryResponse> {
    let form = request
        .node
        .as_ref()
        .map(BundleForm::asked_by)
        .unwrap_or_default();
    let names = request.resource_names.iter().map(String::as_str);
    let unnamed = [DEFAULT_SVID, OWN_BUNDLE].into_iter();
    let unnamed = unnamed.filter(|_| request.resource_names.is_empty());
    let found: Vec<VersionedSecret> = names
        .chain(unnamed)
        .filter_map(|name| secrets.secret(name, form))
        .collect();
    (!found.is_empty()).then(|| single_response(&found))
}

/// The service over its sources.
#[derive(Debug)]
pub struct SecretService<S>(Arc<S>);

impl<S> Clone for SecretService<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: SecretSources> SecretService<S> {
    #[must_use]
    pub fn new(sources: S) -> Self {
        Self(Arc::new(sources))
    }

    /// Ready to be routed, with the limits of its messages (SDS-S21).
    #[must_use]
    pub fn secret_discovery(&self) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE)
    }

    /// The same over ADS, for clients that have one stream for everything (SDS-S2).
    #[must_use]
    pub fn aggregated_discovery(&self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self.clone())
            .max_decoding_message_size(MAX_GRPC_MESSAGE)
            .max_encoding_message_size(MAX_GRPC_MESSAGE)
    }

    async fn run<M: Machine>(
        &self,
        request: Request<Streaming<M::Request>>,
        machine: M,
    ) -> Result<Response<Responses<M::Response>>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let opening = Request::from_parts(metadata, extensions, ());
        let source = self.0.open(opening).await?;
        Ok(Response::new(start(requests, machine, source)))
    }
}

#[tonic::async_trait]
impl<S: SecretSources> SecretDiscoveryService for SecretService<S> {
    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        check_type(&request.get_ref().type_url).map_err(|violation| status_of(&violation))?;
        check_names(&request.get_ref().resource_names)
            .map_err(|violation| status_of(&violation))?;
        self.0.fetch(request).await.map(Response::new)
    }

    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.run(request, SecretStream::mounted(Mounting::Secrets))
            .await
    }

    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        self.run(request, DeltaStream::mounted(Mounting::Secrets))
            .await
    }
}

#[tonic::async_trait]
impl<S: SecretSources> AggregatedDiscoveryService for SecretService<S> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.run(request, SecretStream::mounted(Mounting::Aggregated))
            .await
    }

    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.run(request, DeltaStream::mounted(Mounting::Aggregated))
            .await
    }
}

/// Callers' faults are never INTERNAL (SDS-S23).
fn status_of(violation: &Violation) -> Status {
    let text = violation.to_string();
    match violation {
        Violation::TypeUrl(_) | Violation::NoTypeUrl | Violation::NameTooLong(_) => {
            Status::invalid_argument(text)
        }
        Violation::TooManyNames(_) | Violation::TooFast => Status::resource_exhausted(text),
    }
}

#[cfg(test)]
mod tests;
