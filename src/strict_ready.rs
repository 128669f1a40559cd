//! `mesh-lite strict-ready`: who still speaks plaintext to whom, and whether STRICT would cut
//! anybody.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use mesh_lite_control_plane::policy_review::{
    NextStep, Plaintext, Recorded, StrictReadiness, strict_readiness,
};
use mesh_lite_proto::decision_record::Utc;
use serde_json::{Value, json};

use crate::{
    policy::{
        count,
        review::{
            MAX_SHOWN, Question, ReviewArgs, Wording, and_more, connections, errors_json,
            recordings_json, seconds, span, thousands,
        },
    },
    terminal::harmless,
};

const EXAMPLES: &str = "\
Examples:
  mesh-lite strict-ready --config-dir documents --shipped permissive \\
    --records api-1.jsonl --records web-1.jsonl
  mesh-lite strict-ready --config-dir documents --namespace shop --since 7d \\
    --admin 127.0.0.1:15000

Ready means: every meshed workload of the documents (of the namespace) has a
recording which covers the whole time asked for, in which no plaintext came in
and was let through, and nobody was let in by PERMISSIVE alone. Everything that
is not known is a reason to say no: a recording may end no longer than --since
before now, and at most 10 minutes; an access log must begin with its sidecar;
of plaintext that came before --since the page must note when it ended.

What is ready is told the document that makes it STRICT.

Exit codes: 0 ready; 1 not ready, each reason said; 2 wrong usage, or documents
or recordings can't be read, or nobody knows of which workload a recording is.";

/// Say who still speaks plaintext to whom, and whether STRICT would cut anybody.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    review: ReviewArgs,
    /// Only workloads of this namespace. The whole mesh, if none is named.
    #[arg(long)]
    namespace: Option<String>,
    /// How far back to look: 30s, 15m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = span)]
    since: Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.review.answer(|question| {
        let Question {
            recorded, wording, ..
        } = question;
        let namespace = args.namespace.as_deref();
        let (documents, now) = (wording.documents, wording.now);
        let found = strict_readiness(documents, recorded, namespace, args.since, now);
        question.answer(
            found.is_ready(),
            || as_json(&found, question),
            || describe(&found, recorded, wording),
        )
    })
}

/// What stands in the way first, then what is to be done, then what is good to know.
fn describe(
    found: &StrictReadiness<'_>,
    recorded: &[Recorded<'_>],
    wording: &Wording<'_>,
) -> String {
    let mut text = headline(found, wording);
    let title = "Plaintext that was let in, and that STRICT would cut:";
    text.push_str(&plaintext(title, &found.plaintext, false, wording));
    if !found.plaintext.is_empty() {
        text.push_str(
            "  Put these callers into the mesh, or keep the port PERMISSIVE by a PeerAuthentication\n  \
             with portLevelMtls.\n",
        );
    }
    text.push_str(&permissive_only(found, wording));
    text.push_str(&gaps(found, wording));
    text.push_str(&wording.errors());
    if let Some(step) = &found.next_step {
        text.push_str(&next_step(step, wording));
    }
    let title = "Plaintext that is kept out already:";
    text.push_str(&plaintext(title, &found.refused, false, wording));
    let title = "Plaintext that goes out to where no sidecar is, which STRICT is not about:";
    text.push_str(&plaintext(title, &found.outbound, true, wording));
    text.push_str(&wording.recordings(recorded));
    text
}

fn headline(found: &StrictReadiness<'_>, wording: &Wording<'_>) -> String {
    let scope = format!(
        "{}, since {}",
        count(found.workloads, "workload"),
        seconds(found.from)
    );
    if found.is_ready() {
        let words = wording.paint.good("ready: STRICT would cut nobody");
        return format!("{words} ({scope})\n");
    }
    let reasons = [
        (
            found.plaintext.len(),
            "caller in plaintext",
            "callers in plaintext",
        ),
        (
            found.permissive_only.len(),
            "caller by PERMISSIVE alone",
            "callers by PERMISSIVE alone",
        ),
        (found.gaps.len(), "thing not known", "things not known"),
    ];
    let reasons = reasons
        .iter()
        .filter_map(|(number, one, more)| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{} {more}", thousands(*number as u64))),
        });
    let reasons: Vec<String> = reasons.collect();
    let words = wording.paint.bad("not ready");
    format!("{words}: {} ({scope})\n", reasons.join(", "))
}

fn gaps(found: &StrictReadiness<'_>, wording: &Wording<'_>) -> String {
    if found.gaps.is_empty() {
        return String::new();
    }
    let title = "Not known, so not vouched for:";
    let mut text = format!("\n{}\n", wording.paint.title(title));
    for gap in found.gaps.iter().take(MAX_SHOWN) {
        let _ = writeln!(text, "  {}", harmless(&gap.to_string()));
    }
    text.push_str(&and_more(found.gaps.len().saturating_sub(MAX_SHOWN)));
    text
}

fn next_step(step: &NextStep, wording: &Wording<'_>) -> String {
    let scope = match &step.namespace {
        Some(namespace) => format!("the namespace {}", harmless(namespace)),
        None => "the whole mesh".to_owned(),
    };
    let place = match &step.in_place_of {
        Some(source) => format!(", in place of {}", harmless(&source.to_string())),
        None => String::new(),
    };
    let title = format!("Next, put this in force: {scope} is STRICT then{place}");
    let mut text = format!("\n{}\n", wording.paint.title(&title));
    for line in step.document.lines() {
        let _ = writeln!(text, "  {}", harmless(line));
    }
    if !step.still_permissive.is_empty() {
        text.push_str(
            "These are narrower, and what they make PERMISSIVE stays so until they go:\n",
        );
    }
    for source in step.still_permissive.iter().take(MAX_SHOWN) {
        let _ = writeln!(text, "  {}", harmless(&source.to_string()));
    }
    text.push_str(&and_more(
        step.still_permissive.len().saturating_sub(MAX_SHOWN),
    ));
    text
}

fn plaintext(
    title: &str,
    calls: &[Plaintext<'_>],
    is_outbound: bool,
    wording: &Wording<'_>,
) -> String {
    if calls.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{}\n", wording.paint.title(title));
    for call in calls.iter().take(MAX_SHOWN) {
        let peer = match call.known {
            Some(known) if known.meshed => format!("{} ({}, in the mesh)", known.name, call.peer),
            Some(known) => format!("{} ({}, outside the mesh)", known.name, call.peer),
            None => format!("{} (no Workload has this address)", call.peer),
        };
        let line = if is_outbound {
            format!("{} → {peer} port {}", call.workload.name, call.port)
        } else {
            format!("{peer} → {}:{}", call.workload.name, call.port)
        };
        let open = match call.open {
            0 => String::new(),
            open => format!(", {open} open"),
        };
        let _ = writeln!(
            text,
            "  {line}   {} since {}{open}, {}",
            connections(call.count),
            seconds(call.first),
            wording.last(call.last)
        );
        if call.end_unknown {
            text.push_str(
                "    When it ended its sidecar has not noted: --since can't rule it out.\n",
            );
        }
    }
    text.push_str(&and_more(calls.len().saturating_sub(MAX_SHOWN)));
    text
}

fn permissive_only(found: &StrictReadiness<'_>, wording: &Wording<'_>) -> String {
    if found.permissive_only.is_empty() {
        return String::new();
    }
    let title = "Mesh callers that were let in, that no policy allows, and that STRICT would deny:";
    let mut text = format!("\n{}\n", wording.paint.title(title));
    for caller in found.permissive_only.iter().take(MAX_SHOWN) {
        let _ = writeln!(
            text,
            "  {} → {}:{}   {}, {}\n    {}",
            caller.caller,
            caller.workload.name,
            caller.port,
            connections(caller.count),
            wording.last(caller.last),
            harmless(&caller.strict.reason)
        );
    }
    text.push_str(&and_more(
        found.permissive_only.len().saturating_sub(MAX_SHOWN),
    ));
    text.push_str("  Name them in an AuthorizationPolicy: see mesh-lite policy suggest.\n");
    text
}

fn as_json(found: &StrictReadiness<'_>, question: &Question<'_>) -> Value {
    let callers = found.permissive_only.iter().map(|caller| {
        json!({
            "workload": caller.workload.name.to_string(),
            "caller": caller.caller,
            "port": caller.port,
            "count": caller.count,
            "last": Utc(caller.last).to_string(),
            "reason": caller.strict.reason,
        })
    });
    json!({
        "ready": found.is_ready(),
        "from": Utc(found.from).to_string(),
        "workloads": found.workloads,
        "recordings": recordings_json(question.recorded),
        "plaintext": calls_json(&found.plaintext),
        "permissive_only": callers.collect::<Value>(),
        "refused": calls_json(&found.refused),
        "outbound": calls_json(&found.outbound),
        "not_known": found.gaps.iter().map(ToString::to_string).collect::<Value>(),
        "next": found.next_step.as_ref().map(next_json),
        "document_errors": errors_json(question.wording.documents),
    })
}

fn next_json(step: &NextStep) -> Value {
    let still = step.still_permissive.iter().map(ToString::to_string);
    json!({
        "namespace": step.namespace,
        "document": step.document,
        "in_place_of": step.in_place_of.as_ref().map(ToString::to_string),
        "still_permissive": still.collect::<Value>(),
    })
}

fn calls_json(calls: &[Plaintext<'_>]) -> Value {
    let of = |call: &Plaintext<'_>| {
        json!({
            "workload": call.workload.name.to_string(),
            "peer": call.peer.to_string(),
            "peer_workload": call.known.map(|known| known.name.to_string()),
            "port": call.port,
            "count": call.count,
            "open": call.open,
            "first": Utc(call.first).to_string(),
            "last": Utc(call.last).to_string(),
            "end_unknown": call.end_unknown,
        })
    };
    calls.iter().map(of).collect()
}
