//! The same for programs: everything, however much it is.

use mesh_lite_control_plane::policy_review::{Caveat, Documents, Flip, Recorded};
use mesh_lite_proto::{authorization::SourceRef, decision_record::Utc};
use serde_json::{Value, json};

pub(crate) fn recordings_json(recorded: &[Recorded<'_>]) -> Value {
    let of = |one: &Recorded<'_>| {
        json!({
            "name": one.name,
            "workload": one.workload.name.to_string(),
            "since": Utc(one.recording.since).to_string(),
            "until": Utc(one.recording.until).to_string(),
            "forgotten": one.recording.forgotten,
        })
    };
    recorded.iter().map(of).collect()
}

pub(crate) fn flips_json(flips: &[Flip<'_>]) -> Value {
    flips.iter().map(flip_json).collect()
}

fn flip_json(flip: &Flip<'_>) -> Value {
    let decision = |allowed| if allowed { "allow" } else { "deny" };
    json!({
        "workload": flip.workload.name.to_string(),
        "direction": flip.direction.as_str(),
        "caller": flip.caller.map(ToString::to_string),
        "sources": flip.sources.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "peer": flip.peer.map(ToString::to_string),
        "address": flip.destination.ip().to_string(),
        "port": flip.destination.port(),
        "count": flip.count,
        "distinct": flip.distinct,
        "open": flip.open,
        "first": Utc(flip.first).to_string(),
        "last": Utc(flip.last).to_string(),
        "was": {
            "decision": flip.then.outcome.as_str(),
            "policy": flip.then.policy.map(|policy| policy.document.to_string()),
            "policy_source": flip.then.policy.map(place),
            "reason": flip.then.reason,
        },
        "by_shipped_default": flip.by_shipped_default,
        "would_be": {
            "decision": decision(flip.now.allowed),
            "step": flip.now.step.as_str(),
            "policy": flip.now.policy.as_ref().map(|policy| policy.document.to_string()),
            "policy_source": flip.now.policy.as_ref().map(place),
            "rule": flip.now.rule,
            "reason": flip.now.reason,
        },
    })
}

fn place(source: &SourceRef) -> String {
    format!("{}:{}", source.file, source.line)
}

pub(crate) fn caveats_json(caveats: &[Caveat]) -> Value {
    caveats.iter().map(ToString::to_string).collect()
}

pub(crate) fn errors_json(documents: &Documents) -> Value {
    documents.errors().iter().map(ToString::to_string).collect()
}
