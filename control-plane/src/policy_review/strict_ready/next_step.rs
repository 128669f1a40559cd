//! What makes STRICT true once nothing speaks against it.

use mesh_lite_proto::{
    authorization::{
        MutualTlsMode, SourceRef,
        document::{Loaded, PeerAuthentication},
    },
    document::{Kind, RawDocument},
};

use super::super::{Documents, ReviewedWorkload};

/// Names for the document; the first one that nobody has for something else.
const NAMES: [&str; 4] = ["default", "strict", "strict-mtls", "mesh-lite-strict"];

/// The document to put in force, and what it does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextStep {
    /// It is for the whole mesh, or for this namespace.
    pub namespace: Option<String>,
    /// `PeerAuthentication` that makes all of it STRICT.
    pub document: String,
    /// The document of its name, whose place it takes.
    pub in_place_of: Option<SourceRef>,
    /// Narrower documents, which go before it: where they say so it stays PERMISSIVE.
    pub still_permissive: Vec<SourceRef>,
}

/// For the workloads that were judged: all, or all of a namespace. `None` of the mesh's own
/// namespace: what is in it would be for workloads that nobody asked about.
pub(super) fn next_step(
    documents: &Documents,
    namespace: Option<&str>,
    judged: &[&ReviewedWorkload],
) -> Option<NextStep> {
    let mesh = &*documents.settings().mesh_namespace;
    if namespace == Some(mesh) {
        return None;
    }
    let target = namespace.unwrap_or(mesh);
    let all = || {
        documents.loaded().filter_map(|(raw, loaded)| match loaded {
            Loaded::PeerAuthentication(means) => Some((raw, means)),
            _ => None,
        })
    };
    let taken = |name: &str| {
        let mut all = all();
        all.find(|(raw, _)| *raw.key.namespace == *target && *raw.key.name == *name)
    };
    let is_free = |name: &&&str| {
        let taken = taken(name);
        taken.is_none_or(|(_, means)| means.selector.is_everybody() && means.ports.is_empty())
    };
    let name = NAMES.iter().find(is_free)?;
    let narrower = all().filter(|(raw, means)| {
        let is_wide = means.selector.is_everybody()
            && (documents.is_for_whole_mesh(raw) || namespace.is_some());
        says_permissive(means) && !is_wide && is_of(documents, (raw, means), judged)
    });
    Some(NextStep {
        namespace: namespace.map(str::to_owned),
        document: document(target, name),
        in_place_of: taken(name).map(|(_, means)| means.source.clone()),
        still_permissive: narrower.map(|(_, means)| means.source.clone()).collect(),
    })
}

fn document(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: {}\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  mtls: {{mode: STRICT}}\n",
        Kind::PeerAuthentication
    )
}

fn says_permissive(means: &PeerAuthentication) -> bool {
    let mut modes = means.mode.iter().chain(means.ports.values());
    modes.any(|mode| *mode == MutualTlsMode::Permissive)
}

fn is_of(
    documents: &Documents,
    (raw, means): (&RawDocument, &PeerAuthentication),
    judged: &[&ReviewedWorkload],
) -> bool {
    let mut judged = judged.iter();
    judged.any(|workload| documents.concerns(raw, &means.selector, workload))
}
