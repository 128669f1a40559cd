//! `mesh-lite policy replay`: recorded connections against other documents.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use mesh_lite_control_plane::policy_review::{Replay, replay};
use mesh_lite_proto::decision_record::Utc;
use serde_json::{Value, json};

use super::review::{
    Question, ReviewArgs, caveats_json, connections, errors_json, flips_json, from,
    recordings_json, seconds, span, thousands,
};
const EXAMPLES: &str = "\
Examples:
  mesh-lite policy replay --config-dir new         against this pod's sidecar
  curl -s 127.0.0.1:15000/decisions > api-1.jsonl  what a sidecar remembers
  mesh-lite policy replay --config-dir new --since 24h \\
    --records api-1.jsonl --records web-1-access.log
  mesh-lite policy replay --config-dir new --shipped permissive \\
    --records api-1.jsonl --output json | jq .flips

A recording counts different connections, so that rare callers are not pushed
out by busy ones. Records don't hold certificates' serials and what a caller did
before it was refused without policy being asked: what that leaves open is said.

With --since, what ended before is left out; what may be open still is not.

Exit codes: 0 nothing would flip; 1 something would, or something is not known,
or nothing could be judged, or a document can't be loaded; 2 wrong usage, or
documents or recordings can't be read, or nobody knows of which workload a
recording is.";

/// Judge recorded connections by other documents: which would flip, and by which rule.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    review: ReviewArgs,
    /// How far back to look: 30s, 15m, 24h, 7d. At everything recorded, if it is not given.
    #[arg(long, value_name = "TIME", value_parser = span)]
    since: Option<Duration>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.review.answer(|question| {
        let wording = &question.wording;
        let from = args.since.map(|since| from(since, wording.now));
        let replay = replay(wording.documents, question.recorded, from, wording.now);
        question.answer(
            replay.flips_nothing(),
            || as_json(&replay, from, question),
            || describe(&replay, from, question),
        )
    })
}

fn describe(replay: &Replay<'_>, from: Option<SystemTime>, question: &Question<'_>) -> String {
    let wording = &question.wording;
    let since = from.map_or_else(String::new, |from| format!(", since {}", seconds(from)));
    let headline = format!(
        "{} of {} ({} of {} distinct) would flip{since}",
        thousands(replay.flipped()),
        connections(replay.connections),
        thousands(replay.flipped_distinct() as u64),
        thousands(replay.distinct as u64)
    );
    let mut text = format!("{}\n", wording.paint.title(&headline));
    text.push_str(&wording.shipped(replay.by_shipped_default, &replay.flips));
    for (title, closes) in [("would be closed", true), ("would be opened", false)] {
        let flips = replay.flips.iter().filter(|flip| flip.closes() == closes);
        text.push_str(&wording.flips(title, flips, |flip| {
            format!("{}, {}", connections(flip.count), wording.last(flip.last))
        }));
    }
    if replay.not_asked > 0 {
        text.push_str(&format!(
            "\n{} refused before policy was asked: not judged\n",
            connections(replay.not_asked)
        ));
    }
    text.push_str(&wording.caveats(&replay.caveats));
    text.push_str(&wording.errors());
    text.push_str(&wording.recordings(question.recorded));
    text
}

fn as_json(replay: &Replay<'_>, from: Option<SystemTime>, question: &Question<'_>) -> Value {
    json!({
        "from": from.map(|from| Utc(from).to_string()),
        "connections": replay.connections,
        "distinct": replay.distinct,
        "flipped": replay.flipped(),
        "flipped_distinct": replay.flipped_distinct(),
        "not_judged": replay.not_asked,
        "shipped": question.wording.shipped_json(replay.by_shipped_default),
        "recordings": recordings_json(question.recorded),
        "flips": flips_json(&replay.flips),
        "caveats": caveats_json(&replay.caveats),
        "document_errors": errors_json(question.wording.documents),
    })
}
