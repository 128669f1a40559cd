//! `mesh-lite inject`: what the webhook would make of the pods in files.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use mesh_lite_injector::{
    namespace_facts::NamespaceFacts,
    workload_files::{self, MAX_FILE, RewriteError, Rewritten, Task, rewrite},
};
use mesh_lite_proto::kubernetes::{INJECT_ENABLED, INJECT_LABEL};

use crate::mesh_settings::MeshArgs;

const EXAMPLES: &str = "\
Examples:
  mesh-lite inject -f web.yaml | kubectl apply -f -
  kubectl get deploy -n shop -o yaml | mesh-lite inject -f - | kubectl apply -f -
  mesh-lite inject -f web.yaml --namespace-labels pod-security.kubernetes.io/enforce=baseline

Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, PodTemplates, Jobs
and CronJobs, also in Lists, in YAML or JSON; other kinds pass unchanged. Order and unknown fields
are kept, comments are lost. What the webhook would refuse is refused in the same words, and then
nothing is printed. What became of each document is said on stderr.

Pods in a labelled namespace need none of this. Where pods are made from what this prints in a
labelled namespace, the webhook brings them to what it would have made itself.

Exit codes: 0 done, 1 a pod is refused, 2 wrong usage or a file can't be read.";

/// Print workloads with the sidecar in their pods, as the webhook would add it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Manifests; `-` is standard input. May be repeated.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Of documents that name none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Labels of the pods' namespaces. `mesh-lite.io/inject=enabled` unless said otherwise.
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE")]
    namespace_labels: Vec<(String, String)>,
    /// An annotation of the pods' namespaces, as config.mesh-lite.io/drain-delay=5s. May be
    /// repeated.
    #[arg(long = "namespace-annotation", value_parser = pair, value_name = "KEY=VALUE")]
    namespace_annotations: Vec<(String, String)>,
    #[command(flatten)]
    mesh: MeshArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let labels = args.namespace_labels.iter();
    let labels = [(INJECT_LABEL, INJECT_ENABLED)]
        .into_iter()
        .chain(labels.map(|(key, value)| (key.as_str(), value.as_str())));
    let annotations = args.namespace_annotations.iter();
    let annotations = annotations.map(|(key, value)| (key.as_str(), value.as_str()));
    let namespace = NamespaceFacts::new(labels, annotations);
    let mesh = args.mesh.settings()?;
    let task = Task::Inject {
        mesh: &mesh,
        namespace: &namespace,
        default_namespace: &args.namespace,
    };
    run_task(&args.files, &task)
}

/// Reads the files, does what is to be done, prints.
pub(crate) fn run_task(files: &[PathBuf], task: &Task<'_>) -> anyhow::Result<ExitCode> {
    let texts = match files
        .iter()
        .map(|path| read(path))
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(texts) => texts,
        Err(error) => return Ok(failed(&format!("{error:#}"), 2)),
    };
    let files: Vec<workload_files::File<'_>> = texts
        .iter()
        .map(|(name, text)| workload_files::File { name, text })
        .collect();
    match rewrite(&files, task) {
        Ok(rewritten) => print(&rewritten),
        Err(error @ RewriteError::Read(_)) => Ok(failed(&error.to_string(), 2)),
        Err(error) => Ok(failed(&error.to_string(), 1)),
    }
}

fn failed(text: &str, code: u8) -> ExitCode {
    for line in text.lines() {
        eprintln!("mesh-lite: {line}");
    }
    ExitCode::from(code)
}

fn print(rewritten: &Rewritten) -> anyhow::Result<ExitCode> {
    for report in &rewritten.reports {
        eprintln!("{report}");
        for warning in &report.warnings {
            eprintln!("{}: {warning}", report.place);
        }
    }
    match io::stdout().lock().write_all(rewritten.text.as_bytes()) {
        // whoever reads has seen enough
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        written => {
            written.context("the result can't be printed")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn read(path: &Path) -> anyhow::Result<(String, String)> {
    let limit = u64::try_from(MAX_FILE)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut text = String::new();
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            eprintln!("mesh-lite: waits for manifests on standard input");
        }
        let read = io::stdin().lock().take(limit).read_to_string(&mut text);
        read.context("standard input can't be read")?;
        return Ok(("standard input".to_owned(), text));
    }
    let name = path.display().to_string().escape_debug().to_string();
    File::open(path)
        .and_then(|file| file.take(limit).read_to_string(&mut text))
        .with_context(|| format!("{name} can't be read"))?;
    Ok((name, text))
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
