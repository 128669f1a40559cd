//! `mesh-lite policy suggest`: the least policy that lets recorded connections through.

use std::{path::PathBuf, process::ExitCode};

use mesh_lite_control_plane::{
    clock,
    policy_review::{
        Documents, Recorded, Suggestion, suggest, workloads_by_recording, workloads_of,
    },
};

use super::{
    DocumentArgs,
    review::{connections, named, thousands, unless_unreadable},
};
use crate::{
    recordings::RecordingArgs,
    terminal::{self, harmless},
};

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy suggest --config-dir documents    of this pod's sidecar
  mesh-lite policy suggest --config-dir documents --records api-1.jsonl \\
    > api.yaml
  mesh-lite policy replay --config-dir api.yaml --config-dir workloads.yaml \\
    --records api-1.jsonl

The policy goes to standard output, and what it does to what was recorded to
standard error. It holds for the labels of the workloads; --config-dir tells
them. Policy in --config-dir is not looked at: what is suggested is meant to
stand in its place.

Exit codes: 0 written, and a workload that nobody called needs none; 1 written,
but a caller that was denied gets in by another workload's labels, or a
connection that is open would be cut, or the policy of a workload is commented
out, as it would be for others too; 2 wrong usage, or documents or recordings
can't be read, or nobody knows of which workload a recording is.";

/// Write the least policy that lets recorded connections through.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Directory or file with documents, for the workloads' labels; may be repeated.
    #[arg(long, env = "MESH_LITE_CONFIG_DIR", value_delimiter = ',')]
    config_dir: Vec<PathBuf>,
    #[command(flatten)]
    documents: DocumentArgs,
    #[command(flatten)]
    recordings: RecordingArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    unless_unreadable(|| {
        let documents = args.documents.read(&args.config_dir)?;
        let recordings = args.recordings.read()?;
        let named = named(&recordings);
        let settings = args.documents.settings();
        let by_recording = if args.config_dir.is_empty() {
            workloads_by_recording(&named, &settings.trust_domain)?
        } else {
            Vec::new()
        };
        let recorded = if args.config_dir.is_empty() {
            let pairs = named.iter().zip(&by_recording);
            pairs
                .map(|(one, workload)| Recorded {
                    name: one.name,
                    recording: one.recording,
                    workload,
                })
                .collect()
        } else {
            workloads_of(&documents, &named, clock::now())?
        };
        let suggestion = suggest(&documents, &recorded, &settings, clock::now())?;
        terminal::print(&suggestion.text)?;
        eprint!("{}", described(&suggestion, &documents));
        Ok(ExitCode::from(u8::from(!suggestion.is_whole())))
    })
}

/// What a replay of the recordings under the policy gives.
fn described(suggestion: &Suggestion, documents: &Documents) -> String {
    let mut lines = vec![format!(
        "Replayed under this policy: {} let through again, {} denied again; {} would be denied",
        connections(suggestion.kept),
        thousands(suggestion.denied),
        thousands(suggestion.plaintext.saturating_add(suggestion.superseded))
    )];
    let mut say = |number: u64, words: &str| {
        if number > 0 {
            lines.push(format!("  {} {words}", connections(number)));
        }
    };
    say(
        suggestion.plaintext,
        "in plaintext, which no identity names: see the comments",
    );
    say(
        suggestion.superseded,
        "of callers that were let through once and denied the last time",
    );
    say(
        suggestion.left_out,
        "to workloads for which no policy could be written: see the comments",
    );
    say(
        suggestion.unmeant,
        "denied by a document that could not be loaded, or as evicted: they are not looked at",
    );
    for cut in &suggestion.cut {
        lines.push(format!("would be cut: {cut}"));
    }
    for widened in &suggestion.widened {
        lines.push(format!("was denied, and would be let in: {widened}"));
    }
    let caveats = suggestion.caveats.iter();
    lines.extend(caveats.map(|caveat| format!("not known: {caveat}")));
    if !documents.errors().is_empty() {
        lines.push(match documents.errors().len() {
            1 => "1 error in the documents; mesh-lite policy lint shows it".to_owned(),
            more => format!("{more} errors in the documents; mesh-lite policy lint shows them"),
        });
    }
    lines.iter().map(|line| harmless(line) + "\n").collect()
}
