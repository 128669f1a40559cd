//! `mesh-lite uninject`: files without what injection added.

use std::{path::PathBuf, process::ExitCode};

use mesh_lite_injector::workload_files::Task;

const EXAMPLES: &str = "\
Examples:
  kubectl get deploy -n shop web -o yaml | mesh-lite uninject -f - | kubectl apply -f -
  mesh-lite inject -f web.yaml | mesh-lite uninject -f -      web.yaml again, without comments

It takes what `inject` or the webhook added, and nothing else; the application's probes become what
they were. What is not injected passes unchanged. Comments are lost.

Exit codes: 0 done, 1 the result can't be written, 2 wrong usage or a file can't be read.";

/// Print workloads as they were before the sidecar was added.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Manifests; `-` is standard input. May be repeated.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    crate::inject::run_task(&args.files, &Task::Uninject)
}
