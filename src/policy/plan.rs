//! `mesh-lite policy plan`: what a change closes and opens among live connections.

use std::process::ExitCode;

use mesh_lite_control_plane::policy_review::{Flip, Plan, Recorded, plan};
use serde_json::{Value, json};

use super::review::{
    Question, ReviewArgs, Wording, caveats_json, connections, errors_json, flips_json,
    recordings_json, thousands,
};
const EXAMPLES: &str = "\
Examples:
  mesh-lite policy plan --config-dir new              this pod's sidecar
  mesh-lite policy plan --config-dir new --shipped permissive \\
    --admin 127.0.0.1:15000 --admin 127.0.0.1:15100
  mesh-lite policy plan --config-dir new --records api-1.jsonl --output json

  In a script, before the documents are put in force:
    mesh-lite policy plan --config-dir new || exit 1

--config-dir has the documents as they shall be, all of them. A live connection
is closed if they deny it. Of a caller that has none it counts how it fared when
it came last: it is told if it would be denied now, or let in.

Of a saved page all live connections are known, even if other records of it were
lost; of an access log only if it begins with its sidecar and has lost nothing.

Exit codes: 0 no live connection would be closed, and no recorded caller denied;
1 some would be, or what is not known might be, or nothing could be judged, or a
document can't be loaded; 2 wrong usage, or documents or recordings can't be
read, or nobody knows of which workload a recording is.";

/// Say what documents would close and open among the connections of running sidecars.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    review: ReviewArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.review.answer(|question| {
        let wording = &question.wording;
        let plan = plan(wording.documents, question.recorded, wording.now);
        question.answer(
            plan.denies_nobody(),
            || as_json(&plan, question),
            || describe(&plan, question.recorded, wording),
        )
    })
}

fn describe(plan: &Plan<'_>, recorded: &[Recorded<'_>], wording: &Wording<'_>) -> String {
    let attempts = plan
        .opens
        .iter()
        .fold(0, |sum: u64, flip| sum.saturating_add(flip.count));
    let tries = match attempts {
        1 => "1 attempt".to_owned(),
        more => format!("{} attempts", thousands(more)),
    };
    let opens = match plan.opened_to() {
        0 => "opens to nobody who was denied".to_owned(),
        1 => format!("opens to 1 caller that was denied ({tries})"),
        more => format!(
            "opens to {} callers that were denied ({tries})",
            thousands(more as u64)
        ),
    };
    let denies = match plan.denied_later() {
        0 => String::new(),
        1 => ", denies 1 caller that comes and goes".to_owned(),
        more => format!(
            ", denies {} callers that come and go",
            thousands(more as u64)
        ),
    };
    let headline = format!(
        "this change closes {} of {}{denies}, and {opens}",
        thousands(plan.closed()),
        live_connections(plan.live)
    );
    // all that follows rests on what is taken to hold in place of them
    let mut text = wording.errors().trim_start().to_owned();
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("{}\n", wording.paint.title(&headline)));
    text.push_str(&wording.shipped(plan.by_shipped_default, flips(plan)));
    text.push_str(&wording.flips("closes", &plan.closes, |flip| {
        let ago = wording.ago(flip.first);
        format!("{} live, the first from {ago}", thousands(flip.open))
    }));
    let count =
        |flip: &Flip<'_>| format!("{}, {}", connections(flip.count), wording.last(flip.last));
    text.push_str(&wording.flips("opens", &plan.opens, count));
    let later = "denies when they come again, with nothing live";
    text.push_str(&wording.flips(later, &plan.denies_later, count));
    text.push_str(&wording.caveats(&plan.caveats));
    text.push_str(&wording.recordings(recorded));
    text
}

fn live_connections(number: u64) -> String {
    match number {
        1 => "1 live connection".to_owned(),
        more => format!("{} live connections", thousands(more)),
    }
}

fn flips<'a>(plan: &'a Plan<'a>) -> impl Iterator<Item = &'a Flip<'a>> {
    let flips = plan.closes.iter().chain(&plan.denies_later);
    flips.chain(&plan.opens)
}

fn as_json(plan: &Plan<'_>, question: &Question<'_>) -> Value {
    json!({
        "live": plan.live,
        "closed": plan.closed(),
        "opened_to": plan.opened_to(),
        "denied_later": plan.denied_later(),
        "shipped": question.wording.shipped_json(plan.by_shipped_default),
        "recordings": recordings_json(question.recorded),
        "closes": flips_json(&plan.closes),
        "opens": flips_json(&plan.opens),
        "denies_later": flips_json(&plan.denies_later),
        "caveats": caveats_json(&plan.caveats),
        "document_errors": errors_json(question.wording.documents),
    })
}
