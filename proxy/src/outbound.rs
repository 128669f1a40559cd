//! Connections of our application. Read from top to bottom, this is the design:
//!
//! ```text
//! accepted -> intercepted -> routed (directory: who must answer there?) -> connected -> forwarded
//! ```
//!
//! A workload in the mesh gets mutual TLS or nothing, whatever fails. Plaintext leaves only for
//! destinations that were allowed by name, and is counted by that name.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_lite_proto::{
    tunnel::{Answer, Header, Status, TraceId},
    workload_directory::{Meshed, Name, ServiceName},
};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    access_log::{OriginalDestination, Outcome, Peer, TlsFacts},
    account::{Account, Refused},
    data_path::DataPath,
    dial::{self, Dialled},
    directory::{
        Directory,
        pick::{Outstanding, Picked, Picker},
    },
    forward::{Awaited, Count, Far, Forward},
    listener::Accepted,
    live_connections::{Cut, Registered, Subject},
    metrics::{Direction, Plaintext, Refusal},
    original_destination::original_destination,
    route::{Hop, Route, Router},
    tls::{connector, peer_identity::PeerIdentity},
    tunnel::Tunnel,
};

/// Everything until the other sidecar has proved itself, all attempts together: the application
/// believes that it is connected already.
const CONNECT: Duration = Duration::from_secs(10);
/// One endpoint of several.
const ATTEMPT: Duration = Duration::from_secs(4);
/// The other sidecar dials its application for up to 10 s before it answers.
const ANSWER: Duration = Duration::from_secs(11);
/// Endpoints of one service that one connection tries.
const MAX_ATTEMPTS: usize = 3;

pub struct Outbound {
    pub path: DataPath,
    pub router: Router,
    pub directory: Directory,
    pub picker: Picker,
}

/// What an explicit listener stands for: a service and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    pub service: ServiceName,
    pub port: u16,
}

/// A connection whose other side has proved itself, or was allowed to be plaintext.
struct Connected {
    far: ConnectedFar,
    registered: Registered,
    address: IpAddr,
    /// Counts towards the endpoint's load for as long as the connection lives.
    _outstanding: Option<Outstanding>,
    /// There are other endpoints that would do as well.
    one_of_many: bool,
}

enum ConnectedFar {
    Tunnel(Tunnel),
    Plain(Dialled, Plaintext),
}

/// What the application wants, as far as it concerns a connection.
struct Wanted {
    client: IpAddr,
    port: u16,
    /// What the application dialled, for the other side's log.
    original: IpAddr,
}

impl Outbound {
    /// One captured connection, from accept to its end.
    pub async fn serve_captured(self: Arc<Self>, mut accepted: Accepted) {
        let mut account = self.path.account(Direction::Outbound, &accepted);
        let Some(_place) = self.path.limits.outbound() else {
            return account.refused(Refusal::Limit.into());
        };
        let original = match self.intercepted(&accepted) {
            Ok(original) => original,
            Err(refused) => return account.refused(refused),
        };
        account.original_destination = Some(OriginalDestination::Known(original));
        let wanted = Wanted {
            client: accepted.peer.ip(),
            port: original.port(),
            original: original.ip(),
        };
        self.serve(
            &mut accepted.socket,
            Name::Address(original.ip()),
            wanted,
            &mut account,
        )
        .await;
    }

    /// One connection to an explicit upstream's listener, from accept to its end.
    pub async fn serve_upstream(self: Arc<Self>, mut accepted: Accepted, upstream: Arc<Upstream>) {
        let mut account = self.path.account(Direction::Outbound, &accepted);
        let Some(_place) = self.path.limits.outbound() else {
            return account.refused(Refusal::Limit.into());
        };
        let wanted = Wanted {
            client: accepted.peer.ip(),
            port: upstream.port,
            original: accepted.local.ip(),
        };
        let name = Name::Service(upstream.service.clone());
        self.serve(&mut accepted.socket, name, wanted, &mut account)
            .await;
    }

    fn intercepted(&self, accepted: &Accepted) -> Result<SocketAddr, Refused> {
        let original = original_destination(accepted)
            .map_err(|error| Refused::because(Refusal::NotCaptured, error))?;
        self.path.check_loop(accepted, original)?;
        Ok(original)
    }

    async fn serve(
        &self,
        application: &mut TcpStream,
        name: Name,
        wanted: Wanted,
        account: &mut Account,
    ) {
        let mut tried = Vec::new();
        // a second turn only if the other side was going away and no byte had been taken
        for last in [false, true] {
            let deadline = Instant::now() + CONNECT;
            // Boxed: a task holds memory for its largest stage as long as it lives, and this one
            // is over before the first byte is forwarded.
            let connecting = self.connect(&name, &wanted, &mut tried, deadline, account);
            let connected = Box::pin(connecting).await;
            let connected = match connected {
                Ok(connected) => connected,
                Err(refused) => return account.refused(refused),
            };
            let address = connected.address;
            let may_try_another = connected.one_of_many && !last;
            match forward(application, connected, may_try_another, account).await {
                Ended::TryAnother => {
                    self.picker.failed(address, Instant::now());
                    tried.push(address);
                }
                Ended::Over => return,
            }
        }
    }

    /// Tries the endpoints of the route until one has proved itself.
    async fn connect(
        &self,
        name: &Name,
        wanted: &Wanted,
        tried: &mut Vec<IpAddr>,
        deadline: Instant,
        account: &mut Account,
    ) -> Result<Connected, Refused> {
        match self
            .router
            .route(&self.directory, name, wanted.port)
            .await?
        {
            Route::One(hop) => {
                let address = hop.address().ip();
                let (far, registered) = self.reach(hop, wanted, deadline, account).await?;
                let (_outstanding, one_of_many) = (None, false);
                Ok(Connected {
                    far,
                    registered,
                    address,
                    _outstanding,
                    one_of_many,
                })
            }
            Route::Service { service, port } => {
                let mut refused = None;
                for left in (0..MAX_ATTEMPTS).rev() {
                    let picked = service
                        .get()
                        .and_then(|service| self.picker.pick(service, port, wanted.client, tried));
                    let Some(picked) = picked else { break };
                    let address = picked.endpoint.address;
                    let attempt =
                        deadline.min(Instant::now() + if left == 0 { CONNECT } else { ATTEMPT });
                    match self.try_endpoint(picked, wanted, attempt, account).await {
                        Ok(connected) => return Ok(connected),
                        Err(error) => refused = Some(error),
                    }
                    tried.push(address);
                    if Instant::now() >= deadline {
                        break;
                    }
                }
                Err(refused.unwrap_or_else(|| no_endpoint(name, tried)))
            }
        }
    }

    /// One endpoint of a service, by its own rule: mutual TLS if it has a sidecar.
    async fn try_endpoint(
        &self,
        picked: Picked,
        wanted: &Wanted,
        deadline: Instant,
        account: &mut Account,
    ) -> Result<Connected, Refused> {
        let hop = self
            .router
            .hop(&self.directory, &picked.endpoint, picked.port)?;
        let address = picked.endpoint.address;
        match self.reach(hop, wanted, deadline, account).await {
            Ok((far, registered)) => {
                let (_outstanding, one_of_many) = (Some(picked.outstanding), true);
                Ok(Connected {
                    far,
                    registered,
                    address,
                    _outstanding,
                    one_of_many,
                })
            }
            Err(error) => {
                if is_the_endpoints_fault(&error) {
                    self.picker.failed(address, Instant::now());
                }
                Err(error)
            }
        }
    }

    async fn reach(
        &self,
        hop: Hop,
        wanted: &Wanted,
        deadline: Instant,
        account: &mut Account,
    ) -> Result<(ConnectedFar, Registered), Refused> {
        match hop {
            Hop::Tunnel {
                address,
                meshed,
                port,
            } => {
                self.reach_sidecar(address, &meshed, port, wanted, deadline, account)
                    .await
            }
            Hop::Plain { address, reason } => {
                account.goes_in_plaintext_to(address);
                let registered = self.register(account, None, address)?;
                let upstream = dial::dial(address, deadline, &self.path.own).await?;
                Ok((ConnectedFar::Plain(upstream, reason), registered))
            }
        }
    }

    async fn reach_sidecar(
        &self,
        address: IpAddr,
        meshed: &Meshed,
        port: u16,
        wanted: &Wanted,
        deadline: Instant,
        account: &mut Account,
    ) -> Result<(ConnectedFar, Registered), Refused> {
        let target = SocketAddr::new(address, port);
        let expected = Some(meshed.id.clone());
        account.destination = Some(Peer {
            address: target,
            identity: expected,
            serial: None,
        });
        let context = self.path.context()?;
        let own = &context.identity().leaf;
        account.source.identity = Some(own.id.clone());
        account.source.serial = Some(own.serial.clone());
        let tunnel_address = SocketAddr::new(address, meshed.tunnel_port);
        let dialled = dial::dial(tunnel_address, deadline, &self.path.own).await?;
        let header = Header {
            port,
            original_destination: wanted.original,
            trace_id: trace_id(account),
        };
        let (socket, own_connection) = dialled.into_parts();
        let authenticated = connector::connect(
            socket,
            tunnel_address,
            &context,
            &meshed.id,
            &header.encode(),
            deadline,
            self.path.unix_now(),
        )
        .await?;
        account.tls = Some(TlsFacts {
            version: "TLSv1.3",
            group: authenticated.tls.group,
        });
        if let Some(destination) = &mut account.destination {
            destination.serial = Some(authenticated.peer.leaf.serial.clone());
        }
        let registered = self.register(account, Some(authenticated.peer), target)?;
        let tunnel = authenticated.tunnel.owned_by(own_connection);
        Ok((ConnectedFar::Tunnel(tunnel), registered))
    }

    /// Registers first and checks then: an eviction that comes afterwards finds the connection.
    fn register(
        &self,
        account: &Account,
        peer: Option<Arc<PeerIdentity>>,
        destination: SocketAddr,
    ) -> Result<Registered, Refused> {
        let subject = Subject {
            direction: Direction::Outbound,
            peer,
            source: account.source.address.ip(),
            destination,
        };
        let registered = self.path.enforcement.live().register(account.id, subject);
        self.path.enforcement.may_talk_to(&registered)?;
        Ok(registered)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Over,
    /// The other side goes away and took nothing: another endpoint may do. Nothing was told of
    /// this one: what becomes of the connection is told once.
    TryAnother,
}

async fn forward(
    application: &mut TcpStream,
    connected: Connected,
    may_try_another: bool,
    account: &Account,
) -> Ended {
    let Connected {
        far,
        registered,
        _outstanding,
        ..
    } = connected;
    match far {
        ConnectedFar::Plain(mut upstream, reason) => {
            account.plaintext(reason);
            let meter = account.let_through(Outcome::PassedPlaintext(reason));
            let forward = Forward {
                application,
                far: Far::Plain(&mut upstream.socket),
                count: Count {
                    direction: Direction::Outbound,
                    meter: &meter,
                },
                cut: registered.cut(),
                early: Vec::new(),
                awaited: None,
            };
            account.closed(&meter, forward.run().await);
            Ended::Over
        }
        ConnectedFar::Tunnel(tunnel) => {
            let cut = registered.cut();
            forward_tunnel(application, tunnel, cut, may_try_another, account).await
        }
    }
}

/// Through the other sidecar, which answers first.
async fn forward_tunnel(
    application: &mut TcpStream,
    mut tunnel: Tunnel,
    cut: &Cut,
    may_try_another: bool,
    account: &Account,
) -> Ended {
    let meter = account.meter();
    let mut status = None;
    let mut elsewhere = false;
    let mut answered = |answer: Answer<'_>| {
        status = Some(answer.status);
        elsewhere = may_try_another
            && matches!(answer.status, Status::Draining | Status::Overloaded)
            && meter.bytes_received() == 0;
        if !elsewhere {
            account.answered(answer);
        }
    };
    let forward = Forward {
        application,
        far: Far::Tunnel {
            socket: &mut tunnel.socket,
            session: &mut tunnel.session,
        },
        count: Count {
            direction: Direction::Outbound,
            meter: &meter,
        },
        cut,
        early: Vec::new(),
        awaited: Some(Awaited {
            due: Instant::now() + ANSWER,
            answered: &mut answered,
        }),
    };
    let ended = forward.run().await;
    match (status, ended) {
        _ if elsewhere => return Ended::TryAnother,
        (Some(Status::Ok), ended) => account.closed(&meter, ended),
        (status, ended) => account.not_let_through(status, &ended),
    }
    Ended::Over
}

fn no_endpoint(name: &Name, tried: &[IpAddr]) -> Refused {
    let words = match tried {
        [] => format!("service {name} has no healthy endpoint"),
        tried => format!("no endpoint of service {name} is left after trying {tried:?}"),
    };
    Refused::because(Refusal::NoEndpoint, words)
}

/// Whether others should rather not try the endpoint for a while. What we lack ourselves (a
/// certificate, a policy, a port) says nothing of it.
fn is_the_endpoints_fault(refused: &Refused) -> bool {
    matches!(
        refused,
        Refused::For(
            Refusal::ConnectFailed
                | Refusal::ConnectTimeout
                | Refusal::HandshakeFailed
                | Refusal::HandshakeTimeout
                | Refusal::IdentityMismatch,
            _
        )
    )
}

/// The connection's id in our log: it finds our line from the other side's.
fn trace_id(account: &Account) -> TraceId {
    TraceId::new(account.id.to_string().as_bytes()).unwrap_or(TraceId::NONE)
}

#[cfg(test)]
mod tests;
