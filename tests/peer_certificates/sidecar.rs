//! The sidecar's two halves of a handshake, with a peer that shows what it is told to show.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_lite_proto::svid::inspect_leaf;
use mesh_lite_proto::trust_bundle::{InvalidTrustBundle, TrustBundle};
use mesh_lite_proto::tunnel::{ALPN, Header, TraceId};
use mesh_lite_proxy::identity::{Identity, PrivateKey};
use mesh_lite_proxy::tls::acceptor::{self, Authenticated, HandshakeError};
use mesh_lite_proxy::tls::connector;
use mesh_lite_proxy::tls::context::TlsContext;
use mesh_lite_test_support::certificates::{Authority, Credential};
use mesh_lite_test_support::credulous_tls::{client_config, server_config};
use mesh_lite_test_support::peer_certificates::{EXPECTED, TRUST_DOMAIN};
use rustls_pki_types::{PrivateKeyDer, ServerName, UnixTime};
use spiffe::TrustDomain;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Ten times what a handshake may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const OWN_ID: &str = "spiffe://cluster.local/ns/shop/sa/api";

/// What came of showing a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Is(String),
    /// For the certificate's sake, and for no other reason.
    Refused,
}

impl Judged {
    pub(crate) fn expected() -> Self {
        Self::Is(EXPECTED.to_owned())
    }
}

/// A sidecar of the mesh as its handshakes see it.
pub(crate) struct Sidecar {
    /// Signs its leaf; whether it is in the bundle does not matter to what it believes.
    own: Authority,
    context: TlsContext,
}

pub(crate) fn trusting(roots: &[&Authority]) -> Sidecar {
    let own = Authority::root(TRUST_DOMAIN);
    let context = TlsContext::build(identity(&own, roots), None).unwrap();
    Sidecar { own, context }
}

impl Sidecar {
    /// The same sidecar after its trust bundle has changed.
    pub(crate) fn with_roots(self, roots: &[&Authority]) -> Self {
        let identity = identity(&self.own, roots);
        let context = TlsContext::build(identity, Some(&self.context)).unwrap();
        Self { context, ..self }
    }
}

pub(crate) fn bundle(roots: &[&Authority]) -> Result<TrustBundle, InvalidTrustBundle> {
    let domain = TrustDomain::new(TRUST_DOMAIN).unwrap();
    let roots = roots.iter().map(|root| root.certificate.clone());
    TrustBundle::new(domain, roots.collect())
}

fn identity(own: &Authority, roots: &[&Authority]) -> Arc<Identity> {
    let credential = own.leaf(OWN_ID, |_| ());
    let PrivateKeyDer::Pkcs8(key) = credential.key() else {
        panic!("keys are made as PKCS#8")
    };
    Arc::new(Identity {
        revision: 1,
        leaf: inspect_leaf(&credential.chain[0]).unwrap(),
        chain: credential.chain,
        key: PrivateKey::from_pkcs8(key.secret_pkcs8_der().to_vec()),
        trust_bundle: Arc::new(bundle(roots).unwrap()),
    })
}

/// What a sidecar makes of a client that shows `credential`.
pub(crate) async fn as_client(credential: &Credential, judge: &Sidecar) -> Result<Judged, String> {
    judge_client(Some(credential), judge).await
}

pub(crate) async fn without_certificate(judge: &Sidecar) -> Judged {
    match judge_client(None, judge).await {
        Err(how) if how.contains("NoCertificatesPresented") => Judged::Refused,
        other => panic!("{other:?}"),
    }
}

async fn judge_client(shown: Option<&Credential>, judge: &Sidecar) -> Result<Judged, String> {
    let (dialled, accepted) = sockets().await;
    let connector = TlsConnector::from(client_config(shown, &[alpn()]));
    let client = tokio::spawn(async move {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        if let Ok(mut stream) = connector.connect(name, dialled).await {
            // the server's judgement comes after the client's half is over
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let authenticated =
        acceptor::authenticate(accepted, &judge.context, deadline, UnixTime::now()).await;
    client.abort();
    judged(authenticated)
}

/// What a sidecar that wants [`EXPECTED`] makes of a server that shows `credential`.
pub(crate) async fn as_server(credential: &Credential, judge: &Sidecar) -> Result<Judged, String> {
    let (dialled, accepted) = sockets().await;
    let acceptor = TlsAcceptor::from(server_config(credential, &[alpn()]));
    let server = tokio::spawn(async move {
        if let Ok(mut stream) = acceptor.accept(accepted).await {
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    let header = Header {
        port: 8080,
        original_destination: [10, 0, 0, 1].into(),
        trace_id: TraceId::NONE,
    };
    let authenticated = connector::connect(
        dialled,
        ([127, 0, 0, 1], 15008).into(),
        &judge.context,
        &EXPECTED.parse().unwrap(),
        &header.encode(),
        Instant::now() + PATIENCE,
        UnixTime::now(),
    )
    .await;
    server.abort();
    judged(authenticated)
}

/// An error here is one that says nothing of the certificate.
fn judged(outcome: Result<Authenticated, HandshakeError>) -> Result<Judged, String> {
    match outcome {
        Ok(authenticated) => Ok(Judged::Is(authenticated.peer.id().to_string())),
        Err(HandshakeError::Peer(_)) => Ok(Judged::Refused),
        Err(HandshakeError::Failed(error)) if is_about_the_certificate(&error) => {
            Ok(Judged::Refused)
        }
        Err(HandshakeError::Failed(error)) => Err(format!("{error:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn is_about_the_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref();
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

fn alpn() -> &'static str {
    std::str::from_utf8(ALPN).unwrap()
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (dialled.unwrap(), accepted.unwrap().0)
}
