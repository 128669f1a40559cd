//! Who has which address: one immutable snapshot of every workload and service, which answers
//! names and says which names' answers changed since an earlier revision.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use mesh_lite_proto::{
    identity::WorkloadId,
    workload_directory::{Answer, MeshSettings, Name, ServiceName},
};
use serde::{Deserialize, Serialize};

mod claims;
mod gone_pods;

use claims::Claims;
use gone_pods::GonePods;

/// Revisions whose changes are remembered. A stream is woken at each; one that slept longer
/// compares all its names.
const REMEMBERED_REVISIONS: usize = 64;
/// A revision that changed more names than this is remembered as "everything".
const MAX_REMEMBERED_NAMES: usize = 4096;

/// `namespace/name` of a Workload document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for WorkloadName {
    type Err = InvalidWorkloadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidWorkloadName(text.chars().take(100).collect());
        let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
        if !is_name(namespace) || !is_name(name) {
            return Err(invalid());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a workload: write NAMESPACE/NAME, as its Workload document does, each of 1 to 63 lower-case letters, digits, dashes and dots"
)]
pub struct InvalidWorkloadName(String);

/// As Kubernetes names things, and short enough for a certificate's common name.
pub(crate) fn is_name(text: &str) -> bool {
    const MAX: usize = 63;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends =
        text.bytes().next().is_some_and(inner) && text.bytes().next_back().is_some_and(inner);
    ends && text.len() <= MAX
        && text
            .bytes()
            .all(|byte| inner(byte) || byte == b'-' || byte == b'.')
}

/// A workload as its document states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) name: WorkloadName,
    pub(crate) id: WorkloadId,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Named ports, which a service's targetPort may name.
    pub(crate) ports: BTreeMap<String, u16>,
    /// `None`: a workload without a sidecar.
    pub(crate) tunnel_port: Option<u16>,
    /// Of a pod: another one of the same name has another. `None`: a Workload document.
    pub(crate) uid: Option<Box<str>>,
    /// The node that a pod runs on.
    pub(crate) node: Option<Arc<str>>,
    /// `None`: DNS has no name for it alone.
    pub(crate) host: Option<Box<PodHost>>,
}

/// Cluster DNS calls a pod `HOSTNAME.SUBDOMAIN.NAMESPACE.svc` where a headless service of its
/// namespace has the subdomain's name and selects it, as those of a StatefulSet do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodHost {
    pub(crate) hostname: String,
    pub(crate) subdomain: String,
}

/// A service as its document states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceDocument {
    pub(crate) name: ServiceName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePortDocument>,
    /// Labels its workloads have, all of them. Empty: it selects nobody.
    pub(crate) selector: BTreeMap<String, String>,
    /// `None`: its endpoints are the workloads that it selects.
    pub(crate) listed: Option<Vec<ListedEndpoint>>,
    pub(crate) session_affinity: bool,
    /// A caller gets only the endpoints on its own node.
    pub(crate) same_node_only: bool,
}

/// An endpoint of a service as the cluster lists it: an address and ports, never an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedEndpoint {
    pub(crate) address: IpAddr,
    /// By port of the service, its own.
    pub(crate) ports: BTreeMap<u16, u16>,
    pub(crate) node: Option<Arc<str>>,
    /// If no workload and no node has the address: it is somebody outside the mesh, rather than a
    /// pod that is not known yet.
    pub(crate) may_be_stranger: bool,
}

/// Everything that has an address or a name.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) workloads: Vec<Workload>,
    pub(crate) services: Vec<ServiceDocument>,
    /// Addresses of the nodes' own networks, and whose they are: kubelets and pods without a
    /// network of their own answer there, nobody of the mesh.
    pub(crate) nodes: BTreeMap<IpAddr, Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePortDocument {
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
}

/// A port of the workloads behind a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    /// As the workloads name it; all of them must mean the same number by it.
    Name(String),
}

impl ServiceDocument {
    fn selects(&self, workload: &Workload) -> bool {
        !self.selector.is_empty()
            && workload.name.namespace == self.name.namespace
            && self
                .selector
                .iter()
                .all(|(key, value)| workload.labels.get(key) == Some(value))
    }
}

/// Revision, names whose answers changed; `None`: too many to remember.
type Change = (u64, Option<Arc<HashSet<Name>>>);

#[derive(Debug, Clone, Default)]
pub(crate) struct WorkloadIndex {
    revision: u64,
    workloads: BTreeMap<WorkloadName, Workload>,
    /// The services that select workloads.
    selecting: Vec<ServiceDocument>,
    answers: HashMap<Name, Arc<Answer>>,
    /// Nodes of the endpoints of services that are answered node by node.
    same_node_only: HashMap<ServiceName, HashMap<IpAddr, Arc<str>>>,
    conflicts: Vec<String>,
    /// Oldest first.
    changes: Vec<Change>,
    gone: GonePods,
}

/// What a stream that saw an earlier revision has to look at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Changes {
    Names(Vec<Arc<HashSet<Name>>>),
    Everything,
}

impl Changes {
    pub(crate) fn concern(&self, name: &Name) -> bool {
        match self {
            Self::Names(sets) => sets.iter().any(|set| set.contains(name)),
            Self::Everything => true,
        }
    }
}

impl WorkloadIndex {
    /// Nothing yet. Revisions count from here; the time of the start makes them grow over a
    /// restart too.
    pub(crate) fn beginning_at(revision: u64) -> Self {
        Self {
            revision,
            ..Self::default()
        }
    }

    /// The snapshot after this one. The same facts give the same answers and no change.
    pub(crate) fn successor(
        &self,
        workloads: Vec<Workload>,
        services: Vec<ServiceDocument>,
    ) -> Self {
        self.successor_of(Facts {
            workloads,
            services,
            nodes: BTreeMap::new(),
        })
    }

    /// As [`Self::successor`], for what a cluster knows.
    pub(crate) fn successor_of(&self, facts: Facts) -> Self {
        let (mut answers, conflicts) = Claims::of(&facts).answers(&facts);
        let same_node_only = nodes_of_local_services(&facts.services);
        let Facts {
            workloads,
            mut services,
            ..
        } = facts;
        services.retain(|service| !service.selector.is_empty());
        let changed = changed_names(&self.answers, &mut answers);
        let revision = self.revision.saturating_add(1);
        let mut changes = self.changes.clone();
        let remembered = (changed.len() <= MAX_REMEMBERED_NAMES).then(|| Arc::new(changed));
        changes.push((revision, remembered));
        let surplus = changes.len().saturating_sub(REMEMBERED_REVISIONS);
        changes.drain(..surplus);
        let workloads = workloads
            .into_iter()
            .map(|workload| (workload.name.clone(), workload))
            .collect();
        self.gone.take(
            uids_not_in(&self.workloads, &workloads),
            uids_not_in(&workloads, &self.workloads),
        );
        Self {
            revision,
            workloads,
            selecting: services,
            answers,
            same_node_only,
            conflicts,
            changes,
            gone: self.gone.clone(),
        }
    }

    /// Whether the pod with this uid was there and is no more. One that is not known yet is not
    /// gone.
    pub(crate) fn is_gone(&self, uid: &str) -> bool {
        self.gone.has(uid)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn workload(&self, name: &WorkloadName) -> Option<&Workload> {
        self.workloads.get(name)
    }

    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.values()
    }

    /// The services of its namespace that select the workload, by name. Empty if there is no such
    /// workload.
    pub(crate) fn services_selecting(
        &self,
        name: &WorkloadName,
    ) -> impl Iterator<Item = &ServiceDocument> {
        self.workload(name).into_iter().flat_map(|workload| {
            self.selecting
                .iter()
                .filter(move |service| service.selects(workload))
        })
    }

    /// What a caller on this node is answered: of a service that keeps to the caller's node, the
    /// endpoints there; none to a caller whose node is not known.
    pub(crate) fn answer_on_node(
        &self,
        name: &Name,
        settings: &MeshSettings,
        node: Option<&str>,
    ) -> Arc<Answer> {
        let answer = self.answer(name, settings);
        let Answer::Service(service) = &*answer else {
            return answer;
        };
        let Some(nodes) = self.same_node_only.get(&service.name) else {
            return answer;
        };
        let is_near =
            |address: &IpAddr| node.is_some() && nodes.get(address).map(|at| &**at) == node;
        let mut near = service.clone();
        near.endpoints.retain(|address, _| is_near(address));
        Arc::new(Answer::Service(near))
    }

    /// Addresses that more than one document claims, in words.
    pub(crate) fn conflicts(&self) -> &[String] {
        &self.conflicts
    }

    pub(crate) fn answer(&self, name: &Name, settings: &MeshSettings) -> Arc<Answer> {
        if let Some(answer) = self.answers.get(&canonical(name)) {
            return Arc::clone(answer);
        }
        Arc::new(match name {
            Name::Address(address) if !settings.is_inside(*address) => Answer::Outside,
            Name::Address(_) => Answer::Unknown {
                reason: "no workload and no service has this address".to_owned(),
            },
            Name::Service(_) => Answer::Unknown {
                reason: "there is no service of this name with an address or endpoints".to_owned(),
            },
        })
    }

    pub(crate) fn changes_since(&self, revision: u64) -> Changes {
        let oldest = self
            .changes
            .first()
            .map_or(self.revision, |(first, _)| *first);
        if revision.saturating_add(1) < oldest {
            return Changes::Everything;
        }
        let since = self
            .changes
            .iter()
            .filter(|(changed, _)| *changed > revision);
        since
            .map(|(_, names)| names.clone())
            .collect::<Option<Vec<_>>>()
            .map_or(Changes::Everything, Changes::Names)
    }
}

/// Uids of pods that the others don't have under the same name.
fn uids_not_in<'a>(
    workloads: &'a BTreeMap<WorkloadName, Workload>,
    others: &'a BTreeMap<WorkloadName, Workload>,
) -> impl Iterator<Item = &'a str> {
    workloads.iter().filter_map(|(name, workload)| {
        let uid = workload.uid.as_deref()?;
        let other = others.get(name).and_then(|other| other.uid.as_deref());
        (other != Some(uid)).then_some(uid)
    })
}

fn nodes_of_local_services(
    services: &[ServiceDocument],
) -> HashMap<ServiceName, HashMap<IpAddr, Arc<str>>> {
    let local = services.iter().filter(|service| service.same_node_only);
    local
        .map(|service| {
            let endpoints = service.listed.iter().flatten();
            let nodes = endpoints.filter_map(|endpoint| {
                Some((endpoint.address.to_canonical(), endpoint.node.clone()?))
            });
            (service.name.clone(), nodes.collect())
        })
        .collect()
}

/// `::ffff:10.0.0.1` is `10.0.0.1`.
fn canonical(name: &Name) -> Name {
    match name {
        Name::Address(address) => Name::Address(address.to_canonical()),
        Name::Service(_) => name.clone(),
    }
}

/// The names whose answers differ. Those that don't are shared from here on: a snapshot costs what
/// changed, and an answer that a stream sent is the one that later snapshots hold.
fn changed_names(
    before: &HashMap<Name, Arc<Answer>>,
    after: &mut HashMap<Name, Arc<Answer>>,
) -> HashSet<Name> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut changed: HashSet<Name> = gone.cloned().collect();
    for (name, answer) in after {
        match before.get(name) {
            Some(same) if same == answer => *answer = Arc::clone(same),
            _ => {
                changed.insert(name.clone());
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests;
