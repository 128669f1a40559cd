//! Who has which address, and what is answered where more than one claims it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use mesh_lite_proto::workload_directory::{
    Answer, Endpoint, Meshed, NODE_NAMESPACE, Name, Service, ServicePort,
};

use super::{Facts, ListedEndpoint, ServiceDocument, TargetPort, Workload};

/// In place of a namespace, of whoever a service lists who is no pod.
const STRANGER: &str = "outside-the-mesh";

type Answers = HashMap<Name, Arc<Answer>>;

#[derive(Clone, Copy)]
enum Claimant<'a> {
    Workload(&'a Workload),
    Service(&'a ServiceDocument),
    Node(&'a str),
}

/// Who claims which address: most have one claimant.
#[derive(Default)]
pub(super) struct Claims<'a>(HashMap<IpAddr, Vec<Claimant<'a>>>);

impl<'a> Claims<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let mut claims = Self::default();
        for workload in &facts.workloads {
            claims.claim(&workload.addresses, Claimant::Workload(workload));
        }
        for service in &facts.services {
            claims.claim(&service.addresses, Claimant::Service(service));
        }
        for (address, node) in &facts.nodes {
            claims.claim(std::slice::from_ref(address), Claimant::Node(node));
        }
        claims
    }

    /// An address that one document names twice is claimed once.
    fn claim(&mut self, addresses: &[IpAddr], claimant: Claimant<'a>) {
        let addresses: BTreeSet<IpAddr> = addresses.iter().map(IpAddr::to_canonical).collect();
        for address in addresses {
            self.0.entry(address).or_default().push(claimant);
        }
    }

    /// The only one that claims the address.
    fn sole(&self, address: IpAddr) -> Option<Claimant<'a>> {
        match self.0.get(&address)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    pub(super) fn answers(&self, facts: &'a Facts) -> (Answers, Vec<String>) {
        let mut answers = Answers::new();
        let mut conflicts = BTreeMap::new();
        for (address, claimants) in &self.0 {
            let answer = match claimants.as_slice() {
                [Claimant::Workload(workload)] => Answer::Endpoint(endpoint(workload, *address)),
                [Claimant::Node(node)] => {
                    Answer::Endpoint(unmeshed(*address, NODE_NAMESPACE, node))
                }
                // below, once for all its addresses
                [Claimant::Service(_)] => continue,
                several => {
                    let reason = conflict(*address, several);
                    let text = format!("{reason}: nobody gets it until one of them gives it up");
                    conflicts.insert(*address, text);
                    Answer::Unknown { reason }
                }
            };
            answers.insert(Name::Address(*address), Arc::new(answer));
        }
        for service in &facts.services {
            let answer = Arc::new(Answer::Service(self.service(service, &facts.workloads)));
            for address in service.addresses.iter().map(IpAddr::to_canonical) {
                if self.sole(address).is_some() {
                    answers.insert(Name::Address(address), Arc::clone(&answer));
                }
            }
            answers.insert(Name::Service(service.name.clone()), answer);
        }
        (answers, conflicts.into_values().collect())
    }

    fn service(&self, service: &ServiceDocument, workloads: &[Workload]) -> Service {
        let (ports, endpoints) = match &service.listed {
            Some(listed) => self.listed(service, listed),
            None => self.selected(service, workloads),
        };
        Service {
            name: service.name.clone(),
            ports,
            endpoints,
            session_affinity: service.session_affinity,
        }
    }

    fn selected(
        &self,
        service: &ServiceDocument,
        workloads: &[Workload],
    ) -> (Vec<ServicePort>, BTreeMap<IpAddr, Endpoint>) {
        let selected: Vec<&Workload> = workloads
            .iter()
            .filter(|workload| service.selects(workload))
            .collect();
        let ports = service.ports.iter().filter_map(|port| {
            let target_port = target_port(&port.target, &selected)?;
            Some(ServicePort {
                port: port.port,
                target_port,
            })
        });
        let endpoints = selected.iter().flat_map(|workload| {
            let addresses = workload.addresses.iter().map(IpAddr::to_canonical);
            let own = addresses.filter(|address| self.sole(*address).is_some());
            own.map(|address| (address, endpoint(workload, address)))
        });
        (ports.collect(), endpoints.collect())
    }

    /// The service's ports are those of most endpoints; an endpoint with others says so.
    fn listed(
        &self,
        service: &ServiceDocument,
        listed: &[ListedEndpoint],
    ) -> (Vec<ServicePort>, BTreeMap<IpAddr, Endpoint>) {
        let ports: Vec<ServicePort> = service
            .ports
            .iter()
            .map(|document| {
                let stated = match document.target {
                    TargetPort::Number(number) => number,
                    TargetPort::Name(_) => document.port,
                };
                ServicePort {
                    port: document.port,
                    // without endpoints nobody dials it
                    target_port: usual_target(document.port, listed).unwrap_or(stated),
                }
            })
            .collect();
        let usual: BTreeMap<u16, u16> = ports
            .iter()
            .map(|port| (port.port, port.target_port))
            .collect();
        let endpoints = listed.iter().filter_map(|listed| {
            let address = listed.address.to_canonical();
            let mut endpoint = match self.sole(address) {
                Some(Claimant::Workload(workload)) => endpoint(workload, address),
                Some(Claimant::Node(node)) => unmeshed(address, NODE_NAMESPACE, node),
                // the endpoint of a service is no service
                Some(Claimant::Service(_)) => return None,
                None if !self.0.contains_key(&address) && listed.may_be_stranger => {
                    unmeshed(address, STRANGER, &address.to_string())
                }
                None => return None,
            };
            if listed.ports != usual {
                let own = listed.ports.iter();
                endpoint.ports = own
                    .map(|(port, target_port)| ServicePort {
                        port: *port,
                        target_port: *target_port,
                    })
                    .collect();
            }
            Some((address, endpoint))
        });
        let endpoints = endpoints.collect();
        (ports, endpoints)
    }
}

fn endpoint(workload: &Workload, address: IpAddr) -> Endpoint {
    Endpoint {
        address,
        meshed: workload.tunnel_port.map(|tunnel_port| Meshed {
            id: workload.id.clone(),
            tunnel_port,
        }),
        namespace: workload.name.namespace.clone(),
        name: workload.name.name.clone(),
        healthy: true,
        ports: Vec::new(),
    }
}

fn unmeshed(address: IpAddr, namespace: &str, name: &str) -> Endpoint {
    Endpoint {
        address,
        meshed: None,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        healthy: true,
        ports: Vec::new(),
    }
}

fn conflict(address: IpAddr, claimants: &[Claimant<'_>]) -> String {
    let mut names: Vec<String> = claimants
        .iter()
        .map(|claimant| match claimant {
            Claimant::Workload(workload) if workload.uid.is_some() => {
                format!("Pod {}", workload.name)
            }
            Claimant::Workload(workload) => format!("Workload {}", workload.name),
            Claimant::Service(service) => format!("Service {}", service.name),
            Claimant::Node(node) => format!("Node {node}"),
        })
        .collect();
    names.sort_by_key(|name| (name.starts_with("Service"), name.clone()));
    format!("{address} is claimed by {}", names.join(" and by "))
}

/// The number that most endpoints have behind the port, the least of several.
fn usual_target(port: u16, listed: &[ListedEndpoint]) -> Option<u16> {
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for target in listed.iter().filter_map(|listed| listed.ports.get(&port)) {
        let count = counts.entry(*target).or_default();
        *count = count.saturating_add(1);
    }
    let most = counts.values().copied().max()?;
    counts
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|(target, _)| target)
}

/// `None`: nobody has a port of that name, or they mean different numbers by it. The service
/// then has no such port, rather than a wrong one.
fn target_port(target: &TargetPort, selected: &[&Workload]) -> Option<u16> {
    match target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => {
            let numbers: BTreeSet<u16> = selected
                .iter()
                .filter_map(|workload| workload.ports.get(name).copied())
                .collect();
            let mut numbers = numbers.into_iter();
            numbers.next().filter(|_| numbers.next().is_none())
        }
    }
}
