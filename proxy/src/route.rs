//! Where a connection of our application may go.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_lite_proto::workload_directory::{
    Answer, Endpoint, MeshSettings, Meshed, Name, OutboundPolicy, OutboundUnmeshed, Service,
};

use crate::{
    account::Refused,
    directory::Directory,
    metrics::{Plaintext, Refusal},
};

/// DNS over TCP. Resolvers are rarely in the mesh, and without them nothing works.
const DNS_PORT: u16 = 53;
/// The API server's service.
const KUBERNETES: (&str, &str) = ("default", "kubernetes");

/// One place to connect to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// Mutual TLS to exactly this workload, or nothing.
    Tunnel {
        address: IpAddr,
        meshed: Meshed,
        port: u16,
    },
    /// Plaintext, for a reason that has a name.
    Plain {
        address: SocketAddr,
        reason: Plaintext,
    },
}

impl Hop {
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Tunnel { address, port, .. } => SocketAddr::new(*address, *port),
            Self::Plain { address, .. } => *address,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    One(Hop),
    /// Any endpoint of a service, on its port behind this one of the service.
    Service {
        service: KnownService,
        port: u16,
    },
}

/// The directory's answer that is a service; shared, because it may have thousands of endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService(Arc<Answer>);

impl KnownService {
    pub fn get(&self) -> Option<&Service> {
        match &*self.0 {
            Answer::Service(service) => Some(service),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Router;

impl Router {
    /// Asks the directory who must answer at `name`, and waits for it a bounded time.
    ///
    /// # Errors
    /// If nobody may be sent anything there. A directory that does not answer is such a case:
    /// what is not known is never sent plaintext.
    pub async fn route(
        self,
        directory: &Directory,
        name: &Name,
        port: u16,
    ) -> Result<Route, Refused> {
        let answer = match directory.known(name) {
            Some(answer) => answer,
            None => directory
                .resolve(name)
                .await
                .map_err(|error| Refused::because(Refusal::DirectoryUnavailable, error))?,
        };
        route(&answer, &directory.settings(), name, port)
    }

    /// How to reach one endpoint of a service.
    ///
    /// # Errors
    /// If it has no sidecar and plaintext inside the mesh is not allowed.
    pub fn hop(
        self,
        directory: &Directory,
        endpoint: &Endpoint,
        port: u16,
    ) -> Result<Hop, Refused> {
        hop(endpoint, &directory.settings(), port, None)
    }
}

fn route(
    answer: &Arc<Answer>,
    settings: &MeshSettings,
    name: &Name,
    port: u16,
) -> Result<Route, Refused> {
    match &**answer {
        Answer::Endpoint(endpoint) => hop(endpoint, settings, port, None).map(Route::One),
        Answer::Service(service) => to_service(answer, service, settings, port),
        Answer::Outside => outside(name, settings, port).map(Route::One),
        // even DNS: two claims to a resolver's address must not turn a tunnel into plaintext
        Answer::Unknown { reason } => Err(Refused::because(
            Refusal::UnknownDestination,
            format!("nobody in the mesh is known to answer at {name}: {reason}"),
        )),
    }
}

fn to_service(
    answer: &Arc<Answer>,
    service: &Service,
    settings: &MeshSettings,
    port: u16,
) -> Result<Route, Refused> {
    if !service.has_port(port) {
        return Err(Refused::because(
            Refusal::UnknownDestination,
            format!("service {} has no port {port}", service.name),
        ));
    }
    let is_kubernetes = (&*service.name.namespace, &*service.name.name) == KUBERNETES;
    let first = || {
        let mut endpoints = service.endpoints.values();
        endpoints.find_map(|endpoint| Some((endpoint, service.target_port(endpoint, port)?)))
    };
    if is_kubernetes && let Some((endpoint, target)) = first() {
        return hop(
            endpoint,
            settings,
            target,
            Some(Plaintext::OutboundKubernetes),
        )
        .map(Route::One);
    }
    Ok(Route::Service {
        service: KnownService(Arc::clone(answer)),
        port,
    })
}

fn hop(
    endpoint: &Endpoint,
    settings: &MeshSettings,
    port: u16,
    always: Option<Plaintext>,
) -> Result<Hop, Refused> {
    if let Some(meshed) = &endpoint.meshed {
        return Ok(Hop::Tunnel {
            address: endpoint.address,
            meshed: meshed.clone(),
            port,
        });
    }
    let by_name = always.or_else(|| (port == DNS_PORT).then_some(Plaintext::OutboundDns));
    let reason = match (by_name, settings.outbound_unmeshed) {
        (Some(reason), _) => reason,
        (None, OutboundUnmeshed::Allow) => Plaintext::OutboundUnmeshed,
        (None, OutboundUnmeshed::Refuse) => {
            return Err(Refused::because(
                Refusal::Unmeshed,
                format!(
                    "{}/{} has no sidecar, and plaintext inside the mesh is refused: put it into \
                     the mesh, or set outboundUnmeshed to allow",
                    endpoint.namespace, endpoint.name
                ),
            ));
        }
    };
    Ok(Hop::Plain {
        address: SocketAddr::new(endpoint.address, port),
        reason,
    })
}

fn outside(name: &Name, settings: &MeshSettings, port: u16) -> Result<Hop, Refused> {
    let Name::Address(address) = name else {
        return Err(Refused::because(
            Refusal::UnknownDestination,
            format!("{name} is not in the mesh, and only addresses can be outside"),
        ));
    };
    let reason = match settings.outbound_policy {
        OutboundPolicy::AllowAny if port == DNS_PORT => Plaintext::OutboundDns,
        OutboundPolicy::AllowAny => Plaintext::OutboundOutside,
        OutboundPolicy::RegistryOnly => {
            return Err(Refused::because(
                Refusal::Outside,
                format!("{address} is outside the mesh, and outboundPolicy is registry-only"),
            ));
        }
    };
    Ok(Hop::Plain {
        address: SocketAddr::new(*address, port),
        reason,
    })
}

#[cfg(test)]
mod tests;
