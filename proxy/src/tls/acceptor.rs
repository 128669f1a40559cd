//! The server's half of the handshake: who dials us.

use std::{io, sync::Arc};

use mesh_lite_proto::tunnel;
use rustls::{CommonState, Connection};
use rustls_pki_types::UnixTime;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{
    context::TlsContext,
    peer_identity::{PeerIdentity, Role},
    peer_verifier::{PeerRefused, PeerVerifier},
    session::Session,
};
use crate::tunnel::Tunnel;

/// A tunnel whose other end has proved who it is.
pub struct Authenticated {
    pub tunnel: Tunnel,
    pub peer: Arc<PeerIdentity>,
    pub tls: TlsFacts,
}

/// What was negotiated, for logs.
#[derive(Debug, Clone, Copy)]
pub struct TlsFacts {
    pub group: &'static str,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    #[error("the TLS handshake was not over in time")]
    Timeout,
    #[error("the TLS handshake failed: {0}")]
    Failed(io::Error),
    #[error("the peer does not speak mesh-lite/1")]
    Protocol,
    #[error(transparent)]
    Peer(#[from] PeerRefused),
    #[error("this identity can't be used for TLS: {0}")]
    Unusable(rustls::Error),
}

/// # Errors
/// If the client does not prove, by `deadline`, that it is a workload of the trust domain.
pub async fn authenticate(
    socket: TcpStream,
    context: &TlsContext,
    deadline: Instant,
    now: UnixTime,
) -> Result<Authenticated, HandshakeError> {
    let acceptor = TlsAcceptor::from(Arc::clone(context.server()));
    let stream = timeout_at(deadline, acceptor.accept(socket))
        .await
        .map_err(|_| HandshakeError::Timeout)?
        .map_err(HandshakeError::Failed)?;
    let (socket, connection) = stream.into_inner();
    let (peer, tls) = check(&connection, context.verifier(), Role::Client, now)?;
    let session = Session::new(Connection::Server(connection));
    Ok(Authenticated {
        tunnel: Tunnel::new(socket, session),
        peer,
        tls,
    })
}

/// What both sides check once the handshake is over, whatever the verifier did during it.
pub(super) fn check(
    connection: &CommonState,
    verifier: &PeerVerifier,
    role: Role,
    now: UnixTime,
) -> Result<(Arc<PeerIdentity>, TlsFacts), HandshakeError> {
    if connection.alpn_protocol() != Some(tunnel::ALPN) {
        return Err(HandshakeError::Protocol);
    }
    let chain = connection
        .peer_certificates()
        .ok_or(PeerRefused::NoCertificate)?;
    let peer = verifier.verify(chain, role, now)?;
    let group = connection
        .negotiated_key_exchange_group()
        .and_then(|group| group.name().as_str())
        .unwrap_or("unknown");
    Ok((peer, TlsFacts { group }))
}
