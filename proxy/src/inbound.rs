//! Connections to our application. Read from top to bottom, this is the design:
//!
//! ```text
//! tunnel     accepted -> authenticated -> requested -> permitted -> dialled -> forwarded
//! plaintext  accepted -> intercepted                -> permitted -> dialled -> forwarded
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_lite_proto::{
    sidecar::METRICS_PORT,
    tunnel::{EncodedAnswer, Status},
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use crate::{
    access_log::{OriginalDestination, Outcome, Peer, TlsFacts},
    account::{Account, Refused},
    authorization::enforcement::Permit,
    data_path::DataPath,
    dial::{self, Dialled},
    forward::{Broken, Count, Far, Forward},
    listener::Accepted,
    live_connections::{Registered, Subject},
    metrics::{Direction, Plaintext, Refusal},
    original_destination::original_destination,
    tls::acceptor::{self, Authenticated, HandshakeError},
    tunnel::{HeaderError, Request, Tunnel},
};

/// From accept to the end of the handshake, waiting for a turn included.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same while strangers hold most of the places: an honest peer needs milliseconds.
const CROWDED_HANDSHAKE: Duration = Duration::from_secs(1);
/// From the end of the handshake to a whole header.
const HEADER: Duration = Duration::from_secs(5);
/// The application is in this pod: it accepts at once or it is in trouble.
const DIAL: Duration = Duration::from_secs(10);

/// Which ports of the application a peer may ask for, and where the application listens.
#[derive(Debug, Clone)]
pub enum Served {
    /// Every port but the sidecar's own, on the address that was dialled.
    Captured { own_ports: Vec<u16> },
    /// Only these, on loopback.
    Explicit { ports: Vec<u16> },
}

impl Served {
    fn address(&self, dialled: IpAddr, port: u16) -> Result<SocketAddr, Refused> {
        match self {
            Self::Captured { own_ports } if own_ports.contains(&port) && port != METRICS_PORT => {
                Err(Refused::because(
                    Refusal::OwnPort,
                    format!("port {port} is the sidecar's own"),
                ))
            }
            Self::Captured { .. } => Ok(SocketAddr::new(dialled, port)),
            Self::Explicit { ports } if ports.contains(&port) => {
                Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
            }
            Self::Explicit { .. } => Err(Refused::because(
                Refusal::NotCaptured,
                format!("port {port} is not among --inbound-ports"),
            )),
        }
    }
}

pub struct Inbound {
    pub path: DataPath,
    pub served: Served,
}

/// A connection that is allowed, and its other end.
struct Established {
    registered: Registered,
    permit: Permit,
    application: Dialled,
}

impl Inbound {
    /// One tunnel, from accept to its end.
    pub async fn serve_tunnel(self: Arc<Self>, accepted: Accepted) {
        let mut account = self.path.account(Direction::Inbound, &accepted);
        let Some(_place) = self.path.limits.inbound() else {
            return account.refused(Refusal::Limit.into());
        };
        let local = accepted.local;
        // Boxed, here and below: a task holds memory for its largest stage as long as it lives,
        // and a handshake's is several times that of forwarding.
        let authenticated = match Box::pin(self.authenticate(accepted, &mut account)).await {
            Ok(authenticated) => authenticated,
            Err(refused) => return account.refused(refused),
        };
        let Authenticated {
            mut tunnel, peer, ..
        } = authenticated;
        let request = match self.request(&mut tunnel, &mut account).await {
            Ok(request) => request,
            Err(refused) => return Box::pin(refuse(tunnel, refused, &account)).await,
        };
        let subject = Subject {
            direction: Direction::Inbound,
            peer: Some(peer),
            source: account.source.address.ip(),
            destination: SocketAddr::new(local.ip(), request.header.port),
        };
        match Box::pin(self.establish(subject, &mut account)).await {
            Ok(established) => forward_tunnel(tunnel, request.early, established, &account).await,
            Err(refused) => Box::pin(refuse(tunnel, refused, &account)).await,
        }
    }

    /// One captured plaintext connection, from accept to its end.
    pub async fn serve_plaintext(self: Arc<Self>, mut accepted: Accepted) {
        let mut account = self.path.account(Direction::Inbound, &accepted);
        let Some(_place) = self.path.limits.inbound() else {
            return account.refused(Refusal::Limit.into());
        };
        // until policy has said yes; an allowed connection holds no place among strangers
        let Some(stranger) = self.path.limits.queue(accepted.peer.ip()) else {
            return account.refused(Refusal::UnauthenticatedLimit.into());
        };
        let established = match self.intercepted(&accepted, &mut account) {
            Ok(subject) => self.establish(subject, &mut account).await,
            Err(refused) => Err(refused),
        };
        drop(stranger);
        match established {
            Ok(established) => forward_plain(&mut accepted.socket, established, &account).await,
            Err(refused) => account.refused(refused),
        }
    }

    async fn authenticate(
        &self,
        accepted: Accepted,
        account: &mut Account,
    ) -> Result<Authenticated, Refused> {
        let context = self.path.context()?;
        let limits = &self.path.limits;
        let queued = limits
            .queue(accepted.peer.ip())
            .ok_or_else(|| Refused::from(Refusal::UnauthenticatedLimit))?;
        let until = accepted.at + HANDSHAKE;
        let _shaking = timeout_at(until, queued.turn())
            .await
            .map_err(|_| Refused::from(Refusal::HandshakeTimeout))?;
        let deadline = if limits.is_crowded() {
            until.min(Instant::now() + CROWDED_HANDSHAKE)
        } else {
            until
        };
        let now = self.path.unix_now();
        let authenticated =
            acceptor::authenticate(accepted.socket, &context, deadline, now).await?;
        account.source.identity = Some(authenticated.peer.id().clone());
        account.source.serial = Some(authenticated.peer.leaf.serial.clone());
        account.tls = Some(TlsFacts {
            version: "TLSv1.3",
            group: authenticated.tls.group,
        });
        let own = &context.identity().leaf;
        account.destination = Some(Peer {
            address: accepted.local,
            identity: Some(own.id.clone()),
            serial: Some(own.serial.clone()),
        });
        Ok(authenticated)
    }

    async fn request(
        &self,
        tunnel: &mut Tunnel,
        account: &mut Account,
    ) -> Result<Request, Refused> {
        let request = tunnel.read_header(Instant::now() + HEADER).await?;
        account.trace_id = request.header.trace_id;
        let claimed = request.header.original_destination.to_canonical();
        account.original_destination = Some(OriginalDestination::Claimed(claimed));
        if let Some(destination) = &mut account.destination {
            destination.address.set_port(request.header.port);
        }
        Ok(request)
    }

    fn intercepted(&self, accepted: &Accepted, account: &mut Account) -> Result<Subject, Refused> {
        let original = original_destination(accepted)
            .map_err(|error| Refused::because(Refusal::NotCaptured, error))?;
        account.original_destination = Some(OriginalDestination::Known(original));
        self.path.check_loop(accepted, original)?;
        let destination = SocketAddr::new(accepted.local.ip(), original.port());
        account.destination = Some(Peer {
            address: destination,
            identity: None,
            serial: None,
        });
        Ok(Subject {
            direction: Direction::Inbound,
            peer: None,
            source: accepted.peer.ip(),
            destination,
        })
    }

    /// Registers first and decides then: whatever changes afterwards finds the connection.
    async fn establish(
        &self,
        subject: Subject,
        account: &mut Account,
    ) -> Result<Established, Refused> {
        let target = self
            .served
            .address(subject.destination.ip(), subject.destination.port())?;
        let registered = self.path.enforcement.live().register(account.id, subject);
        // after the registration: a drain that has begun since waits for this connection
        if self.path.is_draining() {
            return Err(Refusal::Draining.into());
        }
        let permit = self.path.enforcement.permit(&registered)?;
        let application = self.dial(&permit, target).await?;
        if registered.cut().reason().is_some() {
            // while the application was dialled: who is refused by now is told so, and logged so
            self.path.enforcement.permit(&registered)?;
        }
        Ok(Established {
            registered,
            permit,
            application,
        })
    }

    /// Dials the application: nobody without a permit gets here.
    async fn dial(&self, _permit: &Permit, target: SocketAddr) -> Result<Dialled, Refused> {
        let deadline = Instant::now() + DIAL;
        Ok(dial::dial(target, deadline, &self.path.own).await?)
    }
}

async fn forward_tunnel(
    mut tunnel: Tunnel,
    early: Vec<u8>,
    established: Established,
    account: &Account,
) {
    let Established {
        registered,
        permit,
        mut application,
    } = established;
    let decision = permit.decision();
    tunnel.answer(&EncodedAnswer::new(Status::Ok, decision.policy.as_ref()));
    let meter = account.let_through(Outcome::Decided(decision.clone()));
    let ended = Forward {
        application: &mut application.socket,
        far: Far::Tunnel {
            socket: &mut tunnel.socket,
            session: &mut tunnel.session,
        },
        count: Count {
            direction: Direction::Inbound,
            meter: &meter,
        },
        cut: registered.cut(),
        early,
        awaited: None,
    }
    .run()
    .await;
    account.closed(&meter, ended);
}

async fn forward_plain(downstream: &mut TcpStream, established: Established, account: &Account) {
    let Established {
        registered,
        permit,
        mut application,
    } = established;
    let reason = Plaintext::InboundPermissive;
    account.plaintext(reason);
    let outcome = Outcome::DecidedPlaintext(permit.decision().clone(), reason);
    let meter = account.let_through(outcome);
    let ended: Result<(), Broken> = Forward {
        application: &mut application.socket,
        far: Far::Plain(downstream),
        count: Count {
            direction: Direction::Inbound,
            meter: &meter,
        },
        cut: registered.cut(),
        early: Vec::new(),
        awaited: None,
    }
    .run()
    .await;
    account.closed(&meter, ended);
}

async fn refuse(tunnel: Tunnel, refused: Refused, account: &Account) {
    let answer = answer_for(&refused);
    account.refused(refused);
    tunnel.refuse(&answer).await;
}

/// What a peer is told. It learns no more than it needs to act and to ask whom it concerns: the
/// reason, with rule and fields, is in our log.
fn answer_for(refused: &Refused) -> EncodedAnswer {
    let decided_by = match refused {
        Refused::Denied(decision) => decision.policy.as_ref(),
        Refused::For(..) => None,
    };
    EncodedAnswer::new(status_for(refused), decided_by)
}

fn status_for(refused: &Refused) -> Status {
    let refusal = match refused {
        Refused::Denied(_) => return Status::Denied,
        Refused::For(refusal, _) => refusal,
    };
    match refusal {
        Refusal::Evicted | Refusal::Untrusted | Refusal::PlaintextToStrict => Status::Denied,
        Refusal::BadHeader | Refusal::HeaderTimeout => Status::BadHeader,
        Refusal::ConnectTimeout => Status::ConnectTimeout,
        Refusal::Draining => Status::Draining,
        Refusal::AddressesExhausted | Refusal::Limit | Refusal::NotReady => Status::Overloaded,
        _ => Status::Refused,
    }
}

impl From<HandshakeError> for Refused {
    fn from(error: HandshakeError) -> Self {
        let refusal = match &error {
            HandshakeError::Timeout => Refusal::HandshakeTimeout,
            error if error.is_identity_mismatch() => Refusal::IdentityMismatch,
            _ => Refusal::HandshakeFailed,
        };
        Self::because(refusal, error)
    }
}

impl From<HeaderError> for Refused {
    fn from(error: HeaderError) -> Self {
        let refusal = match &error {
            HeaderError::Timeout => Refusal::HeaderTimeout,
            _ => Refusal::BadHeader,
        };
        Self::because(refusal, error)
    }
}
