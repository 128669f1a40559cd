//! The listeners of the data path, and a task for each connection.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures::FutureExt;
use mesh_lite_proto::sidecar::OWN_PORTS;
use tokio::{net::TcpListener, runtime::Runtime};

use super::Capture;
use crate::{
    control::ControlHandles,
    data_path::DataPath,
    inbound::{Inbound, Served},
    listener::{self, Accepted, ListenError},
    metrics::Metrics,
    outbound::{Outbound, Upstream},
    readiness::{Part, Readiness},
    route::Router,
};

/// Where the sidecar listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub tunnel: Listen,
    pub outbound: Listen,
    pub inbound_plaintext: Listen,
    pub admin: SocketAddr,
    pub metrics: Listen,
    pub health: Listen,
}

#[derive(Debug, Clone)]
pub enum Listen {
    /// On every address of the machine, both families where there are both.
    Everywhere(u16),
    /// On loopback, both families where there are both.
    Loopback(u16),
    /// Exactly these.
    At(Vec<SocketAddr>),
}

impl Listen {
    /// The addresses to bind on this machine.
    pub fn resolved(&self) -> Vec<SocketAddr> {
        match self {
            Self::At(addresses) => addresses.clone(),
            Self::Everywhere(port) if has_ipv6() => vec![at(Ipv6Addr::UNSPECIFIED, *port)],
            Self::Everywhere(port) => vec![at(Ipv4Addr::UNSPECIFIED, *port)],
            Self::Loopback(port) if has_ipv6() => {
                vec![
                    at(Ipv4Addr::LOCALHOST, *port),
                    at(Ipv6Addr::LOCALHOST, *port),
                ]
            }
            Self::Loopback(port) => vec![at(Ipv4Addr::LOCALHOST, *port)],
        }
    }

    fn ports(&self) -> Vec<u16> {
        match self {
            Self::Everywhere(port) | Self::Loopback(port) => vec![*port],
            Self::At(addresses) => addresses.iter().map(SocketAddr::port).collect(),
        }
    }
}

fn at(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

/// Whether IPv6 is there at all: with it switched off, its loopback can't be bound.
fn has_ipv6() -> bool {
    std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

impl Addresses {
    /// Every port that a peer may not ask for.
    fn own_ports(&self) -> Vec<u16> {
        let lists = [
            &self.tunnel,
            &self.outbound,
            &self.inbound_plaintext,
            &self.metrics,
            &self.health,
        ];
        let mut ports: Vec<_> = lists.into_iter().flat_map(Listen::ports).collect();
        ports.push(self.admin.port());
        ports.extend(OWN_PORTS);
        ports
    }
}

/// Opens what can be open from the start. Connections that come before the sidecar is ready are
/// reset: nothing has a certificate or a policy yet.
pub(super) fn open(
    addresses: &Addresses,
    capture: &Capture,
    path: &DataPath,
    handles: &ControlHandles,
    data: &Runtime,
    readiness: &Readiness,
) -> Result<(), ListenError> {
    let listening = readiness.block(Part::Listeners);
    let _guard = data.enter();
    let served = match capture {
        Capture::Transparent { .. } => Served::Captured {
            own_ports: addresses.own_ports(),
        },
        Capture::Explicit { inbound_ports, .. } => Served::Explicit {
            ports: inbound_ports.clone(),
        },
    };
    let inbound = Arc::new(Inbound {
        path: path.clone(),
        served,
    });
    for address in addresses.tunnel.resolved() {
        let inbound = Arc::clone(&inbound);
        spawn(
            listener::bind(address)?,
            &path.metrics,
            data,
            move |accepted| Arc::clone(&inbound).serve_tunnel(accepted),
        );
    }
    match capture {
        Capture::Transparent { .. } => {
            for address in addresses.inbound_plaintext.resolved() {
                let inbound = Arc::clone(&inbound);
                spawn(
                    listener::bind(address)?,
                    &path.metrics,
                    data,
                    move |accepted| Arc::clone(&inbound).serve_plaintext(accepted),
                );
            }
        }
        Capture::Explicit { upstreams, .. } => {
            let outbound = outbound(path, handles);
            for (address, upstream) in upstreams {
                open_upstream(*address, upstream.clone(), &outbound, data)?;
            }
        }
    }
    listening.ready();
    Ok(())
}

/// Opens the listener for captured outbound connections, once capture is proved.
pub(super) fn open_outbound(
    addresses: &Addresses,
    path: &DataPath,
    outbound: &Arc<Outbound>,
    data: &tokio::runtime::Handle,
) -> Result<(), ListenError> {
    let _guard = data.enter();
    for address in addresses.outbound.resolved() {
        let outbound = Arc::clone(outbound);
        spawn_on(
            listener::bind(address)?,
            &path.metrics,
            data,
            move |accepted| Arc::clone(&outbound).serve_captured(accepted),
        );
    }
    Ok(())
}

pub(super) fn outbound(path: &DataPath, handles: &ControlHandles) -> Arc<Outbound> {
    Arc::new(Outbound {
        path: path.clone(),
        router: Router,
        directory: handles.directory.clone(),
        picker: handles.picker.clone(),
    })
}

fn open_upstream(
    address: SocketAddr,
    upstream: Upstream,
    outbound: &Arc<Outbound>,
    data: &Runtime,
) -> Result<(), ListenError> {
    let (outbound, upstream) = (Arc::clone(outbound), Arc::new(upstream));
    let metrics = outbound.path.metrics.clone();
    spawn(listener::bind(address)?, &metrics, data, move |accepted| {
        Arc::clone(&outbound).serve_upstream(accepted, Arc::clone(&upstream))
    });
    Ok(())
}

fn spawn<Serving>(
    listener: TcpListener,
    metrics: &Metrics,
    data: &Runtime,
    serve: impl Fn(Accepted) -> Serving + Send + 'static,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    spawn_on(listener, metrics, data.handle(), serve);
}

fn spawn_on<Serving>(
    listener: TcpListener,
    metrics: &Metrics,
    data: &tokio::runtime::Handle,
    serve: impl Fn(Accepted) -> Serving + Send + 'static,
) where
    Serving: Future<Output = ()> + Send + 'static,
{
    let metrics = metrics.clone();
    data.spawn(async move {
        loop {
            let accepted = listener::accept(&listener, &metrics).await;
            let serving = AssertUnwindSafe(serve(accepted)).catch_unwind();
            let metrics = metrics.clone();
            tokio::spawn(async move {
                // a bug costs one connection, and is seen
                if serving.await.is_err() {
                    metrics.panicked();
                }
            });
        }
    });
}
