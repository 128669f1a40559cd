//! Documents as they lie in files, read once, for tools.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::{
        PolicySnapshot,
        document::{Loaded, TestOutcome, load, run_tests},
    },
    document::{
        self, Dialect, DocumentError, DocumentKey, Kind, Place, Position, RawDocument, RefusalClass,
    },
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
    workload_index::{ServiceDocument, Workload, WorkloadName},
};

/// What a control plane is started with, as far as it changes what documents mean.
#[derive(Debug, Clone)]
pub struct ReviewSettings {
    pub trust_domain: TrustDomain,
    pub mesh_namespace: String,
    /// Which versions of documents are taken.
    pub dialect: Dialect,
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
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Whether a sidecar answers for it.
    pub meshed: bool,
    /// File and line of its document.
    pub file: Arc<str>,
    pub line: u32,
    /// Where each of its ports is written, and its name, for whatever has no place of its own.
    pub(super) ports_at: BTreeMap<u16, Position>,
    pub(super) name_at: Position,
}

/// The tests of one policy, each with what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTests {
    pub policy: DocumentKey,
    pub file: Arc<str>,
    pub line: u32,
    pub outcomes: Vec<TestOutcome>,
}

/// All documents of some files, and everything that is wrong with them.
#[derive(Debug)]
pub struct Documents {
    settings: ReviewSettings,
    policies: PolicyIndex,
    workloads: Vec<ReviewedWorkload>,
    services: Vec<ServiceDocument>,
    /// The place of each address's workload; `None` if several claim it.
    by_address: BTreeMap<IpAddr, Option<usize>>,
    /// Policy documents that load, as they are written.
    loaded: Vec<(RawDocument, Loaded)>,
    /// Policy documents that don't.
    unloadable: Vec<RawDocument>,
    /// There may be workloads that these documents name and that can't be told: for what is wrong
    /// here.
    unknown_workloads: Option<Place>,
    errors: Vec<DocumentError>,
    /// By the name under which messages show a file.
    /// `None`: it is not to be shown.
    texts: BTreeMap<Arc<str>, Option<Box<str>>>,
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
        let mut documents = Self::of(&files, settings);
        for directory in paths.iter().filter(|path| path.is_dir()) {
            documents.hide_what_lies_elsewhere(directory, |name| {
                let path = Path::new(name);
                (path.parent() == Some(directory)).then(|| path.to_owned())
            });
        }
        Ok(documents)
    }

    /// Forgets the text of files that are links out of the directory. Links inside of it are how
    /// Kubernetes mounts a `ConfigMap`.
    fn hide_what_lies_elsewhere(
        &mut self,
        directory: &Path,
        in_directory: impl Fn(&str) -> Option<PathBuf>,
    ) {
        let home = directory.canonicalize();
        for (name, text) in &mut self.texts {
            let Some(path) = in_directory(name) else {
                continue;
            };
            let inside = match (&home, path.canonicalize()) {
                (Ok(home), Ok(target)) => target.starts_with(home),
                _ => false,
            };
            if !inside {
                *text = None;
            }
        }
    }

    /// Reads one directory as a control plane does: its files go by their names alone, as in the
    /// decisions of sidecars.
    ///
    /// # Errors
    /// If the directory or a file in it can't be read.
    pub fn read_directory(directory: &Path, settings: &ReviewSettings) -> Result<Self, ReadError> {
        let fail = |path: PathBuf, error| ReadError { path, error };
        let found = read_files(directory)
            .map_err(|error| fail(directory.to_owned(), io::Error::other(error)))?;
        let files = found.into_iter().map(|(name, content)| match content {
            Ok(bytes) => Ok((name, bytes)),
            Err(error) => Err(fail(directory.join(name), io::Error::other(error))),
        });
        let mut documents = Self::of(&files.collect::<Result<_, _>>()?, settings);
        documents.hide_what_lies_elsewhere(directory, |name| Some(directory.join(name)));
        Ok(documents)
    }

    /// As [`Self::read`], of files that are read already, by the names that messages shall show.
    pub(super) fn of(files: &BTreeMap<String, Vec<u8>>, settings: &ReviewSettings) -> Self {
        let documents: Vec<document::Documents> = files
            .iter()
            .map(|(name, bytes)| documents_of(name, &Ok(bytes.clone()), &settings.dialect))
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
        let of_policies = errors.len();
        let (workloads, services) = directory(readable(), settings, &mut errors);
        let unreadable = documents.iter().flat_map(|file| &file.unreadable);
        // where no document names a workload, none is missed
        let unreadable = unreadable
            .filter(|_| !workloads.is_empty())
            .filter_map(|document| document.errors.iter().next());
        let of_workloads = errors.get(of_policies..).unwrap_or_default();
        let unknown_workloads = of_workloads.iter().chain(unreadable).next();
        let unknown_workloads = unknown_workloads.map(|error| error.place.clone());
        let mut loaded = Vec::new();
        let mut unloadable = Vec::new();
        for document in readable().filter(|document| document.key.kind.is_policy()) {
            match load(document, &settings.trust_domain) {
                Ok(means) => loaded.push((document.clone(), means)),
                Err(_) => unloadable.push(document.clone()),
            }
        }
        errors.sort_by(|one, other| {
            (&one.place.file, one.place.at).cmp(&(&other.place.file, other.place.at))
        });
        let texts = files
            .iter()
            .map(|(name, bytes)| {
                let text = String::from_utf8_lossy(bytes).into_owned();
                (Arc::from(name.as_str()), Some(text.into()))
            })
            .collect();
        Self {
            settings: settings.clone(),
            policies,
            by_address: by_address(&workloads),
            workloads,
            services,
            loaded,
            unloadable,
            unknown_workloads,
            errors,
            texts,
        }
    }

    /// What a control plane is started with.
    #[must_use]
    pub const fn settings(&self) -> &ReviewSettings {
        &self.settings
    }

    /// What decides who may connect to a workload of these documents.
    #[must_use]
    pub fn snapshot_for(&self, workload: &ReviewedWorkload, now: SystemTime) -> PolicySnapshot {
        self.snapshot_of(&workload.name.namespace, &workload.labels, now)
    }

    /// The same, if the mesh were made with the other of the two shipped defaults: what is judged
    /// otherwise by it rests on them alone.
    #[must_use]
    pub fn snapshot_if_shipped_otherwise(
        &self,
        workload: &ReviewedWorkload,
        now: SystemTime,
    ) -> PolicySnapshot {
        let otherwise = match self.settings.shipped {
            ShippedDefaults::STRICT => ShippedDefaults::PERMISSIVE,
            _ => ShippedDefaults::STRICT,
        };
        let selected = Selected {
            namespace: &workload.name.namespace,
            labels: &workload.labels,
        };
        self.policies.snapshot_under(otherwise, selected, now)
    }

    /// Of a workload that no document names.
    pub(super) fn snapshot_of(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> PolicySnapshot {
        let selected = Selected { namespace, labels };
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

    /// What decides, for whoever looks for oddities in it.
    pub(super) const fn policies(&self) -> &PolicyIndex {
        &self.policies
    }

    /// Policy documents that load.
    pub fn loaded(&self) -> impl Iterator<Item = (&RawDocument, &Loaded)> {
        self.loaded.iter().map(|(raw, loaded)| (raw, loaded))
    }

    /// Runs the tests of every policy, in the order of files and lines. A policy whose tests fail
    /// is among them, also if another of its tests can't be read; one that can't be loaded for
    /// anything else is not.
    #[must_use]
    pub fn tests(&self) -> Vec<PolicyTests> {
        let of = |document: &RawDocument| PolicyTests {
            policy: document.key.clone(),
            file: Arc::clone(&document.file),
            line: document.line,
            outcomes: run_tests(document, &self.settings.trust_domain),
        };
        let loaded = self.loaded.iter().map(|(document, _)| document);
        let mut tests: Vec<PolicyTests> = loaded
            .chain(&self.unloadable)
            .map(of)
            .filter(|tests| !tests.outcomes.is_empty())
            .collect();
        tests.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        tests
    }

    /// Every workload of the documents; `None` if there are none, or some can't be told because
    /// their documents are wrong: whoever is not among them may be one of those.
    pub(super) fn all_workloads(&self) -> Option<&[ReviewedWorkload]> {
        let known = self.unknown_workloads.is_none() && !self.workloads.is_empty();
        known.then_some(&self.workloads)
    }

    /// Where it is said what keeps [`Self::all_workloads`] from being told, if there may be any.
    pub(super) const fn unknown_workloads(&self) -> Option<&Place> {
        self.unknown_workloads.as_ref()
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

    /// Those that can be read.
    pub(super) fn services(&self) -> &[ServiceDocument] {
        &self.services
    }

    /// The one workload with this address; `None` if several claim it.
    #[must_use]
    pub fn workload_at(&self, address: IpAddr) -> Option<&ReviewedWorkload> {
        let place = (*self.by_address.get(&address.to_canonical())?)?;
        self.workloads.get(place)
    }

    /// The text of a file, under the name that messages show; `None` if a link in a directory leads
    /// to it from elsewhere: whoever made the link may not be who reads what we say.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<&str> {
        self.texts.get(file)?.as_deref()
    }

    /// Names of the files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(|name| &**name)
    }
}

fn by_address(workloads: &[ReviewedWorkload]) -> BTreeMap<IpAddr, Option<usize>> {
    let mut by_address = BTreeMap::new();
    for (place, workload) in workloads.iter().enumerate() {
        for address in &workload.addresses {
            let claimant = by_address
                .entry(address.to_canonical())
                .or_insert(Some(place));
            if *claimant != Some(place) {
                *claimant = None;
            }
        }
    }
    by_address
}

/// Workloads and services.
fn directory<'a>(
    documents: impl Iterator<Item = &'a RawDocument>,
    settings: &ReviewSettings,
    errors: &mut Vec<DocumentError>,
) -> (Vec<ReviewedWorkload>, Vec<ServiceDocument>) {
    let claimable = ClaimableAddresses::new(&settings.mesh_namespace, &settings.outbound);
    let mut workloads: BTreeMap<WorkloadName, ReviewedWorkload> = BTreeMap::new();
    let mut services = Vec::new();
    let mut seen: BTreeMap<&DocumentKey, &RawDocument> = BTreeMap::new();
    let mut doubles: BTreeSet<&DocumentKey> = BTreeSet::new();
    for document in documents {
        if !document.key.kind.is_policy()
            && let Some(first) = seen.insert(&document.key, document)
        {
            errors.push(defined_twice(document, first));
            doubles.insert(&document.key);
        }
        let read = match document.key.kind {
            Kind::Workload => {
                workload_document::workload(document, &settings.trust_domain, &claimable).map(
                    |workload| {
                        let reviewed = reviewed(workload, document);
                        workloads.entry(reviewed.name.clone()).or_insert(reviewed);
                    },
                )
            }
            Kind::Service => workload_document::service(document, &claimable)
                .map(|service| services.push(service)),
            _ => continue,
        };
        if let Err(of_document) = read {
            errors.extend(of_document.iter().cloned());
        }
    }
    // a control plane takes neither of two
    for double in doubles {
        workloads.retain(|name, _| {
            double.kind != Kind::Workload
                || *name.namespace != *double.namespace
                || *name.name != *double.name
        });
    }
    (workloads.into_values().collect(), services)
}

fn defined_twice(document: &RawDocument, first: &RawDocument) -> DocumentError {
    let at = Position {
        line: document.line,
        column: 1,
    };
    let problem = format!(
        "{} is defined twice, first at {}:{}",
        document.key, first.file, first.line
    );
    let place = Place::new(&document.file, at);
    let remedy = "rename one of them or remove it; until then neither is taken";
    DocumentError::new(RefusalClass::DefinedTwice, place, problem, remedy)
}

fn reviewed(workload: Workload, document: &RawDocument) -> ReviewedWorkload {
    ReviewedWorkload {
        name: workload.name,
        id: workload.id,
        addresses: workload.addresses,
        labels: workload.labels,
        ports: workload.ports,
        annotations: document.annotations.clone(),
        meshed: workload.tunnel_port.is_some(),
        file: Arc::clone(&document.file),
        line: document.line,
        ports_at: ports_at(document),
        name_at: document.name_at,
    }
}

fn ports_at(document: &RawDocument) -> BTreeMap<u16, Position> {
    let ports = document
        .spec_node()
        .ok()
        .and_then(|spec| spec.entry("ports"));
    let items = match ports.map(|entry| &entry.value.value) {
        Some(document::Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    let at = items.iter().filter_map(|item| {
        let number = &item.entry("port")?.value;
        let port = match number.value {
            document::Value::Integer(number) => u16::try_from(number).ok()?,
            _ => return None,
        };
        Some((port, number.at))
    });
    at.collect()
}

/// Files under the names that messages shall show: the path as it was given.
fn read_path(path: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), ReadError> {
    let fail = |path: PathBuf, error| ReadError { path, error };
    if !path.is_dir() {
        let bytes = read_file(path).map_err(|error| fail(path.to_owned(), error))?;
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
#[error("{path:?} can't be read: {error}; name files or directories with documents")]
pub struct ReadError {
    path: PathBuf,
    error: io::Error,
}
