//! A client as a sidecar is one: its own key and certificate request, mutual TLS, gRPC.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::SystemTime};

use hyper_util::rt::TokioIo;
use mesh_lite_control_plane::clock::Clock;
use mesh_lite_proto::{
    secret_discovery::SECRET_TYPE_URL,
    sidecar::CSR_METADATA_KEY,
    svid::{LeafFacts, inspect_leaf},
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
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    time_provider::TimeProvider,
    version::TLS13,
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::running::{Running, in_time};

/// A key, and the chain that was issued for it.
pub(crate) struct Svid {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
    pub(crate) facts: LeafFacts,
}

pub(crate) fn csr(key: &KeyPair, uris: &[&str]) -> String {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    parameters.serialize_request(key).unwrap().pem().unwrap()
}

pub(crate) fn node(metadata: &[(&str, &str)]) -> Node {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let fields: BTreeMap<String, Value> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), text(value)))
        .collect();
    Node {
        id: "test".to_owned(),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

pub(crate) fn request_for(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

pub(crate) fn fetch_request(csr: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node(&[(CSR_METADATA_KEY, csr)])),
        ..request_for(&["default"])
    }
}

pub(crate) fn with_token(message: DiscoveryRequest, token: &str) -> Request<DiscoveryRequest> {
    let mut request = Request::new(message);
    let header = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", header);
    request
}

pub(crate) fn secrets(response: &DiscoveryResponse) -> Vec<Secret> {
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    response
        .resources
        .iter()
        .map(|resource| {
            assert_eq!(resource.type_url, SECRET_TYPE_URL);
            Secret::decode(&*resource.value).unwrap()
        })
        .collect()
}

pub(crate) fn inline(source: Option<DataSource>) -> Vec<u8> {
    match source.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(bytes) => bytes,
        Specifier::InlineString(text) => text.into_bytes(),
        other => panic!("not inline: {other:?}"),
    }
}

pub(crate) fn chain_pem(response: &DiscoveryResponse) -> String {
    let [secret] = secrets(response).try_into().unwrap();
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!("no certificate: {secret:?}")
    };
    assert_eq!(certificate.private_key, None);
    String::from_utf8(inline(certificate.certificate_chain)).unwrap()
}

impl Svid {
    pub(crate) fn new(response: &DiscoveryResponse, key: KeyPair) -> Self {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem(response).as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let facts = inspect_leaf(&chain[0]).unwrap();
        Self { chain, key, facts }
    }
}

impl Running {
    pub(crate) async fn anonymous(&self) -> Channel {
        self.connect(None).await.unwrap()
    }

    pub(crate) async fn connect(
        &self,
        svid: Option<&Svid>,
    ) -> Result<Channel, tonic::transport::Error> {
        self.connect_trusting(&self.directories.trust_bundle(), svid)
            .await
    }

    pub(crate) async fn connect_trusting(
        &self,
        bundle: &TrustBundle,
        svid: Option<&Svid>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut config = client_config(bundle, svid);
        config.time_provider = Arc::new(ByClock(self.directories.clock));
        in_time("connected", connect(self.bound.grpc, config)).await
    }

    pub(crate) async fn fetch(
        &self,
        channel: Channel,
        request: impl tonic::IntoRequest<DiscoveryRequest>,
    ) -> Result<DiscoveryResponse, Status> {
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let answer = in_time("an answer", client.fetch_secrets(request)).await?;
        Ok(answer.into_inner())
    }

    /// First issuance, by a new join token.
    pub(crate) async fn issue(&self, workload: &str) -> Svid {
        let key = KeyPair::generate().unwrap();
        let request = with_token(
            fetch_request(&csr(&key, &[])),
            &self.directories.token(workload),
        );
        let response = self.fetch(self.anonymous().await, request).await.unwrap();
        Svid::new(&response, key)
    }

    /// A connection of the workload, with a certificate of its own.
    pub(crate) async fn workload(&self, workload: &str) -> Channel {
        let svid = self.issue(workload).await;
        self.connect(Some(&svid)).await.unwrap()
    }
}

/// Chains are judged by the clock that the control plane goes by.
#[derive(Debug)]
struct ByClock(Clock);

impl TimeProvider for ByClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

pub(crate) fn client_config(bundle: &TrustBundle, svid: Option<&Svid>) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(bundle.authorities().iter().cloned());
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ControlPlaneVerifier(chain)));
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(svid.key.serialize_der()));
            builder
                .with_client_auth_cert(svid.chain.clone(), key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub(crate) async fn connect(
    address: SocketAddr,
    config: ClientConfig,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(Arc::new(config));
    let dial = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("127.0.0.1").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://control-plane")
        .connect_with_connector(dial)
        .await
}

/// The chain as webpki judges it, and the control plane's SPIFFE ID in place of a DNS name.
#[derive(Debug)]
struct ControlPlaneVerifier(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ControlPlaneVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
        {
            // the name is judged last: the chain is good
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            other => return other,
        }
        let facts = inspect_leaf(end_entity).unwrap();
        let expected = "spiffe://mesh.test/ns/mesh-lite-system/sa/mesh-lite-control-plane";
        assert_eq!(facts.id.as_str(), expected);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
