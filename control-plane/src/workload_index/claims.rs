//! Which document has which address, and what is answered where more than one claims it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use mesh_lite_proto::workload_directory::{Answer, Endpoint, Meshed, Name, Service, ServicePort};

use super::{ServiceDocument, TargetPort, Workload};

/// Who claims which address: positions in the lists of workloads and services.
#[derive(Default)]
pub(super) struct Claims {
    workloads: BTreeMap<IpAddr, BTreeSet<usize>>,
    services: BTreeMap<IpAddr, BTreeSet<usize>>,
}

impl Claims {
    pub(super) fn of(workloads: &[Workload], services: &[ServiceDocument]) -> Self {
        let mut claims = Self::default();
        for (position, workload) in workloads.iter().enumerate() {
            for address in &workload.addresses {
                let address = address.to_canonical();
                claims
                    .workloads
                    .entry(address)
                    .or_default()
                    .insert(position);
            }
        }
        for (position, service) in services.iter().enumerate() {
            for address in &service.addresses {
                let address = address.to_canonical();
                claims.services.entry(address).or_default().insert(position);
            }
        }
        claims
    }

    /// The only document that claims the address, workload or service.
    fn is_sole(&self, address: IpAddr) -> bool {
        let count = |claims: &BTreeMap<IpAddr, BTreeSet<usize>>| {
            claims.get(&address).map_or(0, BTreeSet::len)
        };
        count(&self.workloads).saturating_add(count(&self.services)) == 1
    }

    pub(super) fn into_answers(
        self,
        workloads: &[Workload],
        services: &[ServiceDocument],
    ) -> (HashMap<Name, Arc<Answer>>, Vec<String>) {
        let mut answers = HashMap::new();
        for workload in workloads {
            for endpoint in self.endpoints(workload) {
                let name = Name::Address(endpoint.address);
                answers.insert(name, Arc::new(Answer::Endpoint(endpoint)));
            }
        }
        for service in services {
            let answer = Arc::new(Answer::Service(self.service(service, workloads)));
            for address in service.addresses.iter().map(IpAddr::to_canonical) {
                if self.is_sole(address) {
                    answers.insert(Name::Address(address), Arc::clone(&answer));
                }
            }
            answers.insert(Name::Service(service.name.clone()), answer);
        }
        let mut conflicts = Vec::new();
        for (address, claimants) in self.conflicting(workloads, services) {
            let reason = format!("{address} is claimed by {}", claimants.join(" and by "));
            conflicts.push(format!(
                "{reason}: nobody gets it until one of them gives it up"
            ));
            answers.insert(Name::Address(address), Arc::new(Answer::Unknown { reason }));
        }
        (answers, conflicts)
    }

    fn endpoints<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = Endpoint> + 'a {
        let addresses = workload.addresses.iter().map(IpAddr::to_canonical);
        addresses
            .filter(|address| self.is_sole(*address))
            .map(|address| Endpoint {
                address,
                meshed: workload.tunnel_port.map(|tunnel_port| Meshed {
                    id: workload.id.clone(),
                    tunnel_port,
                }),
                namespace: workload.name.namespace.clone(),
                name: workload.name.name.clone(),
                healthy: true,
            })
    }

    fn service(&self, service: &ServiceDocument, workloads: &[Workload]) -> Service {
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
        Service {
            name: service.name.clone(),
            ports: ports.collect(),
            endpoints: selected
                .iter()
                .flat_map(|workload| self.endpoints(workload))
                .map(|endpoint| (endpoint.address, endpoint))
                .collect(),
            session_affinity: service.session_affinity,
        }
    }

    fn conflicting(
        &self,
        workloads: &[Workload],
        services: &[ServiceDocument],
    ) -> BTreeMap<IpAddr, Vec<String>> {
        let mut claimants: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
        for (address, positions) in &self.workloads {
            let names = positions
                .iter()
                .filter_map(|position| workloads.get(*position));
            let names = names.map(|workload| format!("Workload {}", workload.name));
            claimants.entry(*address).or_default().extend(names);
        }
        for (address, positions) in &self.services {
            let names = positions
                .iter()
                .filter_map(|position| services.get(*position));
            let names = names.map(|service| format!("Service {}", service.name));
            claimants.entry(*address).or_default().extend(names);
        }
        claimants.retain(|_, names| names.len() > 1);
        claimants
    }
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
