//! `--config-dir`: every `.yaml` and `.yml` file in one directory, read whole at each change. A file
//! whose content did not change is not taken apart again.
//!
//! Last good is kept per document. A file that can't be read keeps what it said before.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_lite_proto::document::{
    Dialect, DocumentError, DocumentErrors, DocumentKey, Documents, Kind, MAX_FILE, Place,
    Position, RawDocument, RefusalClass, UnreadableDocument,
};
use spiffe::TrustDomain;
use tokio::sync::watch;

use super::{
    claimable_addresses::ClaimableAddresses, not_mesh_wide::NotMeshWide, workload_document,
};
use crate::{
    condition::{Conditions, Part},
    directory_changes::DirectoryChanges,
    policy_index::{ChangedFile, Effect, PolicyIndex, Problem},
    workload_index::{ServiceDocument, Workload, WorkloadIndex},
};

/// A directory with more files than this is not a configuration directory.
const MAX_FILES: usize = 2048;

/// File name, and its bytes or why they can't be read.
pub(crate) type Files = BTreeMap<String, Result<Vec<u8>, String>>;

/// Reads the directory and publishes what its documents say.
pub(crate) struct DirectoryOfFiles {
    directory: PathBuf,
    trust_domain: TrustDomain,
    dialect: Dialect,
    claimable: ClaimableAddresses,
    /// `None`: it is not known, and whatever is read next is news.
    before: Option<Files>,
    /// What the files say.
    documents: BTreeMap<String, Arc<Documents>>,
    /// What is wrong with workloads and services.
    troubles: Vec<String>,
    workloads: LastGood<Workload>,
    services: LastGood<ServiceDocument>,
    not_mesh_wide: NotMeshWide,
    published: Published,
}

/// The two kinds of fact in a directory; this is their one writer.
pub(crate) struct Published {
    pub(crate) workloads: watch::Sender<Arc<WorkloadIndex>>,
    pub(crate) policies: watch::Sender<PolicyIndex>,
    pub(crate) conditions: Conditions,
}

impl DirectoryOfFiles {
    pub(crate) fn new(
        directory: PathBuf,
        trust_domain: TrustDomain,
        dialect: Dialect,
        claimable: ClaimableAddresses,
        published: Published,
    ) -> Self {
        Self {
            directory,
            trust_domain,
            dialect,
            claimable,
            before: None,
            documents: BTreeMap::new(),
            troubles: Vec::new(),
            workloads: LastGood::default(),
            services: LastGood::default(),
            not_mesh_wide: NotMeshWide::default(),
            published,
        }
    }

    /// # Errors
    /// If the directory can't be listed. What was published stays.
    pub(crate) fn read(&mut self) -> Result<(), DirectoryError> {
        let before = self.before.take();
        let files = read_files(&self.directory)?;
        if before.as_ref() != Some(&files) {
            self.publish(&files, &before.unwrap_or_default());
        }
        self.before = Some(files);
        Ok(())
    }

    /// Reads again at every change, until nobody listens.
    pub(crate) async fn follow(mut self) {
        let changes = DirectoryChanges::watch(std::slice::from_ref(&self.directory));
        loop {
            tokio::select! {
                () = changes.wait() => {}
                () = self.published.workloads.closed() => return,
            }
            // thousands of documents take a while, and other tasks want the thread
            let reading = tokio::task::spawn_blocking(move || {
                let result = self.read();
                (self, result)
            });
            let Ok((back, result)) = reading.await else {
                return;
            };
            self = back;
            if let Err(error) = result {
                let text = format!("{error}. What it said before stays in force");
                self.published.conditions.set(Part::Documents, vec![text]);
                // whatever is read next is news, and clears this
            }
        }
    }

    /// What was published stays in use until all of the next is made.
    fn publish(&mut self, files: &Files, before: &Files) {
        let (changed, may_be_workloads) = self.changed(files, before);
        let changed_files = changed.len();
        let mut policies = self.published.policies.borrow().clone();
        policies.replace_files(changed);
        let workloads = may_be_workloads.then(|| Arc::new(self.next_workloads(&policies)));
        tracing::info!(
            files = files.len(),
            changed = changed_files,
            workloads = self.workloads.0.len(),
            services = self.services.0.len(),
            "documents read"
        );
        let mut texts = self.troubles.clone();
        texts.extend(policies.problems().map(|problem| in_words(&problem)));
        self.not_mesh_wide.say(&policies);
        if let Some(workloads) = workloads {
            policies.set_workloads(Arc::clone(&workloads));
            self.published.workloads.send_replace(workloads);
        }
        self.published.policies.send_replace(policies);
        self.published.conditions.set(Part::Documents, texts);
    }

    /// The files that are not as they were, and whether workloads or services may be among what
    /// they say or said.
    fn changed(&mut self, files: &Files, before: &Files) -> (Vec<ChangedFile>, bool) {
        let mut changed: Vec<ChangedFile> = Vec::new();
        let mut may_be_workloads = false;
        let gone = self
            .documents
            .keys()
            .filter(|name| !files.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            let was = self.documents.remove(&name);
            may_be_workloads |= was.is_some_and(|was| may_have_workloads(&was));
            changed.push((name.into(), None));
        }
        for (name, content) in files {
            if before.get(name) == Some(content) {
                continue;
            }
            let now = Arc::new(documents_of(name, content, &self.dialect));
            may_be_workloads |= may_have_workloads(&now);
            let was = self.documents.insert(name.clone(), Arc::clone(&now));
            may_be_workloads |= was.is_some_and(|was| may_have_workloads(&was));
            changed.push((name.as_str().into(), Some(now)));
        }
        (changed, may_be_workloads)
    }

    fn next_workloads(&mut self, policies: &PolicyIndex) -> WorkloadIndex {
        let mut texts = Vec::new();
        let (trust_domain, claimable) = (&self.trust_domain, &self.claimable);
        let workload =
            |document: &RawDocument| workload_document::workload(document, trust_domain, claimable);
        let service = |document: &RawDocument| workload_document::service(document, claimable);
        let directory = Directory {
            documents: &self.documents,
            policies,
        };
        let workloads = self
            .workloads
            .take(&directory, Kind::Workload, workload, &mut texts);
        let services = self
            .services
            .take(&directory, Kind::Service, service, &mut texts);
        let before = Arc::clone(&self.published.workloads.borrow());
        let next = before.successor(workloads, services);
        texts.extend(next.conflicts().iter().cloned());
        self.troubles = texts;
        next
    }
}

/// What can't be read may be one.
fn may_have_workloads(documents: &Documents) -> bool {
    let mut kinds = documents.readable.iter().map(|raw| raw.key.kind);
    !documents.unreadable.is_empty() || kinds.any(|kind| !kind.is_policy())
}

/// A directory as it is now.
struct Directory<'a> {
    documents: &'a BTreeMap<String, Arc<Documents>>,
    /// Knows what unreadable documents may be.
    policies: &'a PolicyIndex,
}

pub(super) fn in_words(problem: &Problem) -> String {
    let what = problem
        .key
        .as_ref()
        .map_or_else(|| "a document".to_owned(), ToString::to_string);
    let effect = match problem.effect {
        Effect::LastGood => "its last good version stays in force",
        Effect::Denies => "until it is repaired it DENIES in its scope",
        Effect::NoPolicy => "it is passed over",
    };
    let line = problem.source.line;
    format!(
        "{what} ({}:{line}) can't be loaded: {effect}. {}",
        problem.source.file, problem.errors
    )
}

/// A file that can't be read counts as one unreadable document, so that what it said before
/// stays and, where nothing was said before, is denied.
pub(crate) fn documents_of(
    name: &str,
    content: &Result<Vec<u8>, String>,
    dialect: &Dialect,
) -> Documents {
    match content {
        Ok(bytes) => dialect.split(name, bytes),
        Err(reason) => {
            let file: Arc<str> = name.into();
            let place = Place::new(&file, Position { line: 1, column: 1 });
            let remedy = "let the control plane read it, or remove it";
            let class = RefusalClass::UnreadableFile;
            let errors = DocumentError::new(class, place, reason.clone(), remedy).into();
            let unreadable = UnreadableDocument::of_file(&file, 1, errors);
            Documents {
                readable: Vec::new(),
                unreadable: vec![unreadable],
            }
        }
    }
}

/// The last good version of each document of one kind.
struct LastGood<T>(BTreeMap<DocumentKey, T>);

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone> LastGood<T> {
    /// Takes a scan of the directory in and answers what holds now.
    fn take(
        &mut self,
        directory: &Directory<'_>,
        kind: Kind,
        load: impl Fn(&RawDocument) -> Result<T, DocumentErrors>,
        texts: &mut Vec<String>,
    ) -> Vec<T> {
        let of_kind = || {
            directory
                .documents
                .values()
                .flat_map(|file| &file.readable)
                .filter(|raw| raw.key.kind == kind)
        };
        let mut seen: BTreeMap<&DocumentKey, Vec<&RawDocument>> = BTreeMap::new();
        for document in of_kind() {
            seen.entry(&document.key).or_default().push(document);
        }
        // gone, unless an unreadable document of its file may be what became of it
        let may_be = |key: &DocumentKey| directory.policies.may_be_unreadable(key);
        self.0
            .retain(|key, _| seen.contains_key(key) || may_be(key));
        for (key, documents) in seen {
            let loaded = match documents.as_slice() {
                [only] => load(only).map_err(|errors| errors.to_string()),
                several => Err(defined_twice(several)),
            };
            match loaded {
                Ok(good) => {
                    self.0.insert(key.clone(), good);
                }
                Err(error) if self.0.contains_key(key) => {
                    texts.push(format!(
                        "{key} can't be loaded, its last good version stays. {error}"
                    ));
                }
                Err(error) => texts.push(format!("{key} can't be loaded. {error}")),
            }
        }
        self.0.values().cloned().collect()
    }
}

fn defined_twice(documents: &[&RawDocument]) -> String {
    let places: Vec<String> = documents
        .iter()
        .map(|document| format!("{}:{}", document.file, document.line))
        .collect();
    format!(
        "it is defined {} times: {}; remove all but one",
        places.len(),
        places.join(", ")
    )
}

pub(crate) fn read_files(directory: &Path) -> Result<Files, DirectoryError> {
    let fail = |error| DirectoryError::List {
        directory: directory.to_owned(),
        error,
    };
    let mut files = Files::new();
    for entry in fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') || !(name.ends_with(".yaml") || name.ends_with(".yml")) {
            continue;
        }
        if files.len() >= MAX_FILES {
            return Err(DirectoryError::TooMany(directory.to_owned()));
        }
        files.insert(name, read_file(&path).map_err(|error| error.to_string()));
    }
    Ok(files)
}

/// One byte more than is allowed, so that whoever splits it sees that it is too long.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_FILE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut content = Vec::new();
    if !fs::metadata(path)?.is_file() {
        // a pipe would keep us waiting for ever
        return Err(io::Error::other("it is not a file"));
    }
    fs::File::open(path)?
        .take(limit)
        .read_to_end(&mut content)?;
    Ok(content)
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    #[error("can't list the configuration directory {directory:?}: {error}")]
    List {
        directory: PathBuf,
        error: io::Error,
    },
    #[error("the configuration directory {0:?} holds more than {MAX_FILES} documents' files")]
    TooMany(PathBuf),
}

#[cfg(test)]
mod tests;
