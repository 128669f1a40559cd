//! Policy that names the port of a service where the workloads behind it are dialled at another.

use std::collections::{BTreeMap, BTreeSet};

use mesh_lite_proto::{
    authorization::{
        FieldName, FieldRef,
        document::{Loaded, PeerAuthentication, Selector},
    },
    document::{Place, Position, RawDocument, Value},
};

use super::{Documents, Findings, Oddity, PolicyDocument, ReviewedWorkload};
use crate::workload_index::{ServiceDocument, TargetPort};

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    if documents.services().is_empty() {
        return;
    }
    let ports = Ports::of(documents);
    for document in policies {
        of_rules(documents, document, &ports, findings);
    }
    for (raw, loaded) in documents.loaded() {
        if let Loaded::PeerAuthentication(means) = loaded {
            of_modes(documents, (raw, means), &ports, findings);
        }
    }
}

fn of_rules(
    documents: &Documents,
    document: &PolicyDocument<'_>,
    ports: &Ports<'_>,
    findings: &mut Findings,
) {
    let rules = document.policy().map_or(&[][..], |policy| &policy.rules);
    let selector = &document.document.selector;
    for (rule, of_rule) in rules.iter().enumerate() {
        for (entry, to) in of_rule.to.iter().enumerate() {
            for (field, named) in [
                (FieldName::Ports, &to.ports),
                (FieldName::NotPorts, &to.not_ports),
            ] {
                let field = FieldRef {
                    rule,
                    entry,
                    field,
                    line: to.line,
                };
                for (value, port) in named.iter().enumerate() {
                    let meant = ports.meant(documents, (document.raw, selector), *port, |port| {
                        named.contains(&port)
                    });
                    if let Some(meant) = meant {
                        let place = document.of_value(field, value);
                        meant.tell(*port, place, findings);
                    }
                }
            }
        }
    }
}

fn of_modes(
    documents: &Documents,
    (raw, means): (&RawDocument, &PeerAuthentication),
    ports: &Ports<'_>,
    findings: &mut Findings,
) {
    for port in means.ports.keys() {
        let meant = ports.meant(documents, (raw, &means.selector), *port, |port| {
            means.ports.contains_key(&port)
        });
        if let Some(meant) = meant {
            let place = Place::new(&raw.file, mode_at(raw, *port));
            meant.tell(*port, place, findings);
        }
    }
}

/// Where the mode of a port is written.
fn mode_at(raw: &RawDocument, port: u16) -> Position {
    let found = raw.spec_node().ok().and_then(|spec| {
        let Value::Map(ports) = &spec.entry("portLevelMtls")?.value.value else {
            return None;
        };
        let of_port = |entry: &&_| entry_port(entry) == Some(port);
        ports.iter().find(of_port).map(|entry| entry.at)
    });
    found.unwrap_or(raw.name_at)
}

fn entry_port(entry: &mesh_lite_proto::document::Entry) -> Option<u16> {
    entry.key.parse().ok()
}

impl Documents {
    /// Where a port is none of the workload's, but a service's in front of it: that service, and
    /// the port at which it dials the workload.
    #[must_use]
    pub fn service_port(&self, workload: &ReviewedWorkload, port: u16) -> Option<(String, u16)> {
        let services = self.services().iter();
        let services = services.filter(|one| one.name.namespace == workload.name.namespace);
        let dialled = Dialled::of(workload, &services.collect::<Vec<_>>());
        let (service, target) = dialled.by_service.get(&port)?;
        let name = &service.name;
        let meant = (format!("{}/{}", name.namespace, name.name), *target);
        (!dialled.own.contains(&port)).then_some(meant)
    }
}

/// Of each workload, at which ports it is dialled.
struct Ports<'a>(BTreeMap<&'a str, Vec<Dialled<'a>>>);

struct Dialled<'a> {
    workload: &'a ReviewedWorkload,
    /// Its own.
    own: BTreeSet<u16>,
    /// By a service's port that is another one than its own.
    by_service: BTreeMap<u16, (&'a ServiceDocument, u16)>,
}

/// What the writer means by a service's port.
struct Meant<'a> {
    service: &'a ServiceDocument,
    port: u16,
}

impl<'a> Ports<'a> {
    fn of(documents: &'a Documents) -> Self {
        let mut services: BTreeMap<&str, Vec<&ServiceDocument>> = BTreeMap::new();
        for service in documents.services() {
            let namespace = &*service.name.namespace;
            services.entry(namespace).or_default().push(service);
        }
        let mut ports: BTreeMap<&str, Vec<Dialled<'_>>> = BTreeMap::new();
        for workload in documents.workloads().iter().filter(|one| one.meshed) {
            let namespace = &*workload.name.namespace;
            let services = services.get(namespace).map_or(&[][..], Vec::as_slice);
            let dialled = Dialled::of(workload, services);
            ports.entry(namespace).or_default().push(dialled);
        }
        Self(ports)
    }

    /// The port that is meant, if this one is nobody's own for whom the document is.
    fn meant(
        &self,
        documents: &Documents,
        (raw, selector): (&RawDocument, &Selector),
        port: u16,
        is_named: impl Fn(u16) -> bool,
    ) -> Option<Meant<'a>> {
        let (all, own) = if documents.is_for_whole_mesh(raw) {
            (Some(self.0.values().flatten()), None)
        } else {
            (None, self.0.get(&*raw.key.namespace))
        };
        let workloads = all.into_iter().flatten().chain(own.into_iter().flatten());
        let mut meant = None;
        for dialled in workloads {
            if !documents.concerns(raw, selector, dialled.workload) {
                continue;
            }
            if dialled.own.contains(&port) {
                return None;
            }
            if let Some((service, own)) = dialled.by_service.get(&port)
                && !is_named(*own)
            {
                meant.get_or_insert(Meant {
                    service,
                    port: *own,
                });
            }
        }
        meant
    }
}

impl<'a> Dialled<'a> {
    fn of(workload: &'a ReviewedWorkload, services: &[&'a ServiceDocument]) -> Self {
        let mut own: BTreeSet<u16> = workload.ports.values().copied().collect();
        let mut by_service = BTreeMap::new();
        let of_it = services.iter().filter(|one| selects(one, workload));
        for service in of_it {
            for port in &service.ports {
                let target = match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    TargetPort::Name(name) => workload.ports.get(name).copied(),
                };
                let Some(target) = target else { continue };
                own.insert(target);
                if target != port.port {
                    by_service.insert(port.port, (*service, target));
                }
            }
        }
        Self {
            workload,
            own,
            by_service,
        }
    }
}

fn selects(service: &ServiceDocument, workload: &ReviewedWorkload) -> bool {
    let mut labels = service.selector.iter();
    !service.selector.is_empty()
        && labels.all(|(key, value)| workload.labels.get(key) == Some(value))
}

impl Meant<'_> {
    fn tell(&self, written: u16, place: Place, findings: &mut Findings) {
        let (service, port) = (&self.service.name, self.port);
        let problem = format!(
            "{written} is a port of the service {}/{}: policy is about the port that its workloads \
             are dialled at, which is {port}",
            service.namespace, service.name
        );
        findings.warn(
            Oddity::ServicePort,
            place,
            problem,
            format!("write {port} in place of {written}"),
        );
    }
}
