//! `mesh-lite policy documents`: what a cluster has, as the documents that tools take.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use mesh_lite_control_plane::cluster_documents::{ClusterDocuments, Scope, read_cluster};
use mesh_lite_proto::sidecar::DEFAULT_MESH_NAMESPACE;

use super::review::unless_unreadable;
use crate::terminal::{self, harmless};

const EXAMPLES: &str = "\
Examples:
  mkdir cluster && mesh-lite policy documents > cluster/all.yaml
  mesh-lite policy documents --to cluster   a file for each namespace
  mesh-lite policy documents -n shop        with what is for the whole mesh

Then, for a mesh that is PERMISSIVE (install without --strict):
  mesh-lite strict-ready --config-dir cluster --shipped permissive \\
    --records api.jsonl

It is the cluster of KUBECONFIG, asked with your own rights; nothing is changed.
Policy is there as it is written, each pod as a Workload, each service as a
Service. Pods that have ended, or have no address yet, are left out. With -n,
tools know nothing of pods elsewhere.

Exit codes: 0 written; 1 written, but something that tools would need could be
no document, which is said; 2 wrong usage, or the cluster can't be read, or it
is too much for one file (--to).";

/// Print policy, pods and services of a cluster as documents.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only this namespace, and policy that is for the whole mesh.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Policy in this namespace is for the whole mesh.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE, value_name = "NAMESPACE")]
    mesh_namespace: String,
    /// Write files into this directory, which is new or empty, and print nothing.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    unless_unreadable(|| {
        let scope = Scope {
            namespace: args.namespace.clone(),
            mesh_namespace: args.mesh_namespace.clone(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the runtime can't be started")?;
        let documents = runtime.block_on(read_cluster(None, &scope))?;
        match &args.to {
            Some(directory) => write(directory, &documents)?,
            None => {
                let text = documents.one_file().context(
                    "these are more documents than one file may hold: write several with --to \
                     DIR",
                )?;
                terminal::print(&format!("{}{text}", left_out(&documents)))?;
            }
        }
        Ok(judged(&documents))
    })
}

/// Comments, as the first lines.
fn left_out(documents: &ClusterDocuments) -> String {
    let lines = documents.left_out.iter().map(|one| {
        let (object, why) = (harmless(&one.object), harmless(&one.why));
        format!("# left out: {object}: {why}\n")
    });
    lines.collect()
}

fn write(directory: &Path, documents: &ClusterDocuments) -> anyhow::Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("{directory:?} can't be made"))?;
    let mut entries =
        fs::read_dir(directory).with_context(|| format!("{directory:?} can't be read"))?;
    anyhow::ensure!(
        entries.next().is_none(),
        "{directory:?} is not empty: what is in it could contradict the cluster; name a new one"
    );
    let mut files = documents.files().into_iter();
    // too much of it would make the first file larger than a file may be
    eprint!("{}", left_out(documents));
    files.try_for_each(|file| {
        let path = directory.join(&file.name);
        let mut options = OpenOptions::new();
        let written = options.write(true).create_new(true).open(&path);
        written
            .and_then(|mut open| open.write_all(file.text.as_bytes()))
            .with_context(|| format!("{path:?} can't be written"))
    })
}

fn judged(documents: &ClusterDocuments) -> ExitCode {
    let missed = documents.left_out.iter().filter(|one| one.is_missed);
    let mut code = ExitCode::SUCCESS;
    for one in missed {
        let (object, why) = (harmless(&one.object), harmless(&one.why));
        eprintln!("mesh-lite: {object} is missing: {why}");
        code = ExitCode::from(1);
    }
    code
}
