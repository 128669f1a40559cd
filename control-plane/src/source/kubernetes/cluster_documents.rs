//! The objects of a cluster, read once, as files of documents: what tools look at that know no
//! cluster.

use std::{collections::BTreeMap, path::Path, time::Duration};

use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
};
use mesh_lite_proto::document::{MAX_DOCUMENTS, MAX_FILE};
use tokio::time;

pub use super::as_documents::LeftOut;
use super::{
    as_documents::{AsDocument, as_document},
    kinds::WatchedKind,
    watching::resource,
};
use crate::cluster::{ClusterError, connect};

/// One page of a list.
const DEADLINE: Duration = Duration::from_secs(30);
/// Ten thousand pods and their services are some megabytes; far beyond, nobody reads it whole.
const MAX_OBJECTS: usize = 200_000;
const KINDS: [WatchedKind; 5] = [
    WatchedKind::AuthorizationPolicy,
    WatchedKind::PeerAuthentication,
    WatchedKind::Eviction,
    WatchedKind::Service,
    WatchedKind::Pod,
];

/// What to read of a cluster.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Objects of this namespace, and policy of the mesh's. `None`: of all namespaces.
    pub namespace: Option<String>,
    /// Policy in it is for all namespaces.
    pub mesh_namespace: String,
}

/// Documents of a cluster.
#[derive(Debug, Default)]
pub struct ClusterDocuments {
    /// By namespace, each as YAML.
    documents: BTreeMap<String, Vec<String>>,
    pub left_out: Vec<LeftOut>,
}

/// Not more than one file of documents may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub text: String,
}

/// Why a cluster's objects could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{what} can't be listed: {source}")]
    List {
        what: String,
        source: Box<kube::Error>,
    },
    #[error("{what} can't be listed: no answer for {DEADLINE:?}")]
    NoAnswer { what: String },
    #[error("there are more than {MAX_OBJECTS} objects: read one namespace at a time")]
    TooMany,
}

/// Reads the cluster of `KUBECONFIG`, or the one that this process runs in; all that was asked for,
/// or nothing.
///
/// # Errors
/// If there is none, or any kind of objects can't be listed.
pub async fn read_cluster(
    kubeconfig: Option<&Path>,
    scope: &Scope,
) -> Result<ClusterDocuments, ReadError> {
    let client = connect(kubeconfig).await?;
    let mut documents = ClusterDocuments::default();
    let mut room = MAX_OBJECTS;
    for kind in KINDS {
        for namespace in scope.namespaces_of(kind) {
            list(&client, kind, namespace, &mut documents, &mut room).await?;
        }
    }
    Ok(documents)
}

impl Scope {
    /// `None`: all of them.
    fn namespaces_of(&self, kind: WatchedKind) -> Vec<Option<&str>> {
        let Some(asked) = self.namespace.as_deref() else {
            return vec![None];
        };
        let mesh = self.mesh_namespace.as_str();
        let is_for_all = kind.document().is_some() && asked != mesh;
        [Some(asked)]
            .into_iter()
            .chain(is_for_all.then_some(Some(mesh)))
            .collect()
    }
}

async fn list(
    client: &Client,
    kind: WatchedKind,
    namespace: Option<&str>,
    documents: &mut ClusterDocuments,
    room: &mut usize,
) -> Result<(), ReadError> {
    let resource = resource(kind);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let what = match namespace {
        Some(namespace) => format!("{} of namespace {namespace}", kind.plural()),
        None => kind.plural().to_owned(),
    };
    let mut parameters = ListParams::default().limit(kind.page());
    loop {
        let page = time::timeout(DEADLINE, api.list(&parameters)).await;
        let page = page.map_err(|_| ReadError::NoAnswer { what: what.clone() })?;
        let page = page.map_err(|error| ReadError::List {
            what: what.clone(),
            source: Box::new(error),
        })?;
        *room = room
            .checked_sub(page.items.len())
            .ok_or(ReadError::TooMany)?;
        for object in page.items {
            documents.add(kind, object);
        }
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => parameters = parameters.continue_token(&next),
            None => return Ok(()),
        }
    }
}

impl ClusterDocuments {
    fn add(&mut self, kind: WatchedKind, object: DynamicObject) {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        match as_document(kind, object) {
            Some(AsDocument::Text(text)) => {
                self.documents.entry(namespace).or_default().push(text);
            }
            Some(AsDocument::LeftOut(left_out)) => self.left_out.push(left_out),
            None => {}
        }
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.documents.values().map(Vec::len).sum()
    }

    /// All of them as one file. `None`: they are more than one file may hold.
    #[must_use]
    pub fn one_file(&self) -> Option<String> {
        let all = self.documents.values().flatten();
        let mut files = files_of("all", all).into_iter();
        match (files.next(), files.next()) {
            (None, _) => Some(String::new()),
            (Some(file), None) => Some(file.text),
            (Some(_), Some(_)) => None,
        }
    }

    /// A file for each namespace, or more where one is too small.
    #[must_use]
    pub fn files(&self) -> Vec<File> {
        let of_namespace =
            |(namespace, documents): (&String, &Vec<String>)| files_of(namespace, documents.iter());
        self.documents.iter().flat_map(of_namespace).collect()
    }
}

fn files_of<'a>(name: &str, documents: impl Iterator<Item = &'a String>) -> Vec<File> {
    const SEPARATOR: &str = "---\n";
    let (mut texts, mut count) = (Vec::<String>::new(), 0);
    for document in documents {
        let length = document.len().saturating_add(SEPARATOR.len());
        let fits = |text: &&mut String| {
            count < MAX_DOCUMENTS && text.len().saturating_add(length) <= MAX_FILE
        };
        if let Some(text) = texts.last_mut().filter(fits) {
            text.push_str(SEPARATOR);
            text.push_str(document);
            count = count.saturating_add(1);
        } else {
            texts.push(document.clone());
            count = 1;
        }
    }
    let named = |(index, text): (usize, String)| File {
        name: match index {
            0 => format!("{name}.yaml"),
            // no namespace has a dot in its name
            more => format!("{name}.{more}.yaml"),
        },
        text,
    };
    texts.into_iter().enumerate().map(named).collect()
}

#[cfg(test)]
mod tests;
