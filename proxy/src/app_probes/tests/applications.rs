//! Applications that answer probes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tonic_health::ServingStatus;

/// Says the same to every request, closes, and remembers what it was asked.
pub(super) struct Application {
    pub(super) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<String>,
    count: Arc<AtomicUsize>,
}

impl Application {
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::start(None, answer).await
    }

    pub(super) async fn with_tls(config: ServerConfig, answer: &'static str) -> Self {
        Self::start(Some(TlsAcceptor::from(Arc::new(config))), answer).await
    }

    async fn start(tls: Option<TlsAcceptor>, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sender, tls) = (sender.clone(), tls.clone());
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answer, &sender).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answer, &sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            requests,
            count,
        }
    }

    /// The next request, as it came.
    pub(super) async fn request(&mut self) -> String {
        self.requests
            .recv()
            .await
            .unwrap()
            .to_ascii_lowercase_names()
    }

    pub(super) fn requests(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

trait Names {
    /// Header names have no case; the request line has.
    fn to_ascii_lowercase_names(&self) -> String;
}

impl Names for String {
    fn to_ascii_lowercase_names(&self) -> String {
        let (first, rest) = self.split_once("\r\n").unwrap();
        format!("{first}\r\n{}", rest.to_ascii_lowercase())
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &'static str,
    requests: &mpsc::UnboundedSender<String>,
) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    let _ = requests.send(String::from_utf8(request).unwrap());
    // somebody who has read enough may be gone
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// Self-signed, for nobody, TLS 1.2 only.
pub(super) fn certificate() -> ServerConfig {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["nobody.test".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// A gRPC health service: everything serves but `shop.v1.Cart`.
pub(super) async fn grpc_health() -> SocketAddr {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop.v1.Cart", ServingStatus::NotServing)
        .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(incoming);
    tokio::spawn(serving);
    address
}
