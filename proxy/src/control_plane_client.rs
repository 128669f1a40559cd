//! The way to the control plane: gRPC over TLS 1.3, to one exact server, with our own
//! certificate once there is one. A channel belongs to one identity and one trust bundle; when
//! either changes, a new channel takes over and the old one ends with its last stream.

use std::{error::Error as StdError, io, net::SocketAddr, sync::Arc, time::Duration};

use http::uri::Authority;
use hyper_util::rt::TokioIo;
use mesh_lite_proto::{
    identity::{InvalidWorkloadId, WorkloadId},
    sidecar::CONTROL_PLANE_SERVICE_ACCOUNT,
    trust_bundle::TrustBundle,
};
use rustls::{CertificateError, ClientConfig, pki_types::ServerName};
use spiffe::TrustDomain;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    clock,
    identity::Identity,
    tls::context::{UnusableIdentity, client_config},
};

pub(crate) mod subscription;

const ALPN: &[u8] = b"h2";
/// TCP and TLS together, for one address of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A name may have several addresses, one per replica; more than this are not tried in a row.
const MAX_ADDRESSES: usize = 4;
/// A control plane that vanished without a word is noticed within the sum of these two.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// What a server says in an error goes into logs and the readiness text.
const MAX_WORDS: usize = 600;

/// Where the control plane is, and who must answer there.
#[derive(Debug, Clone)]
pub struct ControlPlaneClient {
    authority: Authority,
    port: u16,
    expected: WorkloadId,
}

impl ControlPlaneClient {
    /// `address` is `host:port`; the host may be a name or an address, IPv6 in brackets.
    ///
    /// # Errors
    /// If it is not that, or the namespace can't be part of a SPIFFE ID.
    pub fn new(
        address: &str,
        trust_domain: &TrustDomain,
        mesh_namespace: &str,
    ) -> Result<Self, InvalidControlPlane> {
        let invalid = || InvalidControlPlane::Address(address.chars().take(300).collect());
        let authority: Authority = address.parse().map_err(|_| invalid())?;
        let port = authority
            .port_u16()
            .filter(|port| *port != 0)
            .ok_or_else(invalid)?;
        if authority.host().is_empty() || address.contains('@') {
            return Err(invalid());
        }
        let expected =
            WorkloadId::new(trust_domain, mesh_namespace, CONTROL_PLANE_SERVICE_ACCOUNT)?;
        Ok(Self {
            authority,
            port,
            expected,
        })
    }

    /// A channel that trusts `trust_bundle` and shows `identity`. It connects when it is first
    /// used, and again when it was cut.
    ///
    /// # Errors
    /// If the bundle or the identity can't be used for TLS.
    pub fn channel(
        &self,
        trust_bundle: &Arc<TrustBundle>,
        identity: Option<&Identity>,
    ) -> Result<Channel, UnusableIdentity> {
        let tls = client_config(trust_bundle, identity, &self.expected, ALPN)?;
        // `http`: TLS is the connector's, tonic must not add its own
        let uri = Uri::builder()
            .scheme("http")
            .authority(self.authority.clone())
            .path_and_query("/")
            .build()
            .unwrap_or_default();
        let endpoint = Endpoint::from(uri)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let host: Arc<str> = self.authority.host().trim_matches(['[', ']']).into();
        let port = self.port;
        Ok(
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let (host, tls) = (Arc::clone(&host), Arc::clone(&tls));
                async move { connect(&host, port, tls).await.map(TokioIo::new) }
            })),
        )
    }
}

async fn connect(
    host: &Arc<str>,
    port: u16,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let resolve = |source| ConnectError::Resolve {
        host: Arc::clone(host),
        source,
    };
    let addresses = tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((&**host, port)))
        .await
        .map_err(|_| resolve(io::ErrorKind::TimedOut.into()))?
        .map_err(resolve)?;
    let mut last = ConnectError::NoAddress {
        host: Arc::clone(host),
    };
    for address in addresses.take(MAX_ADDRESSES) {
        match tokio::time::timeout(CONNECT_TIMEOUT, connect_to(address, Arc::clone(&tls))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = ConnectError::Timeout { address },
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| ConnectError::Tcp { address, source })?;
    stream
        .set_nodelay(true)
        .map_err(|source| ConnectError::Tcp { address, source })?;
    // the name plays no part: the verifier demands one SPIFFE ID
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(tls)
        .connect(name, stream)
        .await
        .map_err(|error| ConnectError::Tls {
            address,
            reason: tls_words(&error),
        })?;
    if stream.get_ref().1.alpn_protocol() == Some(ALPN) {
        Ok(stream)
    } else {
        Err(ConnectError::NotHttp2 { address })
    }
}

/// The words of our own verifier, which rustls would show in Rust's notation.
fn tls_words(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(ours))) => ours.to_string(),
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext {
            time,
            not_before,
        })) => {
            let early = not_before.as_secs().saturating_sub(time.as_secs());
            format!(
                "its certificate begins in {} only, by our clock: our clock is at least that far behind the \
                 control plane's; set the clock of this host",
                clock::in_words(Duration::from_secs(early))
            )
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
            time,
            not_after,
        })) => {
            let late = time.as_secs().saturating_sub(not_after.as_secs());
            format!(
                "its certificate ended {} ago, by our clock: either our clock is ahead of the control \
                 plane's, or the control plane does not renew its own certificate",
                clock::in_words(Duration::from_secs(late))
            )
        }
        _ => error.to_string(),
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidControlPlane {
    #[error("{0:?} is not the address of a control plane: write HOST:PORT")]
    Address(String),
    #[error("the mesh namespace can't be part of a SPIFFE ID: {0}")]
    Namespace(#[from] InvalidWorkloadId),
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("the name {host} can't be resolved: {source}")]
    Resolve { host: Arc<str>, source: io::Error },
    #[error("the name {host} has no address")]
    NoAddress { host: Arc<str> },
    #[error("can't connect to {address}: {source}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("no TLS connection with {address} within {CONNECT_TIMEOUT:?}")]
    Timeout { address: SocketAddr },
    #[error("no TLS connection with {address}: {reason}")]
    Tls { address: SocketAddr, reason: String },
    #[error("{address} does not speak gRPC")]
    NotHttp2 { address: SocketAddr },
}

/// A status with the causes below it, as one bounded line.
pub fn in_words(status: &Status) -> String {
    let mut words = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    let mut cause = status.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) && words.len() < MAX_WORDS {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_WORDS)
        .collect()
}

#[cfg(test)]
mod tests;
