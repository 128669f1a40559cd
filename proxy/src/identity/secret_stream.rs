//! The stream of trust bundles, and of the key id of the issuing CA in use.

use std::{collections::BTreeMap, sync::Arc};

use mesh_lite_proto::{
    secret_discovery::{ACTIVE_AUTHORITY, OWN_BUNDLE, SECRET_TYPE_URL},
    sidecar::{MAX_GRPC_MESSAGE, VALIDATOR_METADATA_KEY},
    trust_bundle::{InvalidTrustBundle, TrustBundle},
    wire::{
        envoy::{
            config::core::v3::{DataSource, Node, data_source::Specifier},
            extensions::transport_sockets::tls::v3::{Secret, secret},
            service::{
                discovery::v3::{DiscoveryRequest, DiscoveryResponse},
                secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
            },
        },
        google::rpc,
    },
};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use spiffe::TrustDomain;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming, metadata::MetadataMap, transport::Channel,
};

use super::renewal_state::RenewalReporter;
use crate::{control::status::Reporter, control_plane_client::subscription::Subscription};

/// SHA-1 or SHA-256 of a key, in hex, is 40 or 64; anything much longer is not a key id.
const MAX_KEY_ID: usize = 128;

/// The last good of both; each send replaces the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) trust_bundle: Option<Arc<TrustBundle>>,
    /// Lower-case hex of the subject key identifier.
    pub(crate) active_authority: Option<Arc<str>>,
}

/// Takes what comes and acknowledges it, or refuses it and keeps what was.
pub(crate) struct SecretStream {
    trust_domain: TrustDomain,
    node_id: String,
    announced: watch::Sender<Announced>,
    reporter: Reporter,
    /// Hears of the date of each answer.
    renewal: RenewalReporter,
    accepted_version: String,
}

impl SecretStream {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        node_id: String,
        announced: watch::Sender<Announced>,
        reporter: Reporter,
        renewal: RenewalReporter,
    ) -> Self {
        Self {
            trust_domain,
            node_id,
            announced,
            reporter,
            renewal,
            accepted_version: String::new(),
        }
    }

    fn request(&self) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: self.accepted_version.clone(),
            resource_names: vec![OWN_BUNDLE.to_owned(), ACTIVE_AUTHORITY.to_owned()],
            type_url: SECRET_TYPE_URL.to_owned(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Subscription for SecretStream {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    async fn open(
        channel: Channel,
        requests: Request<ReceiverStream<DiscoveryRequest>>,
    ) -> Result<Response<Streaming<DiscoveryResponse>>, Status> {
        let mut client =
            SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE);
        client.stream_secrets(requests).await
    }

    fn first_requests(&mut self) -> Vec<DiscoveryRequest> {
        let validator = Value {
            kind: Some(Kind::StringValue("trusted_ca".to_owned())),
        };
        let fields = BTreeMap::from([(VALIDATOR_METADATA_KEY.to_owned(), validator)]);
        let node = Node {
            id: self.node_id.clone(),
            metadata: Some(Struct { fields }),
            ..Node::default()
        };
        vec![DiscoveryRequest {
            node: Some(node),
            ..self.request()
        }]
    }

    fn received(&mut self, response: DiscoveryResponse) -> Vec<DiscoveryRequest> {
        self.reporter.contact();
        let before = self.announced.borrow().clone();
        let (announced, refused) = read(&response, before, &self.trust_domain);
        self.announced.send_if_modified(|current| {
            let changed = *current != announced;
            *current = announced;
            changed
        });
        let Some(reason) = refused else {
            self.accepted_version = response.version_info;
            self.reporter.fine();
            return vec![DiscoveryRequest {
                response_nonce: response.nonce,
                ..self.request()
            }];
        };
        let reason = format!("what the control plane sent can't be used: {reason}");
        self.reporter.wrong(&reason);
        let error_detail = rpc::Status {
            code: i32::from(Code::Internal),
            message: reason,
            ..rpc::Status::default()
        };
        vec![DiscoveryRequest {
            response_nonce: response.nonce,
            error_detail: Some(error_detail),
            ..self.request()
        }]
    }

    async fn next_requests(&mut self) -> Vec<DiscoveryRequest> {
        std::future::pending().await
    }

    fn answered(&mut self, answer: &MetadataMap) {
        self.renewal.answered(answer);
    }

    fn connected(&mut self) {
        self.reporter.contact();
    }

    fn disconnected(&mut self, reason: &str) {
        self.reporter.disconnected(reason);
    }
}

/// What is known after a response, and the first thing in it that can't be used. Each secret
/// stands for itself: a server does not send again what was refused, so a good one beside a bad
/// one would be lost. Names that nobody asked for are skipped.
fn read(
    response: &DiscoveryResponse,
    mut known: Announced,
    trust_domain: &TrustDomain,
) -> (Announced, Option<InvalidSecret>) {
    let mut refused = None;
    for resource in &response.resources {
        if let Err(reason) = take(&resource.value, &mut known, trust_domain) {
            refused.get_or_insert(reason);
        }
    }
    (known, refused)
}

fn take(
    secret: &[u8],
    known: &mut Announced,
    trust_domain: &TrustDomain,
) -> Result<(), InvalidSecret> {
    let secret =
        Secret::decode(secret).map_err(|error| InvalidSecret::Malformed(error.to_string()))?;
    match secret.name.as_str() {
        OWN_BUNDLE => known.trust_bundle = Some(Arc::new(trust_bundle(secret, trust_domain)?)),
        ACTIVE_AUTHORITY => known.active_authority = Some(key_id(secret)?),
        _ => {}
    }
    Ok(())
}

fn trust_bundle(secret: Secret, trust_domain: &TrustDomain) -> Result<TrustBundle, InvalidSecret> {
    let Some(secret::Type::ValidationContext(context)) = secret.r#type else {
        return Err(InvalidSecret::NoBundle);
    };
    let pem = match context.trusted_ca {
        Some(DataSource {
            specifier: Some(Specifier::InlineBytes(pem)),
        }) => pem,
        Some(DataSource {
            specifier: Some(Specifier::InlineString(pem)),
        }) => pem.into_bytes(),
        _ => return Err(InvalidSecret::NoBundle),
    };
    Ok(TrustBundle::from_pem(trust_domain.clone(), &pem)?)
}

fn key_id(secret: Secret) -> Result<Arc<str>, InvalidSecret> {
    let Some(secret::Type::GenericSecret(generic)) = secret.r#type else {
        return Err(InvalidSecret::NoKeyId);
    };
    let Some(DataSource {
        specifier: Some(Specifier::InlineString(text)),
    }) = generic.secret
    else {
        return Err(InvalidSecret::NoKeyId);
    };
    let is_hex = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.is_empty() || text.len() > MAX_KEY_ID || !is_hex {
        return Err(InvalidSecret::NoKeyId);
    }
    Ok(text.into())
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
enum InvalidSecret {
    #[error("a secret can't be parsed: {0}")]
    Malformed(String),
    #[error("{OWN_BUNDLE} holds no trust bundle")]
    NoBundle,
    #[error(transparent)]
    Bundle(#[from] InvalidTrustBundle),
    #[error("{ACTIVE_AUTHORITY} holds no key id in lower-case hex")]
    NoKeyId,
}

#[cfg(test)]
mod tests;
