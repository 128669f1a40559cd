//! Where does a connection of ours arrive?
//!
//! `redirect` must see its own arrive at the outbound port: then everybody's does. The sidecar
//! must see its own not arrive there: then it can reach others without going in a circle.
//! Both connect to addresses that no network routes, so that an arrival proves capture.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use mesh_lite_proto::sidecar::OUTBOUND_PORT;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::listening::{self, ListeningError};
use super::record::{FamilyProof, Record, RecordError, own_network_namespace};
use super::rules::Family;

/// A captured connection arrives before `connect` returns: it goes over loopback.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);
/// So one that has not arrived after this long is on its way into the network.
const NOT_CAPTURED_AFTER: Duration = Duration::from_millis(250);
/// Port that the sidecar tries. Any would do: its connections are exempt by user, not by port.
const SIDECAR_TRIES_PORT: u16 = 80;

/// Why capture is not proved. Nothing may be served while this stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureUnproved {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(
        "the capture record is of network namespace {recorded}, this process is in {own}: rules \
         were installed elsewhere; run `mesh-lite redirect` in this pod"
    )]
    OtherNetworkNamespace { recorded: u64, own: u64 },
    #[error(
        "the rules exempt user {exempt} and this process runs as {own}: its connections would \
         come back to it; run it as {exempt}"
    )]
    NotExempt { exempt: u32, own: u32 },
    #[error(
        "{family}: an own connection came back to port {OUTBOUND_PORT}: the rules do not exempt this user"
    )]
    OwnConnectionCaptured { family: Family },
    #[error(
        "{family}: a connection to {target} was not captured, it {arrival}; the rules do not work in this pod"
    )]
    NotCaptured {
        family: Family,
        target: SocketAddr,
        arrival: Arrival,
    },
    #[error(
        "no route to {} nor to {}: this pod has no default route yet, so there is nothing to prove \
         capture by; run `mesh-lite redirect` after the pod has its addresses",
        Family::V4.unrouted(),
        Family::V6.unrouted()
    )]
    NoRoute,
    #[error(
        "{family}: cannot listen on {address} for the proof; is another mesh's sidecar in this pod?"
    )]
    Listen {
        family: Family,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{family}: cannot connect to {target} for the proof")]
    Connect {
        family: Family,
        target: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    Listening(#[from] ListeningError),
}

/// Proof that this process may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What `redirect` proved in this network namespace.
    pub record: Record,
}

/// The sidecar's proof, to be asked for before it listens on the outbound port: a record of its
/// own network namespace, its own user exempt, and its own connections not captured.
///
/// # Errors
/// The reason why the sidecar must not become ready.
pub async fn prove(record_dir: &Path) -> Result<Proof, CaptureUnproved> {
    let record = Record::read(record_dir)?;
    let own = own_network_namespace()?;
    if record.network_namespace != own {
        let recorded = record.network_namespace;
        return Err(CaptureUnproved::OtherNetworkNamespace { recorded, own });
    }
    let own = rustix::process::geteuid().as_raw();
    if record.proxy_uid != own {
        return Err(CaptureUnproved::NotExempt {
            exempt: record.proxy_uid,
            own,
        });
    }
    let witness = Witness::listen()?;
    let (v4, v6) = tokio::join!(
        witness.watch(Family::V4, SIDECAR_TRIES_PORT, NOT_CAPTURED_AFTER),
        witness.watch(Family::V6, SIDECAR_TRIES_PORT, NOT_CAPTURED_AFTER),
    );
    for (family, arrival) in [(Family::V4, v4?), (Family::V6, v6?)] {
        if matches!(arrival, Arrival::AtTheOutboundPort { .. }) {
            return Err(CaptureUnproved::OwnConnectionCaptured { family });
        }
    }
    Ok(Proof { record })
}

/// Where one connection went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It was captured; with what the kernel says it was meant for.
    AtTheOutboundPort {
        original_destination: Option<SocketAddr>,
    },
    /// A running sidecar holds the outbound port, and somebody took the connection.
    AtTheSidecar,
    /// Somebody who is not us took it.
    Elsewhere,
    Refused,
    Unanswered,
    /// There is no route, or no such address family.
    Unreachable,
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtTheOutboundPort {
                original_destination: Some(address),
            } => {
                write!(f, "arrived as one to {address}")
            }
            Self::AtTheOutboundPort {
                original_destination: None,
            } => f.write_str("arrived without its original destination"),
            Self::AtTheSidecar => f.write_str("arrived at the running sidecar"),
            Self::Elsewhere => f.write_str("was taken by somebody else"),
            Self::Refused => f.write_str("was refused"),
            Self::Unanswered => f.write_str("went into the network"),
            Self::Unreachable => f.write_str("had no route"),
        }
    }
}

/// Who would see a captured connection arrive.
#[derive(Debug)]
pub(crate) enum Witness {
    /// Listeners of our own on the outbound port; none for a family that this host has not.
    Own {
        v4: Option<TcpListener>,
        v6: Option<TcpListener>,
    },
    /// The sidecar runs already and holds the port.
    RunningSidecar,
}

impl Witness {
    fn listen() -> Result<Self, CaptureUnproved> {
        Ok(Self::Own {
            v4: listener(Family::V4)?,
            v6: listener(Family::V6)?,
        })
    }

    /// Own listeners, or the sidecar of user `proxy_uid` if it holds the port already.
    pub(crate) fn listen_or_find_sidecar(proxy_uid: u32) -> Result<Self, CaptureUnproved> {
        match Self::listen() {
            Err(CaptureUnproved::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && sidecar_listens(proxy_uid)? =>
            {
                Ok(Self::RunningSidecar)
            }
            other => other,
        }
    }

    pub(crate) fn is_running_sidecar(&self) -> bool {
        matches!(self, Self::RunningSidecar)
    }

    /// Both families must be captured, or have no way out at all.
    pub(crate) async fn prove_captured(
        &self,
        port: u16,
    ) -> Result<(FamilyProof, FamilyProof), CaptureUnproved> {
        let v4 = self.prove_family(Family::V4, port).await?;
        let v6 = self.prove_family(Family::V6, port).await?;
        if (v4, v6) == (FamilyProof::Unreachable, FamilyProof::Unreachable) {
            return Err(CaptureUnproved::NoRoute);
        }
        Ok((v4, v6))
    }

    async fn prove_family(
        &self,
        family: Family,
        port: u16,
    ) -> Result<FamilyProof, CaptureUnproved> {
        let target = SocketAddr::new(family.unrouted(), port);
        match self.watch(family, port, ARRIVES_WITHIN).await? {
            Arrival::AtTheOutboundPort {
                original_destination: Some(original),
            } if original == target => Ok(FamilyProof::Captured),
            Arrival::AtTheSidecar => Ok(FamilyProof::Captured),
            Arrival::Unreachable => Ok(FamilyProof::Unreachable),
            arrival => Err(CaptureUnproved::NotCaptured {
                family,
                target,
                arrival,
            }),
        }
    }

    /// Connects to an unrouted address and watches where it arrives.
    async fn watch(
        &self,
        family: Family,
        port: u16,
        patience: Duration,
    ) -> Result<Arrival, CaptureUnproved> {
        let target = SocketAddr::new(family.unrouted(), port);
        if !has_way_out(target).map_err(|source| CaptureUnproved::Connect {
            family,
            target,
            source,
        })? {
            return Ok(Arrival::Unreachable);
        }
        let stream = match timeout(patience, TcpStream::connect(target)).await {
            Err(_) => return Ok(Arrival::Unanswered),
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return self.failed_connect(source, family, target),
        };
        let listener = match self {
            Self::RunningSidecar => return Ok(Arrival::AtTheSidecar),
            Self::Own { v4, .. } if family == Family::V4 => v4.as_ref(),
            Self::Own { v6, .. } => v6.as_ref(),
        };
        let (Some(listener), Ok(local)) = (listener, stream.local_addr()) else {
            return Ok(Arrival::Elsewhere);
        };
        match timeout(patience, accept_from(listener, local)).await {
            Ok(accepted) => Ok(Arrival::AtTheOutboundPort {
                original_destination: original_destination(&accepted, family),
            }),
            Err(_) => Ok(Arrival::Elsewhere),
        }
    }

    fn failed_connect(
        &self,
        source: io::Error,
        family: Family,
        target: SocketAddr,
    ) -> Result<Arrival, CaptureUnproved> {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Arrival::Refused),
            // A sidecar that is not ready accepts and resets; what is not captured never gets
            // as far as a reset of an open connection.
            io::ErrorKind::ConnectionReset if self.is_running_sidecar() => {
                Ok(Arrival::AtTheSidecar)
            }
            // A router said so: the connection had left this pod.
            io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Ok(Arrival::Unanswered),
            _ => Err(CaptureUnproved::Connect {
                family,
                target,
                source,
            }),
        }
    }
}

fn listener(family: Family) -> Result<Option<TcpListener>, CaptureUnproved> {
    let address = match family {
        Family::V4 => SocketAddr::from((Ipv4Addr::LOCALHOST, OUTBOUND_PORT)),
        Family::V6 => SocketAddr::from((Ipv6Addr::LOCALHOST, OUTBOUND_PORT)),
    };
    let bound = std::net::TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .and_then(TcpListener::from_std);
    match bound {
        Ok(listener) => Ok(Some(listener)),
        Err(source) if no_such_way(&source) => Ok(None),
        Err(source) => Err(CaptureUnproved::Listen {
            family,
            address,
            source,
        }),
    }
}

/// Waits for the connection from `peer`; whoever else comes meanwhile is reset, as before
/// readiness.
async fn accept_from(listener: &TcpListener, peer: SocketAddr) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                if from == peer {
                    return stream;
                }
            }
            // Out of descriptors or memory: the caller's patience is the bound.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn original_destination(stream: &TcpStream, family: Family) -> Option<SocketAddr> {
    let socket = SockRef::from(stream);
    let original = match family {
        Family::V4 => socket.original_dst_v4(),
        Family::V6 => socket.original_dst_v6(),
    };
    original.ok()?.as_socket()
}

/// Whether this pod itself has a route. Connecting a datagram socket asks for the route and
/// sends nothing; of a TCP connection's error it cannot be told whether a router far away said
/// it, after the connection had gone by the rules.
fn has_way_out(target: SocketAddr) -> io::Result<bool> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    match UdpSocket::bind(any).and_then(|socket| socket.connect(target)) {
        Ok(()) => Ok(true),
        Err(error) if no_such_way(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Nothing can leave by a family that has no route or that this host has not at all.
fn no_such_way(error: &io::Error) -> bool {
    let Some(errno) = rustix::io::Errno::from_io_error(error) else {
        return false;
    };
    [
        rustix::io::Errno::NETUNREACH,
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ]
    .contains(&errno)
}

fn sidecar_listens(proxy_uid: u32) -> Result<bool, ListeningError> {
    let ours = |socket: &listening::ListeningSocket| {
        socket.uid == proxy_uid
            && socket.address.port() == OUTBOUND_PORT
            && socket.address.ip().is_loopback()
    };
    Ok(listening::listening_sockets()?.iter().any(ours))
}

#[cfg(test)]
mod tests;
