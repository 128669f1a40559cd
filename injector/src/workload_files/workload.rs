//! Where in a document the pod is that it makes.

use super::{reading::Document, tree::Tree};

/// Kinds whose objects make pods, with the version of their API and the way to the pod in them.
const WORKLOADS: [(&str, &str, &[&str]); 10] = [
    ("v1", "Pod", &[]),
    ("v1", "PodTemplate", &["template"]),
    ("v1", "ReplicationController", &["spec", "template"]),
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("apps/v1", "ReplicaSet", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    (
        "batch/v1",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
    // gone from the API since 1.25, and still in many files
    (
        "batch/v1beta1",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
];
/// Lists of lists: nobody writes deeper ones.
const MAX_LISTS: usize = 4;

/// One object of a document and the pod that it makes.
pub(super) struct Pod<'a> {
    /// For messages, fit for a terminal.
    pub(super) place: String,
    pub(super) namespace: Option<String>,
    /// Of the object.
    pub(super) name: Option<String>,
    /// None if objects of its kind make none.
    pub(super) tree: Option<&'a mut Tree>,
}

/// All objects of a document, those in lists too.
pub(super) fn pods_mut<'a>(document: &'a mut Document, file: &str) -> Vec<Pod<'a>> {
    let mut pods = Vec::new();
    let line = document.line;
    collect(&mut document.root, file, line, MAX_LISTS, &mut pods);
    pods
}

fn collect<'a>(object: &'a mut Tree, file: &str, line: u64, lists: usize, pods: &mut Vec<Pod<'a>>) {
    let line = match object.line() {
        0 => line,
        line => line,
    };
    let is_list = object
        .text("kind")
        .is_some_and(|kind| kind == "List" || kind.ends_with("List"));
    if is_list && matches!(object.field("items"), Some(Tree::List(_))) && lists > 0 {
        let kind = object
            .text("kind")
            .and_then(|kind| kind.strip_suffix("List"));
        let kind = kind.filter(|kind| !kind.is_empty()).map(str::to_owned);
        let version = object.text("apiVersion").map(str::to_owned);
        if let Some(Tree::List(items)) = object.field_mut("items") {
            for item in items {
                match (&kind, &version, item.text("kind")) {
                    // as the API server writes lists: the items' kind stands in the list's
                    (Some(kind), Some(version), None) => {
                        pods.push(pod(item, version, kind, file, line));
                    }
                    _ => collect(item, file, line, lists - 1, pods),
                }
            }
        }
        return;
    }
    let version = object.text("apiVersion").unwrap_or_default().to_owned();
    let kind = object.text("kind").unwrap_or_default().to_owned();
    pods.push(pod(object, &version, &kind, file, line));
}

fn pod<'a>(object: &'a mut Tree, version: &str, kind: &str, file: &str, line: u64) -> Pod<'a> {
    let line = match object.line() {
        0 => line,
        line => line,
    };
    let metadata = object.field("metadata");
    let text = |key| {
        metadata
            .and_then(|metadata| metadata.text(key))
            .map(str::to_owned)
    };
    let (namespace, name) = (
        text("namespace"),
        text("name").or_else(|| text("generateName")),
    );
    let shown = match (&namespace, &name) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        _ => kind.to_owned(),
    };
    let way = WORKLOADS
        .into_iter()
        .find(|workload| (workload.0, workload.1) == (version, kind));
    let tree =
        way.and_then(|(_, _, way)| way.iter().try_fold(object, |tree, key| tree.field_mut(key)));
    Pod {
        place: format!("{file}:{line}: {shown}").escape_debug().to_string(),
        namespace,
        name,
        tree,
    }
}
