//! Listening with TLS, and knowing which certificate a client showed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use mesh_lite_proto::wire::{
    envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer,
    mesh_lite::v1::{
        authorization_policies_server::AuthorizationPoliciesServer,
        workload_directory_server::WorkloadDirectoryServer,
    },
};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Server, server::Connected};

use super::{Authorities, Shared};
use crate::tls::provider::provider;

pub(super) fn serve(listener: std::net::TcpListener, state: Shared, server: &str) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&state.authorities, server)));
    let (accepted, incoming) = mpsc::channel(16);
    runtime.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = accepted
                        .send(Ok::<_, std::io::Error>(Accepted(stream)))
                        .await;
                }
            });
        }
    });
    runtime.spawn(async move {
        Server::builder()
            .add_service(SecretDiscoveryServiceServer::new(state.clone()))
            .add_service(WorkloadDirectoryServer::new(state.clone()))
            .add_service(AuthorizationPoliciesServer::new(state))
            .serve_with_incoming(ReceiverStream::new(incoming))
            .await
    });
    runtime
}

fn server_config(authorities: &Authorities, server: &str) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authorities.root.certificate.clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let issuing = authorities.issuing();
    let (leaf, key) = issuing.leaf(server, |_| ());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![leaf, issuing.certificate.clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The certificate that a client showed.
#[derive(Clone)]
pub(super) struct Shown(pub(super) Option<CertificateDer<'static>>);

struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = Shown;

    fn connect_info(&self) -> Shown {
        let shown = self
            .0
            .get_ref()
            .1
            .peer_certificates()
            .and_then(<[_]>::first);
        Shown(shown.map(|leaf| leaf.clone().into_owned()))
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
