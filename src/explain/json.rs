//! An answer for programs.

use mesh_lite_proto::{
    authorization::{
        ConsideredPolicy, FailedField, NearestMiss, Recorded, RuleOutcome, SourceRef, Step,
    },
    decision_record::Utc,
};
use serde_json::{Value, json};

use super::{
    Explanation,
    judged::Judged,
    recorded::RecordedCall,
    wording::{place, wanted_value},
};

pub(super) fn explanation(explanation: &Explanation) -> Value {
    let Explanation {
        call,
        judged,
        basis,
        rests_on_shipped,
        service_port,
    } = explanation;
    let service_port = service_port.as_ref();
    let service_port =
        service_port.map(|(service, port)| json!({"service": service, "dials": port}));
    let considered = &judged.considered;
    let decision = &considered.decision;
    json!({
        "verdict": verdict(judged.is_allowed()),
        "reason": judged.reason(),
        "step": judged.step().as_str(),
        "step_number": judged.step().number(),
        "caller": {
            "workload": call.caller_name,
            "identity": call.caller.as_ref().map(ToString::to_string),
            "address": call.source,
        },
        "destination": {"workload": call.destination, "port": call.port},
        "policy": judged.policy().map(document),
        "policy_source": judged.policy().map(place),
        "rule": deciding(judged, decision.rule),
        "field": deciding(judged, decision.field).map(|field| json!({
            "path": field.to_string(),
            "line": field.line,
        })),
        "nearest": deciding(judged, decision.nearest_miss.as_deref()).map(nearest),
        "considered": considered.policies.iter().map(policy).collect::<Vec<_>>(),
        "policies_left_out": considered.left_out,
        "mutual_tls": considered.mode.as_str(),
        "default_action": considered.default_action.as_ref().map(|(action, at)| json!({
            "action": action.to_string(),
            "policy": document(at),
            "policy_source": place(at),
        })),
        "recorded": decision.recorded.iter().map(dry_run).collect::<Vec<_>>(),
        "recorded_more": decision.recorded_more,
        "certificates_evicted": judged.evicted_certificates,
        "by": basis.what,
        // true: the other --shipped would give another verdict, and none was given
        "rests_on_shipped": rests_on_shipped,
        "service_port": service_port,
    })
}

/// Nothing of policy's decides on a caller who is evicted.
fn deciding<T>(judged: &Judged, of_policy: Option<T>) -> Option<T> {
    of_policy.filter(|_| judged.evicted.is_none())
}

/// As the access log names it.
const fn verdict(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

/// `namespace/name`; where it stands is [`place`]: two fields, as the access log has them.
fn document(source: &SourceRef) -> Value {
    json!(&*source.document)
}

fn nearest(miss: &NearestMiss) -> Value {
    json!({
        "policy": document(&miss.policy),
        "policy_source": place(&miss.policy),
        "rule": miss.rule,
        "failed": miss.failed.iter().map(failed).collect::<Vec<_>>(),
    })
}

fn failed(failed: &FailedField) -> Value {
    json!({
        "field": failed.field.to_string(),
        "line": failed.field.line,
        "was": failed.got,
        "others": failed.others,
        "should_be": wanted_value(failed),
    })
}

fn policy(policy: &ConsideredPolicy) -> Value {
    let rules = policy.rules.iter().map(|rule| match &rule.outcome {
        RuleOutcome::NotAsked => {
            json!({"rule": rule.index, "line": rule.line, "outcome": "not-asked"})
        }
        RuleOutcome::Matched => {
            json!({"rule": rule.index, "line": rule.line, "outcome": "matched"})
        }
        RuleOutcome::Stopped(at) => json!({
            "rule": rule.index,
            "line": rule.line,
            "outcome": "stopped",
            "failed": at.iter().map(failed).collect::<Vec<_>>(),
        }),
    });
    json!({
        "policy": document(&policy.source),
        "policy_source": place(&policy.source),
        "action": policy.action.as_str(),
        "dry_run": policy.dry_run,
        "enforced": policy.is_enforced(),
        "asked": policy.asked,
        "rules": rules.collect::<Vec<_>>(),
        "rules_left_out": policy.left_out,
    })
}

fn dry_run(recorded: &Recorded) -> Value {
    json!({
        "policy": document(&recorded.policy),
        "policy_source": place(&recorded.policy),
        "rule": recorded.rule,
        "action": recorded.action.as_str(),
        "dry_run": recorded.dry_run,
        "effect": recorded.effect().as_str(),
    })
}

pub(super) fn recorded(call: &RecordedCall) -> Value {
    let record = &call.record;
    let mut told = json!({
        "conn_id": call.id.to_string(),
        "claimed": call.claim.map(|claim| json!({
            "conn_id": claim.id.to_string(),
            "borne_out": claim.is_borne_out,
        })),
        "found_in": call.found_in,
        "recorded_by": call.recorder,
        "verdict": verdict(record.is_let_through()),
        "decision": record.outcome.as_str(),
        "decided_by": if record.decided_by_peer { "peer" } else { "this sidecar" },
        "direction": record.direction.as_str(),
        "reason": call.reason(),
        "error": record.error.as_deref(),
        "step": record.step.map(Step::as_str),
        "policy": record.policy.as_ref().map(document),
        "policy_source": record.policy.as_ref().map(place),
        "rule": record.rule,
        "caller": {
            "identity": record.source.identity.as_ref().map(ToString::to_string),
            "address": record.source.address.to_string(),
        },
        "first": Utc(record.first).to_string(),
        "last": Utc(record.last).to_string(),
        "count": record.count,
        "open": record.open,
    });
    let destination = record.destination.as_ref().map(|destination| {
        json!({
            "identity": destination.identity.as_ref().map(ToString::to_string),
            "address": destination.address.to_string(),
        })
    });
    let (now, now_unknown) = match &call.now {
        Some(Ok(now)) => (Some(explanation(now)), None),
        Some(Err(why)) => (None, Some(why.clone())),
        None => (None, None),
    };
    if let Value::Object(fields) = &mut told {
        fields.insert("destination".to_owned(), json!(destination));
        fields.insert("original_dst".to_owned(), json!(call.original_destination));
        fields.insert("ended".to_owned(), ended(call));
        let dry_runs = record.recorded.iter().map(dry_run).collect::<Vec<_>>();
        fields.insert("recorded".to_owned(), json!(dry_runs));
        fields.insert("recorded_more".to_owned(), json!(record.recorded_more));
        let refusal = call.refusal();
        let refusal = refusal.map(|words| json!({"words": words.what, "next": words.next}));
        fields.insert("refusal".to_owned(), json!(refusal));
        fields.insert("ask_there".to_owned(), json!(call.ask));
        fields.insert("now".to_owned(), json!(now));
        fields.insert("now_unknown".to_owned(), json!(now_unknown));
        fields.insert("changed_since".to_owned(), json!(call.has_changed()));
    }
    told
}

/// How, only if it is known of this connection alone; else when the latest end of its like was.
fn ended(call: &RecordedCall) -> Value {
    let latest = call.record.ended.filter(|_| call.record.is_let_through());
    match (&call.ending, latest) {
        (Some(ending), _) => json!({
            "at": Utc(ending.at).to_string(),
            "end": ending.end,
            "error": ending.error,
            "cut": ending.is_cut(),
        }),
        (None, Some(at)) => json!({"at": Utc(at).to_string()}),
        (None, None) => Value::Null,
    }
}
