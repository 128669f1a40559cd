//! A client of the socket as Envoy is one: tonic over a Unix stream.

use std::{os::unix::net::UnixStream as StdUnixStream, path::Path, sync::Mutex};

use hyper_util::rt::TokioIo;
use mesh_lite_proto::{
    secret_discovery::SECRET_TYPE_URL,
    svid::{LeafFacts, inspect_leaf, public_key_of},
    wire::envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret},
        service::{
            discovery::v3::{DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
};
use prost::Message;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio::{net::UnixStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::in_time;

pub(super) type Client = SecretDiscoveryServiceClient<Channel>;

/// A channel over the one stream given.
pub(super) async fn channel_over(
    stream: StdUnixStream,
) -> Result<Channel, tonic::transport::Error> {
    stream.set_nonblocking(true).unwrap();
    let stream = Mutex::new(Some(UnixStream::from_std(stream).unwrap()));
    let connect = tower::service_fn(move |_: tonic::transport::Uri| {
        let stream = stream.lock().unwrap().take();
        async move {
            stream
                .map(TokioIo::new)
                .ok_or_else(|| std::io::Error::other("used"))
        }
    });
    in_time(Endpoint::from_static("http://localhost").connect_with_connector(connect)).await
}

pub(super) async fn channel(path: &Path) -> Channel {
    channel_over(StdUnixStream::connect(path).unwrap())
        .await
        .unwrap()
}

pub(super) async fn client(path: &Path) -> Client {
    Client::new(channel(path).await)
}

pub(super) fn request_for(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        node: Some(Node {
            id: "envoy".to_owned(),
            ..Node::default()
        }),
        ..DiscoveryRequest::default()
    }
}

/// An open StreamSecrets.
pub(super) struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    pub(super) async fn open(client: &mut Client, names: &[&str]) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(request_for(names)).await.unwrap();
        let responses = client.stream_secrets(ReceiverStream::new(receiver)).await?;
        Ok(Self {
            requests,
            responses: responses.into_inner(),
        })
    }

    /// The next response, acknowledged.
    pub(super) async fn next(&mut self) -> DiscoveryResponse {
        let response = in_time(self.responses.message()).await.unwrap().unwrap();
        let mut accept = request_for(&[]);
        accept.resource_names = secrets(&response).map(|secret| secret.name).collect();
        accept.version_info.clone_from(&response.version_info);
        accept.response_nonce.clone_from(&response.nonce);
        self.requests.send(accept).await.unwrap();
        response
    }

    /// How the server ended it.
    pub(super) async fn ended(&mut self) -> Status {
        in_time(self.responses.message()).await.unwrap_err()
    }

    pub(super) async fn ask(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }
}

pub(super) fn secrets(response: &DiscoveryResponse) -> impl Iterator<Item = Secret> {
    response
        .resources
        .iter()
        .map(|resource| Secret::decode(&*resource.value).unwrap())
}

pub(super) fn names(response: &DiscoveryResponse) -> Vec<String> {
    secrets(response).map(|secret| secret.name).collect()
}

/// A certificate with its key, as they came in one secret.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) leaf: LeafFacts,
    pub(super) public_key: Vec<u8>,
}

/// Reads a secret as Envoy does: leaf first, and the key beside it is the leaf's.
pub(super) fn pair_in(secret: &Secret) -> Pair {
    let Some(secret::Type::TlsCertificate(certificate)) = &secret.r#type else {
        panic!("{} holds no certificate", secret.name);
    };
    let chain = inline(certificate.certificate_chain.as_ref());
    let key = inline(certificate.private_key.as_ref());
    let leaf = CertificateDer::pem_slice_iter(&chain)
        .next()
        .unwrap()
        .unwrap();
    assert!(key.starts_with(b"-----BEGIN PRIVATE KEY-----\n"), "SDS-S28");
    let key = PrivatePkcs8KeyDer::from_pem_slice(&key).unwrap();
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).unwrap();
    let public_key = key.subject_public_key_info();
    assert_eq!(public_key, public_key_of(&leaf).unwrap(), "a torn pair");
    Pair {
        leaf: inspect_leaf(&leaf).unwrap(),
        public_key,
    }
}

fn inline(source: Option<&DataSource>) -> Vec<u8> {
    match source.and_then(|source| source.specifier.clone()) {
        Some(Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("not inline: {}", other.is_some()),
    }
}
