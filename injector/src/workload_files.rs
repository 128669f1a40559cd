//! `inject` and `uninject` on files: the webhook's code on the pods that workloads are templates
//! of.
//!
//! ```text
//! text ── reading ──▶ documents ── workload: where is the pod? ──▶ inject ──▶ writing ──▶ text
//! ```
//! Nothing is written unless all of it can be: a file that is half injected would be applied.

use std::fmt;

pub use self::reading::ReadError;
use self::{
    reading::read,
    tree::Tree,
    workload::{Pod, pods_mut},
    writing::{Style, write},
};
use crate::{
    injection_decision::{Caller, Decided, Decision, Request, inject, without_injection},
    mesh_settings::MeshSettings,
    namespace_facts::NamespaceFacts,
};

mod reading;
mod tree;
mod workload;
mod writing;

/// All of one file, or of standard input: hundreds of manifests as large as they get.
pub const MAX_FILE: usize = 16 * 1024 * 1024;

/// What to do with pods.
pub enum Task<'a> {
    Inject {
        mesh: &'a MeshSettings,
        /// What is taken to hold in the pods' namespaces.
        namespace: &'a NamespaceFacts,
        /// Of documents that name none.
        default_namespace: &'a str,
    },
    /// Give back what was before.
    Uninject,
}

/// A file as it was read.
pub struct File<'a> {
    /// For messages.
    pub name: &'a str,
    pub text: &'a str,
}

/// What became of all files.
#[derive(Debug)]
pub struct Rewritten {
    /// The documents of all files, for `kubectl apply -f -`.
    pub text: String,
    pub reports: Vec<Report>,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// As in `web.yaml:12: Deployment shop/web`.
    pub place: String,
    pub outcome: Outcome,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Injected,
    Uninjected,
    /// It has a pod, which stays as it is.
    Skipped(String),
    /// It has no pod.
    NoPod,
}

/// Shown as one line, fit for a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        match &self.outcome {
            Outcome::Injected => f.write_str("injected"),
            Outcome::Uninjected => f.write_str("uninjected"),
            Outcome::Skipped(reason) => write!(f, "unchanged: {reason}"),
            Outcome::NoPod => f.write_str("unchanged: it makes no pods"),
        }
    }
}

/// Everything that is wrong, at once: a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Refused(Vec<String>);

/// Rewrites all documents of all files.
///
/// # Errors
/// If a file can't be read, or the webhook would refuse a pod: then nothing is to be applied.
pub fn rewrite(files: &[File<'_>], task: &Task<'_>) -> Result<Rewritten, RewriteError> {
    let mut documents = Vec::new();
    let mut reports = Vec::new();
    let mut refused = Vec::new();
    let mut style = Style::Json;
    for file in files {
        let (read, read_style) = read(file)?;
        if read_style == Style::Yaml {
            style = Style::Yaml;
        }
        for mut document in read {
            let pods = pods_mut(&mut document, file.name);
            for pod in pods {
                match rewrite_pod(pod, task) {
                    Ok(report) => reports.push(report),
                    Err(lines) => refused.extend(lines),
                }
            }
            documents.push(document.root);
        }
    }
    if !refused.is_empty() {
        return Err(Refused(refused).into());
    }
    Ok(Rewritten {
        text: write(&documents, style)?,
        reports,
    })
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(
        "the result can't be written so that it means the same when it is read: report this, with the document"
    )]
    Unwritable,
}

fn rewrite_pod(pod: Pod<'_>, task: &Task<'_>) -> Result<Report, Vec<String>> {
    let place = pod.place;
    let report = |outcome, warnings| Report {
        place: place.clone(),
        outcome,
        warnings,
    };
    let Some(tree) = pod.tree else {
        return Ok(report(Outcome::NoPod, Vec::new()));
    };
    let before = tree.to_value();
    let Task::Inject {
        mesh,
        namespace,
        default_namespace,
    } = task
    else {
        let after = without_injection(&before);
        if after == before {
            let never = "it is not injected".to_owned();
            return Ok(report(Outcome::Skipped(never), Vec::new()));
        }
        *tree = Tree::of(&after, Some(tree));
        return Ok(report(Outcome::Uninjected, Vec::new()));
    };
    let request = Request {
        namespace: pod
            .namespace
            .unwrap_or_else(|| (*default_namespace).to_owned()),
        name: pod.name,
        caller: Caller::CommandLine,
        dry_run: false,
    };
    let Decided { decision, warnings } = inject(&before, &request, mesh, namespace);
    let (after, outcome) = match decision {
        Decision::Inject(after) => (Some(after), Outcome::Injected),
        Decision::Skip(skipped) => {
            let reason = skipped.reason.to_string();
            (skipped.stamped, Outcome::Skipped(reason))
        }
        Decision::Refuse(refusals) => {
            let lines = refusals.iter().map(|refusal| format!("{place}: {refusal}"));
            return Err(lines.collect());
        }
    };
    if let Some(after) = after {
        *tree = Tree::of(&after, Some(tree));
    }
    Ok(report(outcome, warnings))
}

#[cfg(test)]
mod tests;
