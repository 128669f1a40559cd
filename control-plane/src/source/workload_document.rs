//! `kind: Workload` and `kind: Service` documents: what a mesh without Kubernetes knows of its
//! workloads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_lite_proto::{
    document::{
        DocumentErrors, Entry, Node, RawDocument, RefusalClass, Value,
        fields::{Fields, Path},
    },
    identity::WorkloadId,
    sidecar,
    workload_directory::ServiceName,
};
use spiffe::TrustDomain;

use super::claimable_addresses::ClaimableAddresses;
use crate::workload_index::{
    ServiceDocument, ServicePortDocument, TargetPort, Workload, WorkloadName, is_name,
};

/// A workload has an address or two per network it is in, a service one per family.
const MAX_ADDRESSES: usize = 64;
/// Kubernetes' own limit is lower for what anybody writes by hand.
const MAX_PORTS: usize = 256;

/// # Errors
/// Everything that is wrong with the document, each with its line.
pub(crate) fn workload(
    document: &RawDocument,
    trust_domain: &TrustDomain,
    claimable: &ClaimableAddresses,
) -> Result<Workload, DocumentErrors> {
    read(document, claimable, |reader, spec| {
        reader.workload(spec, trust_domain)
    })
}

/// # Errors
/// Everything that is wrong with the document, each with its line.
pub(crate) fn service(
    document: &RawDocument,
    claimable: &ClaimableAddresses,
) -> Result<ServiceDocument, DocumentErrors> {
    read(document, claimable, |reader, spec| reader.service(spec))
}

/// Of a document whose header is wrong, what is wrong with its spec is said as well.
fn read<T>(
    document: &RawDocument,
    claimable: &ClaimableAddresses,
    of_spec: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
) -> Result<T, DocumentErrors> {
    let mut reader = Reader {
        document,
        claimable,
        fields: Fields::new(&document.file),
    };
    match (document.spec_node(), document.spec_beside_errors()) {
        (Ok(spec), _) => {
            reader.names();
            let read = of_spec(&mut reader, spec);
            reader.fields.finish(spec, read)
        }
        (Err(of_header), Some(spec)) => {
            let read = of_spec(&mut reader, spec);
            Err(match reader.fields.finish(spec, read) {
                Err(of_spec) => of_header.and(&of_spec),
                Ok(_) => of_header.clone(),
            })
        }
        (Err(of_header), None) => Err(of_header.clone()),
    }
}

/// Reads one document, and collects what is wrong with it.
struct Reader<'a> {
    document: &'a RawDocument,
    claimable: &'a ClaimableAddresses,
    fields: Fields<'a>,
}

impl Reader<'_> {
    fn names(&mut self) {
        let document = self.document;
        for name in [&document.key.namespace, &document.key.name] {
            if !is_name(name) {
                let problem = format!("{name:?} can't be a name or namespace here");
                let remedy = "use 1 to 63 lower-case letters, digits, dashes and dots";
                let class = RefusalClass::BadName;
                self.fields.error(class, document.name_at, problem, remedy);
            }
        }
    }

    /// `None` only with an error.
    fn workload(&mut self, spec: &Node, trust_domain: &TrustDomain) -> Option<Workload> {
        let path = Path::root("spec");
        let known = [
            "serviceAccount",
            "addresses",
            "labels",
            "ports",
            "tunnelPort",
            "meshed",
        ];
        self.fields.map(spec, &path, &known);
        let remedy = "a workload has serviceAccount and addresses";
        let account = self.fields.required(spec, &path, "serviceAccount", remedy);
        let id = account.and_then(|entry| self.identity(entry, trust_domain));
        let addresses = match self.fields.required(spec, &path, "addresses", remedy) {
            Some(entry) => self.addresses(&entry.value),
            None => Vec::new(),
        };
        let labels_path = path.key("labels");
        let mut labels = self.document.labels.clone();
        if let Some(entry) = spec.entry("labels") {
            labels.extend(self.fields.text_map(&entry.value, &labels_path));
        }
        let tunnel_port = self.tunnel_port(spec);
        let ports = match spec.entry("ports") {
            Some(entry) => self.named_ports(&entry.value),
            None => BTreeMap::new(),
        };
        let key = &self.document.key;
        Some(Workload {
            name: WorkloadName {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            },
            id: id?,
            addresses,
            labels,
            ports,
            tunnel_port,
            uid: None,
            node: None,
            host: None,
        })
    }

    fn identity(&mut self, account: &Entry, trust_domain: &TrustDomain) -> Option<WorkloadId> {
        let path = Path::root("spec.serviceAccount");
        let text = self.fields.text(&account.value, &path)?;
        match WorkloadId::new(trust_domain, &self.document.key.namespace, text) {
            Ok(id) => Some(id),
            Err(error) => {
                let class = RefusalClass::BadServiceAccount;
                let problem = format!("{path}: {error}");
                let remedy = "name a service account of the workload's namespace";
                self.fields.error(class, account.value.at, problem, remedy);
                None
            }
        }
    }

    /// `None`: the workload has no sidecar.
    fn tunnel_port(&mut self, spec: &Node) -> Option<u16> {
        let path = Path::root("spec");
        let meshed = match spec.entry("meshed") {
            Some(entry) => self.fields.boolean(&entry.value, &path.key("meshed")),
            None => Some(true),
        };
        let Some(entry) = spec.entry("tunnelPort") else {
            return (meshed != Some(false)).then_some(sidecar::TUNNEL_PORT);
        };
        if meshed == Some(false) {
            let problem = "a workload outside the mesh (meshed: false) has no tunnel port";
            let class = RefusalClass::Contradiction;
            self.fields
                .error(class, entry.at, problem, "remove one of the two");
        }
        self.fields.port(&entry.value, &path.key("tunnelPort"))
    }

    /// `None` only with an error.
    fn service(&mut self, spec: &Node) -> Option<ServiceDocument> {
        let path = Path::root("spec");
        let known = ["addresses", "ports", "selector", "sessionAffinity"];
        self.fields.map(spec, &path, &known);
        let addresses = match spec.entry("addresses") {
            // a service without an address of its own may say so by an empty list
            Some(entry) if entry.value.value != Value::List(Vec::new()) => {
                self.addresses(&entry.value)
            }
            _ => Vec::new(),
        };
        let remedy = "a service has ports and a selector";
        let selector = self.fields.required(spec, &path, "selector", remedy);
        let selector = selector.map(|entry| self.selector(entry));
        let ports = self.fields.required(spec, &path, "ports", remedy);
        let ports = ports.map(|entry| self.service_ports(&entry.value));
        let affinity = spec.entry("sessionAffinity").and_then(|entry| {
            let words = [("None", false), ("ClientIP", true)];
            let path = path.key("sessionAffinity");
            self.fields.one_of(&entry.value, &path, &words)
        });
        let key = &self.document.key;
        Some(ServiceDocument {
            name: ServiceName {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            },
            addresses,
            ports: ports?,
            selector: selector?,
            listed: None,
            session_affinity: affinity == Some(true),
            same_node_only: false,
        })
    }

    fn selector(&mut self, entry: &Entry) -> BTreeMap<String, String> {
        let node = &entry.value;
        if matches!(&node.value, Value::Map(entries) if entries.is_empty())
            || node.value == Value::Null
        {
            let problem =
                "spec.selector is empty, and would select every workload of the namespace";
            let remedy = "name a label that its workloads have";
            let class = RefusalClass::EmptyEntry;
            self.fields.error(class, node.at, problem, remedy);
            return BTreeMap::new();
        }
        self.fields.text_map(node, &Path::root("spec.selector"))
    }

    fn addresses(&mut self, node: &Node) -> Vec<IpAddr> {
        let path = Path::root("spec.addresses");
        let items = self.fields.list(node, &path);
        self.not_more_than(MAX_ADDRESSES, items, "addresses");
        let mut addresses = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = path.index(index);
            let Some(address) = self.fields.address(item, &path) else {
                continue;
            };
            if address.is_unspecified() || address.is_multicast() {
                let problem =
                    format!("{address} is no address that one workload or service can have");
                let class = RefusalClass::BadAddress;
                self.fields
                    .error(class, item.at, problem, "name its own address");
            } else if let Some((problem, remedy)) = self
                .claimable
                .objection(&self.document.key.namespace, address)
            {
                let class = RefusalClass::AddressNotClaimable;
                self.fields.error(class, item.at, problem, remedy);
            }
            addresses.push(address);
        }
        addresses
    }

    fn named_ports(&mut self, node: &Node) -> BTreeMap<String, u16> {
        let list = Path::root("spec.ports");
        let mut ports = BTreeMap::new();
        // as in Kubernetes, a list without entries is one that was not needed
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => (self.fields).list_of(node, &list, "{name: http, port: 8080}"),
        };
        self.not_more_than(MAX_PORTS, items, "ports");
        for (index, item) in items.iter().enumerate() {
            let path = list.index(index);
            self.fields.map(item, &path, &["name", "port"]);
            let remedy = "a port has name and port";
            let name = self.fields.required(item, &path, "name", remedy);
            let port = self.fields.required(item, &path, "port", remedy);
            let (Some(name), Some(port)) = (name, port) else {
                continue;
            };
            let number = self.fields.port(&port.value, &path.key("port"));
            let Some(text) = self.fields.text(&name.value, &path.key("name")) else {
                continue;
            };
            if ports.insert(text.to_owned(), number.unwrap_or(1)).is_some() {
                let problem = format!("there are two ports of the name {text:?}");
                let remedy = "give each port a name of its own";
                let class = RefusalClass::DuplicatePort;
                self.fields.error(class, name.value.at, problem, remedy);
            }
        }
        ports
    }

    fn service_ports(&mut self, node: &Node) -> Vec<ServicePortDocument> {
        let list = Path::root("spec.ports");
        let example = "{port: 80, targetPort: 8080}";
        let items = self.fields.list_of(node, &list, example);
        self.not_more_than(MAX_PORTS, items, "ports");
        let (mut numbers, mut ports) = (BTreeSet::new(), Vec::new());
        for (index, item) in items.iter().enumerate() {
            let path = list.index(index);
            self.fields
                .map(item, &path, &["name", "port", "targetPort"]);
            if let Some(name) = item.entry("name") {
                // for people
                self.fields.text(&name.value, &path.key("name"));
            }
            let remedy = "a port has port, and may have name and targetPort";
            let Some(entry) = self.fields.required(item, &path, "port", remedy) else {
                continue;
            };
            let Some(port) = self.fields.port(&entry.value, &path.key("port")) else {
                continue;
            };
            if !numbers.insert(port) {
                let problem = format!("port {port} is there twice");
                let class = RefusalClass::DuplicatePort;
                self.fields
                    .error(class, entry.value.at, problem, "remove one of them");
            }
            let target = match item.entry("targetPort") {
                Some(entry) => self.target_port(&entry.value, &path.key("targetPort")),
                None => Some(TargetPort::Number(port)),
            };
            ports.extend(target.map(|target| ServicePortDocument { port, target }));
        }
        ports
    }

    fn target_port(&mut self, node: &Node, path: &Path<'_>) -> Option<TargetPort> {
        match &node.value {
            Value::Text(name) if !name.is_empty() => Some(TargetPort::Name(name.clone())),
            _ => self.fields.port(node, path).map(TargetPort::Number),
        }
    }

    fn not_more_than(&mut self, max: usize, items: &[Node], what: &str) {
        if let Some(surplus) = items.get(max) {
            let problem = format!("there are more than {max} {what}");
            let class = RefusalClass::TooManyEntries;
            self.fields
                .error(class, surplus.at, problem, "split the document");
        }
    }
}

#[cfg(test)]
mod tests;
