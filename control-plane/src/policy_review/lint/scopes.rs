//! For whom documents are: selectors that select nobody, and scopes with several defaults.

use std::collections::BTreeSet;

use mesh_lite_proto::{
    authorization::{
        DefaultAction,
        document::{Loaded, Selector},
    },
    document::{DEFAULT_NAMESPACE, Place, Position, RawDocument, nearest_name::nearest},
};

use super::{Documents, Findings, Oddity, PolicyDocument, ReviewedWorkload};

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    let index = documents.policies();
    let not_mesh_wide: BTreeSet<_> = index.not_mesh_wide().map(|(key, _)| key).collect();
    for (raw, loaded) in documents.loaded() {
        let selector = match loaded {
            Loaded::AuthorizationPolicy(document) => &document.selector,
            Loaded::PeerAuthentication(document) => &document.selector,
            Loaded::Eviction(_) => continue,
        };
        // whether there are workloads for it or not: for all others it is not
        if not_mesh_wide.contains(&raw.key) {
            let (problem, help) = index.not_mesh_wide_in_words(&raw.key.namespace);
            let place = Place::new(&raw.file, raw.name_at);
            findings.warn(Oddity::NotMeshWide, place, problem, help);
        } else {
            selects_nothing(documents, raw, selector, findings);
        }
    }
    several_defaults(documents, policies, findings);
}

/// Only where documents name workloads at all.
fn selects_nothing(
    documents: &Documents,
    raw: &RawDocument,
    selector: &Selector,
    findings: &mut Findings,
) {
    let Some(workloads) = documents.all_workloads() else {
        return;
    };
    if workloads
        .iter()
        .any(|one| documents.concerns(raw, selector, one))
    {
        return;
    }
    let everybody = Selector::default();
    let in_scope: Vec<_> = workloads
        .iter()
        .filter(|workload| documents.concerns(raw, &everybody, workload))
        .collect();
    let (problem, help) = if in_scope.is_empty() {
        let mesh = &documents.settings().mesh_namespace;
        nobody_in_namespace(&raw.key.namespace, workloads, mesh)
    } else {
        nobody_with_labels(selector, &in_scope)
    };
    findings.warn(Oddity::SelectsNothing, selector_at(raw), problem, help);
}

/// Where the selector stands; the document, if it has none.
fn selector_at(raw: &RawDocument) -> Place {
    let at = raw
        .spec_node()
        .ok()
        .and_then(|spec| Some(spec.entry("selector")?.at));
    let start = Position {
        line: raw.line,
        column: 1,
    };
    Place::new(&raw.file, at.unwrap_or(start))
}

/// The problem and what helps.
fn nobody_in_namespace(
    namespace: &str,
    workloads: &[ReviewedWorkload],
    mesh: &str,
) -> (String, String) {
    let names: Vec<&str> = workloads
        .iter()
        .map(|one| one.name.namespace.as_str())
        .collect();
    let help = match nearest(namespace, &names) {
        Some(name) => format!("did you mean {name}?"),
        None if namespace == DEFAULT_NAMESPACE => {
            "state metadata.namespace: a document without one is in `default`".to_owned()
        }
        None => format!(
            "correct metadata.namespace, or add the workload; what is for the whole mesh is in {mesh}"
        ),
    };
    let problem =
        format!("no Workload document is in the namespace {namespace}, so this is for nobody");
    (problem, help)
}

/// The problem and what helps.
fn nobody_with_labels(selector: &Selector, in_scope: &[&ReviewedWorkload]) -> (String, String) {
    let wanted: Vec<String> = selector.labels().iter().map(label).collect();
    let has: Vec<String> = in_scope
        .iter()
        .flat_map(|one| one.labels.iter().map(label))
        .collect();
    let has: Vec<&str> = has.iter().map(String::as_str).collect();
    let meant = wanted
        .iter()
        .filter(|label| !has.contains(&label.as_str()))
        .find_map(|label| nearest(label, &has));
    let help = match meant {
        Some(label) => format!("did you mean {label}?"),
        None => "correct the labels, or those of the workload".to_owned(),
    };
    let problem = format!(
        "no workload in its scope has all of the labels {}",
        wanted.join(", ")
    );
    (problem, help)
}

fn label((key, value): (&String, &String)) -> String {
    format!("{key}: {value}")
}

/// Two defaults of one scope: DENY, whatever they say.
fn several_defaults(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    let defaults: Vec<_> = policies
        .iter()
        .filter_map(|document| Some((document, document.document.default_action.as_ref()?)))
        .collect();
    for (index, (document, (action, _))) in defaults.iter().enumerate() {
        let earlier = defaults.iter().take(index);
        let Some((_, (other_action, other))) = earlier
            .rev()
            .find(|(other, _)| share_a_scope(documents, document, other))
        else {
            continue;
        };
        let place = document.of_key("defaultAction");
        let problem = format!(
            "{other} states a default of the same scope, {other_action}: two of them mean DENY"
        );
        let help = "keep one of the two";
        if (*action, *other_action) == (DefaultAction::Deny, DefaultAction::Deny) {
            findings.note(Oddity::SeveralDefaults, place, problem, help);
        } else {
            findings.warn(Oddity::SeveralDefaults, place, problem, help);
        }
    }
}

/// Whether there is a workload, or there may be one, for which both count equally.
fn share_a_scope(
    documents: &Documents,
    one: &PolicyDocument<'_>,
    other: &PolicyDocument<'_>,
) -> bool {
    let (one_selector, other_selector) = (&one.document.selector, &other.document.selector);
    let (one_mesh, other_mesh) = (
        documents.is_for_whole_mesh(one.raw),
        documents.is_for_whole_mesh(other.raw),
    );
    let same_namespace =
        one.raw.key.namespace == other.raw.key.namespace || (one_mesh && other_mesh);
    match (one_selector.is_everybody(), other_selector.is_everybody()) {
        (true, true) => same_namespace && one_mesh == other_mesh,
        (false, false) => {
            let both = |workload| {
                documents.concerns(one.raw, one_selector, workload)
                    && documents.concerns(other.raw, other_selector, workload)
            };
            (same_namespace && one_selector == other_selector)
                || documents.workloads().iter().any(both)
        }
        _ => false,
    }
}
