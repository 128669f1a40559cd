//! Between the directory's answers and their wire form.

use std::{collections::BTreeMap, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{
    Answer, Endpoint, MeshSettings, Meshed, Name, OutboundPolicy, OutboundUnmeshed, Service,
    ServiceName, ServicePort,
};
use crate::{identity::InvalidWorkloadId, sidecar::SCHEMA, wire::mesh_lite::v1 as wire};

/// Parts of a name in Kubernetes have at most 253 bytes.
const MAX_NAME: usize = 253;
/// Of an endpoint with ports of its own.
const PORTS_SCHEMA: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnswer {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("an address of {0} bytes is neither IPv4 nor IPv6")]
    Address(usize),
    #[error("{0:?} is not a name")]
    Name(String),
    #[error("{0} is not a port")]
    Port(u32),
    #[error("{0:?} is not a range of addresses")]
    Cidr(String),
    #[error(transparent)]
    Id(#[from] InvalidWorkloadId),
    #[error("it needs schema {needed}, this build knows {SCHEMA}: upgrade the sidecar")]
    Schema { needed: u32 },
    #[error("a change to a service that was never sent whole")]
    ChangeWithoutWhole,
    #[error("{field} has the unknown value {value}")]
    UnknownValue { field: &'static str, value: i32 },
}

pub fn address_to_wire(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// # Errors
/// If the bytes are not 4 or 16.
pub fn address_from_wire(bytes: &[u8]) -> Result<IpAddr, InvalidAnswer> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes)
        .map(IpAddr::from)
        .map_err(|_| InvalidAnswer::Address(bytes.len()))
}

impl From<&Name> for wire::DirectoryName {
    fn from(name: &Name) -> Self {
        let name = match name {
            Name::Address(address) => {
                wire::directory_name::Name::Address(address_to_wire(*address))
            }
            Name::Service(name) => wire::directory_name::Name::Service(name.into()),
        };
        Self { name: Some(name) }
    }
}

impl TryFrom<&wire::DirectoryName> for Name {
    type Error = InvalidAnswer;

    fn try_from(name: &wire::DirectoryName) -> Result<Self, Self::Error> {
        match name
            .name
            .as_ref()
            .ok_or(InvalidAnswer::Missing { field: "name" })?
        {
            wire::directory_name::Name::Address(bytes) => {
                address_from_wire(bytes).map(Self::Address)
            }
            wire::directory_name::Name::Service(name) => name.try_into().map(Self::Service),
        }
    }
}

impl From<&ServiceName> for wire::ServiceName {
    fn from(name: &ServiceName) -> Self {
        Self {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        }
    }
}

impl TryFrom<&wire::ServiceName> for ServiceName {
    type Error = InvalidAnswer;

    fn try_from(name: &wire::ServiceName) -> Result<Self, Self::Error> {
        for part in [&name.namespace, &name.name] {
            if part.is_empty() || part.len() > MAX_NAME {
                return Err(InvalidAnswer::Name(part.chars().take(80).collect()));
            }
        }
        Ok(Self {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        })
    }
}

impl From<&Endpoint> for wire::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            min_schema: if endpoint.ports.is_empty() {
                1
            } else {
                PORTS_SCHEMA
            },
            address: address_to_wire(endpoint.address),
            meshed: endpoint.meshed.as_ref().map(|meshed| wire::Meshed {
                spiffe_id: meshed.id.to_string(),
                tunnel_port: u32::from(meshed.tunnel_port),
            }),
            namespace: endpoint.namespace.clone(),
            name: endpoint.name.clone(),
            healthy: endpoint.healthy,
            ports: ports_to_wire(&endpoint.ports),
        }
    }
}

impl TryFrom<&wire::Endpoint> for Endpoint {
    type Error = InvalidAnswer;

    fn try_from(endpoint: &wire::Endpoint) -> Result<Self, Self::Error> {
        known_schema(endpoint.min_schema)?;
        let meshed = endpoint
            .meshed
            .as_ref()
            .map(|meshed| {
                Ok::<_, InvalidAnswer>(Meshed {
                    id: meshed.spiffe_id.parse()?,
                    tunnel_port: port(meshed.tunnel_port)?,
                })
            })
            .transpose()?;
        Ok(Self {
            address: address_from_wire(&endpoint.address)?,
            meshed,
            namespace: endpoint.namespace.clone(),
            name: endpoint.name.clone(),
            healthy: endpoint.healthy,
            ports: ports_from_wire(&endpoint.ports)?,
        })
    }
}

impl Answer {
    /// The whole answer.
    pub fn to_wire(&self, name: &Name) -> wire::DirectoryAnswer {
        self.to_wire_after(name, None)
    }

    /// The answer for a stream that was sent `before`: a service as what changed since.
    pub fn to_wire_after(&self, name: &Name, before: Option<&Self>) -> wire::DirectoryAnswer {
        use wire::directory_answer::Answer as Wire;
        let answer = match (self, before) {
            (Self::Endpoint(endpoint), _) => Wire::Endpoint(endpoint.into()),
            (Self::Service(service), Some(Self::Service(before))) => {
                Wire::Service(service.change_since(before))
            }
            (Self::Service(service), _) => Wire::Service(service.whole()),
            (Self::Outside, _) => Wire::Outside(wire::Outside {}),
            (Self::Unknown { reason }, _) => Wire::Unknown(wire::Unknown {
                reason: reason.clone(),
            }),
        };
        wire::DirectoryAnswer {
            name: Some(name.into()),
            min_schema: 1,
            answer: Some(answer),
        }
    }

    /// Reads an answer; `before` is what the name's answer was, for changes to a service.
    ///
    /// # Errors
    /// If any part of it is not understood: the caller keeps nothing of it.
    pub fn from_wire(
        answer: &wire::DirectoryAnswer,
        before: Option<&Self>,
    ) -> Result<Self, InvalidAnswer> {
        use wire::directory_answer::Answer as Wire;
        known_schema(answer.min_schema)?;
        match answer
            .answer
            .as_ref()
            .ok_or(InvalidAnswer::Missing { field: "answer" })?
        {
            Wire::Endpoint(endpoint) => endpoint.try_into().map(Self::Endpoint),
            Wire::Service(service) => Service::from_wire(service, before).map(Self::Service),
            Wire::Outside(_) => Ok(Self::Outside),
            Wire::Unknown(unknown) => Ok(Self::Unknown {
                reason: unknown.reason.clone(),
            }),
        }
    }
}

impl Service {
    fn whole(&self) -> wire::Service {
        wire::Service {
            whole: true,
            upsert: self.endpoints.values().map(Into::into).collect(),
            remove: Vec::new(),
            ..self.head()
        }
    }

    fn change_since(&self, before: &Self) -> wire::Service {
        let changed =
            |endpoint: &&Endpoint| before.endpoints.get(&endpoint.address) != Some(endpoint);
        wire::Service {
            whole: false,
            upsert: self
                .endpoints
                .values()
                .filter(changed)
                .map(Into::into)
                .collect(),
            remove: before
                .endpoints
                .keys()
                .filter(|address| !self.endpoints.contains_key(address))
                .map(|address| address_to_wire(*address))
                .collect(),
            ..self.head()
        }
    }

    fn head(&self) -> wire::Service {
        wire::Service {
            name: Some((&self.name).into()),
            ports: ports_to_wire(&self.ports),
            session_affinity: self.session_affinity,
            ..wire::Service::default()
        }
    }

    fn from_wire(service: &wire::Service, before: Option<&Answer>) -> Result<Self, InvalidAnswer> {
        let mut endpoints = match (service.whole, before) {
            (true, _) => BTreeMap::new(),
            (false, Some(Answer::Service(before))) => before.endpoints.clone(),
            (false, _) => return Err(InvalidAnswer::ChangeWithoutWhole),
        };
        for address in &service.remove {
            endpoints.remove(&address_from_wire(address)?);
        }
        for endpoint in &service.upsert {
            let endpoint = Endpoint::try_from(endpoint)?;
            endpoints.insert(endpoint.address, endpoint);
        }
        let ports = ports_from_wire(&service.ports)?;
        let name = service.name.as_ref().ok_or(InvalidAnswer::Missing {
            field: "service.name",
        })?;
        Ok(Self {
            name: name.try_into()?,
            ports,
            endpoints,
            session_affinity: service.session_affinity,
        })
    }
}

impl From<&MeshSettings> for wire::MeshSettings {
    fn from(settings: &MeshSettings) -> Self {
        let text = |cidrs: &[IpNet]| cidrs.iter().map(ToString::to_string).collect();
        Self {
            mesh_cidrs: text(&settings.mesh_cidrs),
            external_cidrs: text(&settings.external_cidrs),
            outbound_unmeshed: match settings.outbound_unmeshed {
                OutboundUnmeshed::Refuse => wire::OutboundUnmeshed::Refuse,
                OutboundUnmeshed::Allow => wire::OutboundUnmeshed::Allow,
            }
            .into(),
            outbound_policy: match settings.outbound_policy {
                OutboundPolicy::RegistryOnly => wire::OutboundPolicy::RegistryOnly,
                OutboundPolicy::AllowAny => wire::OutboundPolicy::AllowAny,
            }
            .into(),
        }
    }
}

impl TryFrom<&wire::MeshSettings> for MeshSettings {
    type Error = InvalidAnswer;

    fn try_from(settings: &wire::MeshSettings) -> Result<Self, Self::Error> {
        let outbound_unmeshed = match wire::OutboundUnmeshed::try_from(settings.outbound_unmeshed) {
            Ok(wire::OutboundUnmeshed::Allow) => OutboundUnmeshed::Allow,
            Ok(_) => OutboundUnmeshed::Refuse,
            Err(_) => {
                let value = settings.outbound_unmeshed;
                return Err(InvalidAnswer::UnknownValue {
                    field: "outboundUnmeshed",
                    value,
                });
            }
        };
        let outbound_policy = match wire::OutboundPolicy::try_from(settings.outbound_policy) {
            Ok(wire::OutboundPolicy::AllowAny) => OutboundPolicy::AllowAny,
            Ok(_) => OutboundPolicy::RegistryOnly,
            Err(_) => {
                let value = settings.outbound_policy;
                return Err(InvalidAnswer::UnknownValue {
                    field: "outboundPolicy",
                    value,
                });
            }
        };
        Ok(Self {
            mesh_cidrs: cidrs(&settings.mesh_cidrs)?,
            external_cidrs: cidrs(&settings.external_cidrs)?,
            outbound_unmeshed,
            outbound_policy,
        })
    }
}

fn ports_to_wire(ports: &[ServicePort]) -> Vec<wire::ServicePort> {
    let ports = ports.iter().map(|port| wire::ServicePort {
        port: u32::from(port.port),
        target_port: u32::from(port.target_port),
    });
    ports.collect()
}

fn ports_from_wire(ports: &[wire::ServicePort]) -> Result<Vec<ServicePort>, InvalidAnswer> {
    let ports = ports.iter().map(|pair| {
        Ok(ServicePort {
            port: port(pair.port)?,
            target_port: port(pair.target_port)?,
        })
    });
    ports.collect()
}

fn cidrs(texts: &[String]) -> Result<Vec<IpNet>, InvalidAnswer> {
    texts
        .iter()
        .map(|text| {
            IpNet::from_str(text).map_err(|_| InvalidAnswer::Cidr(text.chars().take(80).collect()))
        })
        .collect()
}

fn port(number: u32) -> Result<u16, InvalidAnswer> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or(InvalidAnswer::Port(number))
}

fn known_schema(needed: u32) -> Result<(), InvalidAnswer> {
    if needed > SCHEMA {
        Err(InvalidAnswer::Schema { needed })
    } else {
        Ok(())
    }
}
