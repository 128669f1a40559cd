//! The client's half of the handshake: does exactly the expected workload answer?

use std::{io::Write, net::SocketAddr, sync::Arc};

use mesh_lite_proto::{identity::WorkloadId, tunnel::EncodedHeader};
use rustls::Connection;
use rustls_pki_types::{ServerName, UnixTime};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    acceptor::{Authenticated, HandshakeError, check},
    context::TlsContext,
    peer_identity::Role,
    peer_verifier::PeerRefused,
    session::Session,
};
use crate::tunnel::Tunnel;

/// Dials TLS over `socket`. The header leaves with the last message of the handshake, after the
/// server has proved who it is.
///
/// # Errors
/// If the server is not `expected`, or does not say so by `deadline`.
pub async fn connect(
    socket: TcpStream,
    address: SocketAddr,
    context: &TlsContext,
    expected: &WorkloadId,
    header: &EncodedHeader,
    deadline: Instant,
    now: UnixTime,
) -> Result<Authenticated, HandshakeError> {
    let config = context.client(expected).map_err(HandshakeError::Unusable)?;
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(config).connect_with(name, socket, |connection| {
        // Kept by rustls until the handshake is over; a header is far below its limit.
        let _ = connection.writer().write_all(header.as_slice());
    });
    let stream = timeout_at(deadline, handshake)
        .await
        .map_err(|_| HandshakeError::Timeout)?
        .map_err(HandshakeError::Failed)?;
    let (socket, connection) = stream.into_inner();
    let (peer, tls) = check(&connection, context.verifier(), Role::Server, now)?;
    if peer.id() != expected {
        let found = peer.id().clone();
        return Err(PeerRefused::NotTheExpected {
            found,
            expected: expected.clone(),
        }
        .into());
    }
    let session = Session::new(Connection::Client(connection));
    Ok(Authenticated {
        tunnel: Tunnel::new(socket, session),
        peer: Arc::clone(&peer),
        tls,
    })
}

impl HandshakeError {
    /// Whether another workload than the expected one answered: the address has a new owner.
    pub fn is_identity_mismatch(&self) -> bool {
        match self {
            Self::Peer(PeerRefused::NotTheExpected { .. }) => true,
            Self::Failed(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(is_not_the_expected),
            _ => false,
        }
    }
}

fn is_not_the_expected(error: &rustls::Error) -> bool {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) => {
            matches!(
                other.0.downcast_ref::<PeerRefused>(),
                Some(PeerRefused::NotTheExpected { .. })
            )
        }
        _ => false,
    }
}
