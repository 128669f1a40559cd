//! `mesh-lite policy plan`: what a change closes and opens among live connections.

use std::process::ExitCode;

use mesh_lite_control_plane::{
    clock,
    policy_review::{Plan, Recorded, plan},
};
use serde_json::json;

use super::review::{
    Output, ReviewArgs, Reviewed, Wording, caveats_json, connections, errors_json, flips_json,
    recordings_json, thousands, unless_unreadable,
};
use crate::terminal::{self, Paint};

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy plan --config-dir new                   this pod's sidecar
  mesh-lite policy plan --config-dir new --admin 127.0.0.1:15000 --admin 127.0.0.1:15100
  mesh-lite policy plan --config-dir new --records api-1.jsonl --output json

  In a script, before the documents are put in force:
    mesh-lite policy plan --config-dir new || exit 1

--config-dir has the documents as they shall be, all of them. A live connection is closed if they
deny it; a caller that was denied the last time it came is opened to if they allow it.

Exit codes: 0 no live connection would be closed; 1 some would be, or a document can't be loaded;
2 wrong usage, or documents or recordings can't be read, or nobody knows of which workload a
recording is.";

/// Say what documents would close and open among the connections of running sidecars.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    review: ReviewArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    unless_unreadable(|| {
        let reviewed = args.review.read()?;
        let recorded = reviewed.recorded()?;
        let now = clock::now();
        let plan = plan(&reviewed.documents, &recorded, now);
        match args.review.output.output {
            Output::Json => terminal::print_line(&as_json(&plan, &recorded, &reviewed))?,
            Output::Text => {
                let wording = Wording {
                    documents: &reviewed.documents,
                    now,
                    paint: Paint::for_stdout(),
                };
                terminal::print(&describe(&plan, &recorded, &wording))?;
            }
        }
        let closes_none = plan.closed() == 0 && reviewed.documents.errors().is_empty();
        Ok(ExitCode::from(u8::from(!closes_none)))
    })
}

fn describe(plan: &Plan<'_>, recorded: &[Recorded<'_>], wording: &Wording<'_>) -> String {
    let attempts = plan
        .opens
        .iter()
        .fold(0, |sum: u64, flip| sum.saturating_add(flip.count));
    let opens = match plan.opened_to() {
        0 => "opens to nobody who was denied".to_owned(),
        1 => format!(
            "opens to 1 caller that was denied ({} attempts)",
            thousands(attempts)
        ),
        more => format!(
            "opens to {} callers that were denied ({} attempts)",
            thousands(more as u64),
            thousands(attempts)
        ),
    };
    let headline = format!(
        "this change closes {} of {} live connections, and {opens}",
        thousands(plan.closed()),
        thousands(plan.live)
    );
    let mut text = format!("{}\n", wording.paint.title(&headline));
    text.push_str(&wording.recordings(recorded));
    text.push_str(&wording.flips("closes", &plan.closes, |flip| {
        let ago = wording.ago(flip.first);
        format!("{} live, the first from {ago}", thousands(flip.open))
    }));
    let count = |flip: &mesh_lite_control_plane::policy_review::Flip<'_>| {
        format!("{}, {}", connections(flip.count), wording.last(flip.last))
    };
    text.push_str(&wording.flips("opens", &plan.opens, count));
    let later = "denies from now on, with nothing live";
    text.push_str(&wording.flips(later, &plan.denies_later, count));
    text.push_str(&wording.caveats(&plan.caveats));
    text.push_str(&wording.errors());
    text
}

fn as_json(plan: &Plan<'_>, recorded: &[Recorded<'_>], reviewed: &Reviewed) -> String {
    terminal::json(&json!({
        "live": plan.live,
        "closed": plan.closed(),
        "opened_to": plan.opened_to(),
        "recordings": recordings_json(recorded),
        "closes": flips_json(&plan.closes),
        "opens": flips_json(&plan.opens),
        "denies_later": flips_json(&plan.denies_later),
        "caveats": caveats_json(&plan.caveats),
        "document_errors": errors_json(&reviewed.documents),
    }))
}
