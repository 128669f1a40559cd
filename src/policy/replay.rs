//! `mesh-lite policy replay`: recorded connections against other documents.

use std::process::ExitCode;

use mesh_lite_control_plane::policy_review::{Recorded, Replay, replay};
use serde_json::json;

use super::review::{
    Answer, Output, Question, ReviewArgs, Wording, caveats_json, connections, errors_json,
    flips_json, recordings_json, thousands,
};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy replay --config-dir new                 against this pod's sidecar
  curl -s 127.0.0.1:15000/decisions > api-1.jsonl          what a sidecar remembers
  mesh-lite policy replay --config-dir new --records api-1.jsonl --records web-1-access.log
  mesh-lite policy replay --config-dir new --records api-1.jsonl --output json | jq .flips

A recording counts different connections, so that rare callers are not pushed out by busy ones.
Records don't hold certificates' serials and what a caller did before it was refused without
policy being asked: what that leaves open is said.

Exit codes: 0 nothing would flip; 1 something would, or something is not known, or nothing could be
judged, or a document can't be loaded; 2 wrong usage, or documents or recordings can't be read, or
nobody knows of which workload a recording is.";

/// Judge recorded connections by other documents: which would flip, and by which rule.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    review: ReviewArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.review.answer(|question| {
        let wording = &question.wording;
        let replay = replay(wording.documents, question.recorded, wording.now);
        Answer {
            text: match question.output {
                Output::Json => as_json(&replay, question),
                Output::Text => describe(&replay, question.recorded, wording),
            },
            is_good: replay.flips_nothing(),
        }
    })
}

fn describe(replay: &Replay<'_>, recorded: &[Recorded<'_>], wording: &Wording<'_>) -> String {
    let headline = format!(
        "{} of {} ({} of {} distinct) would flip",
        thousands(replay.flipped()),
        connections(replay.connections),
        thousands(replay.flipped_distinct() as u64),
        thousands(replay.distinct as u64)
    );
    let mut text = format!("{}\n", wording.paint.title(&headline));
    text.push_str(&wording.recordings(recorded));
    for (title, closes) in [("would be closed", true), ("would be opened", false)] {
        let flips = replay.flips.iter().filter(|flip| flip.closes() == closes);
        text.push_str(&wording.flips(title, flips, |flip| {
            format!("{}, {}", connections(flip.count), wording.last(flip.last))
        }));
    }
    if replay.not_asked > 0 {
        text.push_str(&format!(
            "\n{} had been refused before policy was asked, and are not judged\n",
            connections(replay.not_asked)
        ));
    }
    text.push_str(&wording.caveats(&replay.caveats));
    text.push_str(&wording.errors());
    text
}

fn as_json(replay: &Replay<'_>, question: &Question<'_>) -> String {
    terminal::json(&json!({
        "connections": replay.connections,
        "distinct": replay.distinct,
        "flipped": replay.flipped(),
        "flipped_distinct": replay.flipped_distinct(),
        "not_judged": replay.not_asked,
        "recordings": recordings_json(question.recorded),
        "flips": flips_json(&replay.flips),
        "caveats": caveats_json(&replay.caveats),
        "document_errors": errors_json(question.wording.documents),
    }))
}
