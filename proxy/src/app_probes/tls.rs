//! TLS towards the application, for its `scheme: HTTPS` probes.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Failure;

/// # Errors
/// If whoever listens at `target` does not speak TLS.
pub(super) async fn connect(
    target: SocketAddr,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>, Failure> {
    let config = config().map_err(|error| Failure::Said(error.to_string()))?;
    // an address: no name is sent, as the kubelet sends none
    let name = ServerName::IpAddress(target.ip().into());
    TlsConnector::from(config)
        .connect(name, socket)
        .await
        .map_err(|error| Failure::Said(format!("no TLS with {target}: {error}")))
}

/// What the application can do, down to TLS 1.2: it is ours only to pass on.
fn config() -> Result<Arc<ClientConfig>, TlsError> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, TlsError>> = LazyLock::new(|| {
        let provider = Arc::new(default_provider());
        let schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(schemes)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    });
    CONFIG.clone()
}

/// The application's certificate may be self-signed, for another name, or ended: the kubelet asks
/// it nonetheless. It proves nothing, and nothing is taken from the answer but its status.
#[derive(Debug)]
struct Anybody(Vec<SignatureScheme>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
