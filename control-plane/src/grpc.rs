//! What the control plane serves on port 15012: wire messages to and from the domain, status
//! codes, and nothing else.
//!
//! ```text
//! listener ─▶ TLS 1.3 ─▶ connection (limits, age, GOAWAY) ─▶ services
//!                                                             ├ secret_discovery, secret_source
//!                                                             ├ workload_directory
//!                                                             ├ authorization_policies
//!                                                             └ health, reflection
//! ```

use std::sync::Arc;

use mesh_lite_proto::{
    secret_discovery::service::SecretService,
    sidecar::MAX_GRPC_MESSAGE,
    wire::{
        FILE_DESCRIPTOR_SET,
        mesh_lite::v1::{
            authorization_policies_server::AuthorizationPoliciesServer,
            workload_directory_server::WorkloadDirectoryServer,
        },
    },
};
use tokio::sync::watch;
use tonic::{Status, service::Routes};
use tonic_health::ServingStatus;

use crate::{
    caller::{Caller, Peer},
    certificate_authority::CertificateAuthority,
    clock::Clock,
    issuance::Issuance,
    metrics::Metrics,
    outbound_rules::OutboundRules,
    policy_index::PolicyIndex,
    workload_attestation::{Attestation, NotAttested},
    workload_index::WorkloadIndex,
};

mod byte_budget;
mod clock_skew;
pub(crate) mod connection;
mod conversation;
mod credential;
pub(crate) mod listener;
mod places;
mod request_body;
mod strangers;
mod stream_opens;
mod stream_proof;

mod authorization_policies;
mod secret_discovery;
mod secret_source;
mod workload_directory;

/// What health and reflection are asked, and what is said of policies, fits many times over. Tonic
/// makes room for as much as a client announces, before it has sent any of it.
const MAX_QUESTION: usize = 64 * 1024;

/// All that the services answer from.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) attestation: Attestation,
    pub(crate) authority: CertificateAuthority,
    pub(crate) issuance: Arc<Issuance>,
    pub(crate) workloads: watch::Receiver<Arc<WorkloadIndex>>,
    pub(crate) policies: watch::Receiver<PolicyIndex>,
    pub(crate) outbound: watch::Receiver<Arc<OutboundRules>>,
    /// Keys are made here for clients that bring no certificate request.
    pub(crate) allow_remote_keys: bool,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
}

/// # Errors
/// If the descriptors that reflection serves can't be read: the build is broken then.
pub(crate) async fn routes(sources: Sources) -> Result<Routes, tonic_reflection::server::Error> {
    let secrets = SecretService::new(secret_discovery::SecretDiscovery::new(sources.clone()));
    let directory = workload_directory::Directory::new(sources.clone());
    let policies = authorization_policies::Policies::new(sources);
    let (health, health_service) = tonic_health::server::health_reporter();
    // all three answer from memory as soon as there is a listener
    health.set_service_status("", ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Ok(
        Routes::new(health_service.max_decoding_message_size(MAX_QUESTION))
            .add_service(reflection.max_decoding_message_size(MAX_QUESTION))
            .add_service(secrets.secret_discovery())
            .add_service(secrets.aggregated_discovery())
            .add_service(
                WorkloadDirectoryServer::new(directory)
                    .max_decoding_message_size(MAX_GRPC_MESSAGE)
                    .max_encoding_message_size(MAX_GRPC_MESSAGE),
            )
            .add_service(
                AuthorizationPoliciesServer::new(policies)
                    .max_decoding_message_size(MAX_QUESTION)
                    .max_encoding_message_size(MAX_GRPC_MESSAGE),
            )
            .prepare(),
    )
}

/// The connection a request came on. Every connection of ours has one.
fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::internal("a request came without its connection"))
}

/// Streams are for workloads that have their certificate already.
fn peer_of(caller: &Caller) -> Result<Arc<Peer>, Status> {
    caller.peer.clone().ok_or_else(|| {
        Status::unauthenticated(
            "this stream needs a client certificate: get an X509-SVID by FetchSecrets with a join token, \
             then connect with it",
        )
    })
}

/// Ends the stream of a caller that was evicted, or whose root was dropped, at its opening and at
/// each change.
fn check_still_trusted(peer: &Peer, sources: &Sources) -> Result<(), Status> {
    if !peer.is_trusted_in(&sources.authority.trust().bundle) {
        let gone = NotAttested::RootDropped(peer.leaf.id.clone());
        return Err(Status::unauthenticated(gone.to_string()));
    }
    let now = (sources.clock)();
    let policies = sources.policies.borrow();
    match policies.evicted(&peer.leaf.id, Some(&peer.leaf.serial), now) {
        Some(eviction) => Err(Status::permission_denied(format!(
            "the caller is evicted by {}",
            eviction.source
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
