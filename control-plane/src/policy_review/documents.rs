//! Documents as they lie in files, read once, for tools.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{
        PolicySnapshot,
        document::{Loaded, load},
    },
    document::{self, DocumentError, Kind, RawDocument},
    identity::WorkloadId,
};
use spiffe::TrustDomain;

use crate::{
    outbound_rules::OutboundRules,
    policy_index::{PolicyIndex, Problem, Selected, ShippedDefaults},
    source::{
        claimable_addresses::ClaimableAddresses,
        directory_of_files::{documents_of, read_file, read_files},
        workload_document,
    },
    workload_index::{Workload, WorkloadName},
};

/// What a control plane is started with, as far as it changes what documents mean.
#[derive(Debug, Clone)]
pub struct ReviewSettings {
    pub trust_domain: TrustDomain,
    pub mesh_namespace: String,
    pub shipped: ShippedDefaults,
    pub outbound: OutboundRules,
}

/// A workload that a document names, as policy selects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewedWorkload {
    pub name: WorkloadName,
    pub id: WorkloadId,
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    /// Named ports.
    pub ports: BTreeMap<String, u16>,
    /// Whether a sidecar answers for it.
    pub meshed: bool,
    /// File and line of its document.
    pub file: Arc<str>,
    pub line: u32,
}

/// All documents of some files, and everything that is wrong with them.
#[derive(Debug)]
pub struct Documents {
    policies: PolicyIndex,
    workloads: Vec<ReviewedWorkload>,
    /// Policy documents that load, as they are written.
    loaded: Vec<(RawDocument, Loaded)>,
    errors: Vec<DocumentError>,
    /// By the name under which messages show a file.
    texts: BTreeMap<Arc<str>, Box<str>>,
}

impl Documents {
    /// Reads files, and every `.yaml` and `.yml` file of directories (not of those inside).
    /// What is wrong with documents is no error here: see [`Self::errors`].
    ///
    /// # Errors
    /// If a path can't be read at all.
    pub fn read(paths: &[PathBuf], settings: &ReviewSettings) -> Result<Self, ReadError> {
        let mut files = BTreeMap::new();
        for path in paths {
            read_path(path, &mut files)?;
        }
        Ok(Self::of(&files, settings))
    }

    /// As [`Self::read`], of files that are read already, by the names that messages shall show.
    pub(super) fn of(files: &BTreeMap<String, Vec<u8>>, settings: &ReviewSettings) -> Self {
        let documents: Vec<document::Documents> = files
            .iter()
            .map(|(name, bytes)| documents_of(name, &Ok(bytes.clone())))
            .collect();
        let mut policies = PolicyIndex::new(
            settings.trust_domain.clone(),
            &settings.mesh_namespace,
            settings.shipped,
        );
        policies.replace_all(&documents);
        let mut errors: Vec<DocumentError> = policies
            .problems()
            .flat_map(|problem| problem.errors.iter().cloned().collect::<Vec<_>>())
            .collect();
        let readable = || documents.iter().flat_map(|file| &file.readable);
        let workloads = workloads(readable(), settings, &mut errors);
        let loaded = readable()
            .filter(|document| document.key.kind.is_policy())
            .filter_map(|document| {
                let loaded = load(document, &settings.trust_domain).ok()?;
                Some((document.clone(), loaded))
            })
            .collect();
        errors.sort_by(|one, other| {
            (&one.place.file, one.place.at).cmp(&(&other.place.file, other.place.at))
        });
        let texts = files
            .iter()
            .map(|(name, bytes)| {
                let text = String::from_utf8_lossy(bytes).into_owned();
                (Arc::from(name.as_str()), text.into())
            })
            .collect();
        Self {
            policies,
            workloads,
            loaded,
            errors,
            texts,
        }
    }

    /// What decides who may connect to a workload of these documents.
    #[must_use]
    pub fn snapshot_for(&self, workload: &ReviewedWorkload, now: SystemTime) -> PolicySnapshot {
        let selected = Selected {
            namespace: &workload.name.namespace,
            labels: &workload.labels,
        };
        self.policies.snapshot_for(selected, now)
    }

    /// Everything that is wrong, in the order of files and lines.
    #[must_use]
    pub fn errors(&self) -> &[DocumentError] {
        &self.errors
    }

    /// What is in force in place of documents that can't be loaded.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.policies.problems()
    }

    /// Policy documents that load.
    pub fn loaded(&self) -> impl Iterator<Item = (&RawDocument, &Loaded)> {
        self.loaded.iter().map(|(raw, loaded)| (raw, loaded))
    }

    /// In the order of their names.
    #[must_use]
    pub fn workloads(&self) -> &[ReviewedWorkload] {
        &self.workloads
    }

    #[must_use]
    pub fn workload(&self, name: &WorkloadName) -> Option<&ReviewedWorkload> {
        self.workloads
            .iter()
            .find(|workload| workload.name == *name)
    }

    /// The one workload with this address; `None` if several claim it.
    #[must_use]
    pub fn workload_at(&self, address: IpAddr) -> Option<&ReviewedWorkload> {
        let address = address.to_canonical();
        let mut claimants = self.workloads.iter().filter(|workload| {
            let mut addresses = workload.addresses.iter();
            addresses.any(|one| one.to_canonical() == address)
        });
        match (claimants.next(), claimants.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }

    /// The text of a file, under the name that messages show.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<&str> {
        self.texts.get(file).map(|text| &**text)
    }

    /// Names of the files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(|name| &**name)
    }
}

fn workloads<'a>(
    documents: impl Iterator<Item = &'a RawDocument>,
    settings: &ReviewSettings,
    errors: &mut Vec<DocumentError>,
) -> Vec<ReviewedWorkload> {
    let claimable = ClaimableAddresses::new(&settings.mesh_namespace, &settings.outbound);
    let mut workloads: BTreeMap<WorkloadName, ReviewedWorkload> = BTreeMap::new();
    for document in documents {
        let read = match document.key.kind {
            Kind::Workload => {
                workload_document::workload(document, &settings.trust_domain, &claimable).map(Some)
            }
            Kind::Service => workload_document::service(document, &claimable).map(|_| None),
            _ => continue,
        };
        match read {
            Ok(Some(workload)) => {
                let reviewed = reviewed(workload, document);
                workloads.entry(reviewed.name.clone()).or_insert(reviewed);
            }
            Ok(None) => {}
            Err(of_document) => errors.extend(of_document.iter().cloned()),
        }
    }
    workloads.into_values().collect()
}

fn reviewed(workload: Workload, document: &RawDocument) -> ReviewedWorkload {
    ReviewedWorkload {
        name: workload.name,
        id: workload.id,
        addresses: workload.addresses,
        labels: workload.labels,
        ports: workload.ports,
        meshed: workload.tunnel_port.is_some(),
        file: Arc::clone(&document.file),
        line: document.line,
    }
}

/// Files under the names that messages shall show: the path as it was given.
fn read_path(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), ReadError> {
    let fail = |path: PathBuf, source| ReadError { path, source };
    if !path.is_dir() {
        let bytes = read_file(path).map_err(|source| fail(path.to_owned(), source))?;
        files.insert(path.to_string_lossy().into_owned(), bytes);
        return Ok(());
    }
    let found = read_files(path).map_err(|error| fail(path.to_owned(), io::Error::other(error)))?;
    for (name, content) in found {
        let path = path.join(name);
        let bytes = content.map_err(|error| fail(path.clone(), io::Error::other(error)))?;
        files.insert(path.to_string_lossy().into_owned(), bytes);
    }
    Ok(())
}

/// A path that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} can't be read: {source}; name files or directories with documents")]
pub struct ReadError {
    path: PathBuf,
    source: io::Error,
}
