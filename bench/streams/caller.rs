//! A caller of the control plane as a sidecar is one: a key of its own, mutual TLS, gRPC.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::{ACTIVE_AUTHORITY, DEFAULT_SVID, OWN_BUNDLE, SECRET_TYPE_URL},
    sidecar::{
        CONTROL_PLANE_SERVICE_ACCOUNT, CSR_METADATA_KEY, DEFAULT_MESH_NAMESPACE,
        DEFAULT_TRUST_DOMAIN, VALIDATOR_METADATA_KEY,
    },
    svid::inspect_leaf,
    trust_bundle::TrustBundle,
    wire::envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret},
        service::{
            discovery::v3::{DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
};
use mesh_lite_proxy::{
    identity::{Identity, key_and_csr::KeyAndRequest},
    tls::context::client_config,
};
use mesh_lite_test_support::LoopbackMesh;
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use spiffe::TrustDomain;
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::control_plane::trust_bundle;

const HTTP2: &[u8] = b"h2";

/// Where the control plane is, and how it proves itself.
#[derive(Clone)]
pub(crate) struct Site {
    address: SocketAddr,
    trust_bundle: Arc<TrustBundle>,
    id: WorkloadId,
}

/// An identity with its certificate, ready to connect. Replicas share one.
#[derive(Clone)]
pub(crate) struct Caller {
    config: Arc<ClientConfig>,
}

impl Site {
    pub(crate) fn of(mesh: &LoopbackMesh) -> anyhow::Result<Self> {
        let trust_domain = TrustDomain::new(DEFAULT_TRUST_DOMAIN)?;
        let roots = fs::read(trust_bundle(mesh))?;
        let id = format!(
            "spiffe://{DEFAULT_TRUST_DOMAIN}/ns/{DEFAULT_MESH_NAMESPACE}/sa/\
             {CONTROL_PLANE_SERVICE_ACCOUNT}"
        );
        Ok(Self {
            address: mesh.control_plane_address(),
            trust_bundle: Arc::new(TrustBundle::from_pem(trust_domain, &roots)?),
            id: id.parse()?,
        })
    }

    /// The first certificate of a workload, for a join token, asked for from that pod.
    pub(crate) async fn first_certificate(
        &self,
        pod: usize,
        key: KeyAndRequest,
        token: &str,
    ) -> anyhow::Result<Caller> {
        let nobody = client_config(&self.trust_bundle, None, &self.id, HTTP2)?;
        let channel = self.connect_with(pod, nobody).await?;
        let mut request = Request::new(fetch_request(&key));
        let bearer = format!("Bearer {token}").parse()?;
        request.metadata_mut().insert("authorization", bearer);
        let answer = SecretDiscoveryServiceClient::new(channel)
            .fetch_secrets(request)
            .await?;
        let chain = chain_of(&answer.into_inner())?;
        let leaf = inspect_leaf(chain.first().context("an empty chain")?)?;
        let identity = Identity {
            revision: 1,
            leaf,
            chain,
            key: key.key,
            trust_bundle: Arc::clone(&self.trust_bundle),
        };
        let config = client_config(&self.trust_bundle, Some(&identity), &self.id, HTTP2)?;
        Ok(Caller { config })
    }

    /// A connection of its own, from that pod.
    pub(crate) async fn connect(&self, pod: usize, caller: &Caller) -> anyhow::Result<Channel> {
        self.connect_with(pod, Arc::clone(&caller.config)).await
    }

    async fn connect_with(&self, pod: usize, config: Arc<ClientConfig>) -> anyhow::Result<Channel> {
        let (address, connector) = (self.address, TlsConnector::from(config));
        let from = SocketAddr::from((address_of(pod)?, 0));
        let dial = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind(from)?;
                let stream = socket.connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::IpAddress(address.ip().into());
                Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        });
        Ok(Endpoint::from_static("http://control-plane")
            .connect_with_connector(dial)
            .await?)
    }
}

/// Pods have addresses of their own, and the control plane counts strangers by address.
fn address_of(pod: usize) -> anyhow::Result<Ipv4Addr> {
    let [_, _, high, low] = u32::try_from(pod)?.to_be_bytes();
    Ok(Ipv4Addr::new(127, 250, high, low))
}

/// A certificate for a new key, on an open connection. The answer is looked at, and dropped.
pub(crate) async fn renew(channel: Channel, key: &KeyAndRequest) -> anyhow::Result<()> {
    let answer = SecretDiscoveryServiceClient::new(channel)
        .fetch_secrets(fetch_request(key))
        .await?;
    let chain = chain_of(&answer.into_inner())?;
    inspect_leaf(chain.first().context("an empty chain")?)?;
    Ok(())
}

/// What a sidecar subscribes to.
pub(crate) fn subscription() -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node(VALIDATOR_METADATA_KEY, "trusted_ca")),
        resource_names: vec![OWN_BUNDLE.to_owned(), ACTIVE_AUTHORITY.to_owned()],
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

pub(crate) fn acknowledgement(response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        node: None,
        ..subscription()
    }
}

/// How many roots the trust bundle in a response has; `None` if there is none in it.
pub(crate) fn roots_in(response: &DiscoveryResponse) -> anyhow::Result<Option<usize>> {
    for secret in secrets(response) {
        if let Some(secret::Type::ValidationContext(context)) = secret?.r#type {
            let pem = inline(context.trusted_ca)?;
            return Ok(Some(CertificateDer::pem_slice_iter(&pem).count()));
        }
    }
    Ok(None)
}

fn fetch_request(key: &KeyAndRequest) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node(CSR_METADATA_KEY, &key.request)),
        resource_names: vec![DEFAULT_SVID.to_owned()],
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn node(key: &str, value: &str) -> Node {
    let value = Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    let metadata = Struct {
        fields: BTreeMap::from([(key.to_owned(), value)]),
    };
    Node {
        id: "bench".to_owned(),
        metadata: Some(metadata),
        ..Node::default()
    }
}

fn chain_of(answer: &DiscoveryResponse) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    for secret in secrets(answer) {
        if let Some(secret::Type::TlsCertificate(certificate)) = secret?.r#type {
            let pem = inline(certificate.certificate_chain)?;
            return Ok(CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>()?);
        }
    }
    bail!("the answer holds no certificate")
}

fn secrets(response: &DiscoveryResponse) -> impl Iterator<Item = anyhow::Result<Secret>> {
    response
        .resources
        .iter()
        .map(|resource| Ok(Secret::decode(resource.value.as_slice())?))
}

fn inline(source: Option<DataSource>) -> anyhow::Result<Vec<u8>> {
    match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes),
        other => bail!("not inline: {other:?}"),
    }
}
