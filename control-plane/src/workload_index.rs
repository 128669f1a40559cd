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

use claims::Claims;

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
}

/// A service as its document states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceDocument {
    pub(crate) name: ServiceName,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePortDocument>,
    /// Labels its workloads have, all of them. Never empty.
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) session_affinity: bool,
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
        workload.name.namespace == self.name.namespace
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
    answers: HashMap<Name, Arc<Answer>>,
    conflicts: Vec<String>,
    /// Oldest first.
    changes: Vec<Change>,
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
        let claims = Claims::of(&workloads, &services);
        let (answers, conflicts) = claims.into_answers(&workloads, &services);
        let changed = changed_names(&self.answers, &answers);
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
        Self {
            revision,
            workloads,
            answers,
            conflicts,
            changes,
        }
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
                reason: "no Workload and no Service document has this address".to_owned(),
            },
            Name::Service(_) => Answer::Unknown {
                reason: "there is no Service document of this name".to_owned(),
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

/// `::ffff:10.0.0.1` is `10.0.0.1`.
fn canonical(name: &Name) -> Name {
    match name {
        Name::Address(address) => Name::Address(address.to_canonical()),
        Name::Service(_) => name.clone(),
    }
}

fn changed_names(
    before: &HashMap<Name, Arc<Answer>>,
    after: &HashMap<Name, Arc<Answer>>,
) -> HashSet<Name> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let new = after
        .iter()
        .filter(|(name, answer)| before.get(*name) != Some(*answer));
    gone.chain(new.map(|(name, _)| name)).cloned().collect()
}

#[cfg(test)]
mod tests;
