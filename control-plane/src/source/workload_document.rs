//! `kind: Workload` and `kind: Service` documents: what a mesh without Kubernetes knows of its
//! workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_lite_proto::{
    document::{DocumentError, DocumentErrors, RawDocument, Spanned},
    identity::WorkloadId,
    sidecar,
    workload_directory::ServiceName,
};
use serde::Deserialize;
use spiffe::TrustDomain;

use super::claimable_addresses::ClaimableAddresses;
use crate::workload_index::{
    ServiceDocument, ServicePortDocument, TargetPort, Workload, WorkloadName, is_name,
};

/// A workload has an address or two per network it is in, a service one per family.
const MAX_ADDRESSES: usize = 64;
/// Kubernetes' own limit is lower for what anybody writes by hand.
const MAX_PORTS: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorkloadSpec {
    service_account: Spanned<String>,
    addresses: Vec<Spanned<IpAddr>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<Spanned<NamedPort>>,
    tunnel_port: Option<Spanned<u16>>,
    meshed: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedPort {
    name: String,
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    addresses: Vec<Spanned<IpAddr>>,
    ports: Vec<Spanned<ServicePortSpec>>,
    selector: Spanned<BTreeMap<String, String>>,
    #[serde(default)]
    session_affinity: SessionAffinity,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServicePortSpec {
    /// For people.
    #[serde(default, rename = "name")]
    _name: Option<String>,
    port: u16,
    target_port: Option<TargetPort>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum SessionAffinity {
    #[default]
    None,
    #[serde(rename = "ClientIP")]
    ClientIp,
}

/// # Errors
/// Everything that is wrong with the document, each with its line.
pub(crate) fn workload(
    document: &RawDocument,
    trust_domain: &TrustDomain,
    claimable: &ClaimableAddresses,
) -> Result<Workload, DocumentErrors> {
    let spec: WorkloadSpec = document.spec()?;
    let account = &spec.service_account;
    let mut check = Check::of(document, account);
    check.addresses(&spec.addresses, claimable);
    if spec.addresses.is_empty() {
        check.wrong(
            account,
            "addresses is empty",
            "name the addresses that the workload has",
        );
    }
    check.workload_ports(&spec.ports);
    if let Some(port) = &spec.tunnel_port {
        check.port(port, port.value);
        if spec.meshed == Some(false) {
            let problem = "a workload outside the mesh (meshed: false) has no tunnel port";
            check.wrong(port, problem, "remove one of the two");
        }
    }
    let id = WorkloadId::new(trust_domain, &document.key.namespace, &account.value)
        .map_err(|error| document.error_at(account, error.to_string(), "name a service account"))?;
    let mut labels = document.labels.clone();
    labels.extend(spec.labels);
    let tunnel_port = spec
        .tunnel_port
        .map_or(sidecar::TUNNEL_PORT, |port| port.value);
    let workload = Workload {
        name: WorkloadName {
            namespace: document.key.namespace.to_string(),
            name: document.key.name.to_string(),
        },
        id,
        addresses: spec
            .addresses
            .into_iter()
            .map(|address| address.value)
            .collect(),
        labels,
        ports: spec
            .ports
            .into_iter()
            .map(|port| (port.value.name, port.value.port))
            .collect(),
        tunnel_port: (spec.meshed != Some(false)).then_some(tunnel_port),
    };
    DocumentErrors::check(workload, check.errors)
}

/// # Errors
/// Everything that is wrong with the document, each with its line.
pub(crate) fn service(
    document: &RawDocument,
    claimable: &ClaimableAddresses,
) -> Result<ServiceDocument, DocumentErrors> {
    let spec: ServiceSpec = document.spec()?;
    let mut check = Check::of(document, &spec.selector);
    check.addresses(&spec.addresses, claimable);
    if spec.selector.value.is_empty() {
        let problem = "selector is empty, and would select every workload of the namespace";
        check.wrong(
            &spec.selector,
            problem,
            "name a label that its workloads have",
        );
    }
    if spec.ports.is_empty() {
        check.wrong(
            &spec.selector,
            "ports is empty",
            "name the ports that the service has",
        );
    }
    check.service_ports(&spec.ports);
    let ports = spec.ports.into_iter().map(|port| ServicePortDocument {
        port: port.value.port,
        target: port
            .value
            .target_port
            .unwrap_or(TargetPort::Number(port.value.port)),
    });
    let service = ServiceDocument {
        name: ServiceName {
            namespace: document.key.namespace.to_string(),
            name: document.key.name.to_string(),
        },
        addresses: spec
            .addresses
            .into_iter()
            .map(|address| address.value)
            .collect(),
        ports: ports.collect(),
        selector: spec.selector.value,
        session_affinity: spec.session_affinity == SessionAffinity::ClientIp,
    };
    DocumentErrors::check(service, check.errors)
}

/// Collects what is wrong with one document.
struct Check<'a> {
    document: &'a RawDocument,
    errors: Vec<DocumentError>,
}

impl<'a> Check<'a> {
    /// `part` is where to point if the document's own names are wrong.
    fn of<T>(document: &'a RawDocument, part: &Spanned<T>) -> Self {
        let mut check = Self {
            document,
            errors: Vec::new(),
        };
        for name in [&document.key.namespace, &document.key.name] {
            if !is_name(name) {
                let problem = format!("{name:?} can't be a name or namespace here");
                let remedy = "use 1 to 63 lower-case letters, digits, dashes and dots";
                check.wrong(part, problem, remedy);
            }
        }
        check
    }

    fn wrong<T>(
        &mut self,
        part: &Spanned<T>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors
            .push(self.document.error_at(part, problem, remedy));
    }

    fn addresses(&mut self, addresses: &[Spanned<IpAddr>], claimable: &ClaimableAddresses) {
        for address in addresses {
            let ip = address.value;
            if ip.is_unspecified() || ip.is_multicast() {
                let problem = format!("{ip} is no address that one workload or service can have");
                self.wrong(address, problem, "name its own address");
            } else if let Some((problem, remedy)) =
                claimable.objection(&self.document.key.namespace, ip)
            {
                self.wrong(address, problem, remedy);
            }
        }
        if let Some(surplus) = addresses.get(MAX_ADDRESSES) {
            let problem = format!("there are more than {MAX_ADDRESSES} addresses");
            self.wrong(surplus, problem, "split the document");
        }
    }

    fn port<T>(&mut self, part: &Spanned<T>, port: u16) {
        if port == 0 {
            self.wrong(part, "0 is not a port", "use 1 to 65535");
        }
    }

    fn workload_ports(&mut self, ports: &[Spanned<NamedPort>]) {
        let mut names = BTreeSet::new();
        for port in ports {
            self.port(port, port.value.port);
            if !names.insert(&port.value.name) {
                let problem = format!("there are two ports of the name {:?}", port.value.name);
                self.wrong(port, problem, "give each port a name of its own");
            }
        }
        self.count(ports);
    }

    fn service_ports(&mut self, ports: &[Spanned<ServicePortSpec>]) {
        let mut numbers = BTreeSet::new();
        for port in ports {
            self.port(port, port.value.port);
            if port.value.target_port == Some(TargetPort::Number(0)) {
                self.wrong(port, "0 is not a port", "use 1 to 65535, or a port's name");
            }
            if !numbers.insert(port.value.port) {
                let problem = format!("port {} is there twice", port.value.port);
                self.wrong(port, problem, "remove one of them");
            }
        }
        self.count(ports);
    }

    fn count<T>(&mut self, ports: &[Spanned<T>]) {
        if let Some(surplus) = ports.get(MAX_PORTS) {
            let problem = format!("there are more than {MAX_PORTS} ports");
            self.wrong(surplus, problem, "split the document");
        }
    }
}

#[cfg(test)]
mod tests;
