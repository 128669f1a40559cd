//! Accepts connections: handshakes off the accept loop, under a deadline, and no more
//! connections than there is room for.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::trust_bundle::TrustBundle;
use rustls::ServerConfig;
use rustls_pki_types::UnixTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::service::Routes;

use super::{
    clock_skew::NotValidNow,
    connection::{self, Ending, Opened},
    places::{NoPlace, Places},
    strangers::{Stranger, Strangers},
};
use crate::{
    caller::{InvalidPeer, Peer},
    certificate_authority::rotation::Trust,
    clock::Clock,
    metrics::{Metrics, OpenGauge},
};

/// A client that takes longer is not one of ours, or not well.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// After an accept that failed, usually because no file descriptors are left: this long, then
/// twice as long, up to the last.
const FIRST_BACK_OFF: Duration = Duration::from_millis(5);
const LAST_BACK_OFF: Duration = Duration::from_secs(1);

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) clock: Clock,
    pub(crate) routes: Routes,
    pub(crate) metrics: Metrics,
    pub(crate) ending: watch::Receiver<Ending>,
    pub(crate) max_connections: usize,
}

impl Listener {
    /// Accepts until the control plane ends, then waits until every connection is closed.
    pub(crate) async fn run(mut self) {
        let room = Arc::new(Semaphore::new(self.max_connections));
        let strangers = Strangers::default();
        let places = Places::new(self.max_connections);
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let accepted = tokio::select! {
                _ = self.ending.wait_for(|ending| *ending == Ending::Now) => break,
                accepted = accept(&self.socket, &room) => accepted,
            };
            match accepted {
                Ok((stream, from, of_all)) => {
                    back_off = FIRST_BACK_OFF;
                    match strangers.admit(from.ip()) {
                        Some(stranger) => {
                            let stranger = Some(stranger);
                            let room = Room { of_all, stranger };
                            self.spawn(stream, from, room, places.clone());
                        }
                        None => self.metrics.handshake("too_many_strangers"),
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, ?back_off, "a connection could not be accepted");
                    time::sleep(back_off).await;
                    back_off = back_off.saturating_mul(2).min(LAST_BACK_OFF);
                }
            }
        }
        drop(self.socket);
        // each connection ends itself within a bounded time and gives its place back
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        let _ = room.acquire_many(all).await;
    }

    fn spawn(&self, stream: TcpStream, from: SocketAddr, room: Room, places: Places) {
        let tls = Arc::clone(&self.tls.borrow());
        let (trust, clock) = (self.trust.clone(), self.clock);
        let (routes, mut ending, metrics) = (
            self.routes.clone(),
            self.ending.clone(),
            self.metrics.clone(),
        );
        tokio::spawn(async move {
            let open: OpenGauge = metrics.connection();
            let handshake = tokio::select! {
                done = handshake(tls, stream) => done.and_then(|stream| {
                    let trust = Arc::clone(&trust.borrow());
                    let peer = peer_of(&stream, &trust.bundle, clock())?;
                    let place = peer.as_ref().map(|peer| places.of_peer(peer)).transpose()?;
                    Ok((stream, peer, place))
                }),
                _ = ending.wait_for(|ending| *ending == Ending::Now) => return,
            };
            match handshake {
                Ok((stream, peer, place)) => {
                    metrics.handshake("ok");
                    let id = peer.as_ref().map(|peer| peer.leaf.id.to_string());
                    tracing::debug!(client.addr = %from, peer.id = id, "connection opened");
                    let opened = Opened {
                        address: from,
                        stranger: room.stranger.filter(|_| peer.is_none()),
                        peer,
                        place,
                        places,
                    };
                    connection::serve(stream, routes, opened, ending).await;
                }
                Err(error) => {
                    metrics.handshake(error.outcome());
                    tracing::info!(client.addr = %from, %error, "connection refused");
                }
            }
            drop((open, room.of_all));
        });
    }
}

/// A connection's share of what is bounded, given back when dropped.
struct Room {
    of_all: OwnedSemaphorePermit,
    /// `None` once the caller showed a certificate.
    stranger: Option<Stranger>,
}

async fn accept(
    socket: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, from) = socket.accept().await?;
    // IPv4 through `[::]` is IPv4
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    Ok((stream, from, place))
}

async fn handshake(
    tls: Arc<ServerConfig>,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, HandshakeError> {
    stream.set_nodelay(true).map_err(HandshakeError::Tls)?;
    let accepting = TlsAcceptor::from(tls).accept(stream);
    time::timeout(HANDSHAKE_DEADLINE, accepting)
        .await
        .map_err(|_| HandshakeError::Deadline)?
        .map_err(|error| match NotValidNow::reason_of(&error) {
            Some(reason) => reason.into(),
            None => HandshakeError::Tls(error),
        })
}

/// Who showed a certificate, if anybody did.
fn peer_of(
    stream: &TlsStream<TcpStream>,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Option<Arc<Peer>>, HandshakeError> {
    let (_, session) = stream.get_ref();
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    match session.peer_certificates() {
        None | Some([]) => Ok(None),
        Some(chain) => Ok(Some(Arc::new(Peer::from_chain(
            chain,
            bundle,
            UnixTime::since_unix_epoch(since_1970),
        )?))),
    }
}

#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("no TLS handshake within {HANDSHAKE_DEADLINE:?}")]
    Deadline,
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    NotValidNow(#[from] NotValidNow),
    #[error("the client's certificate is refused: {0}")]
    Peer(#[from] InvalidPeer),
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
}

impl HandshakeError {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Tls(_) => "tls",
            Self::NotValidNow(reason) => reason.outcome(),
            Self::Peer(_) => "certificate",
            Self::NoPlace(_) => "too_many_connections",
        }
    }
}

#[cfg(test)]
mod tests;
