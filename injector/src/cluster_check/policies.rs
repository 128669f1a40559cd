//! What the control plane wrote about each policy.

use serde_json::Value;

use super::{
    Finding, list,
    objects::{Kind, Objects},
    pods::{is_meshed, is_running, texts},
    subject, text,
};

const KINDS: [(Kind, &str); 3] = [
    (Kind::AuthorizationPolicies, "AuthorizationPolicy"),
    (Kind::PeerAuthentications, "PeerAuthentication"),
    (Kind::Evictions, "Eviction"),
];

pub(super) fn findings(objects: &Objects) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, word) in KINDS {
        for object in objects.of(kind) {
            let conditions = list(object, "/status/conditions").iter();
            let mut loaded = conditions.filter(|condition| text(condition, "/type") == "Loaded");
            let subject = subject(word, object);
            match loaded.next() {
                Some(condition) if text(condition, "/status") == "True" => {}
                Some(condition) => findings.push(Finding::problem(
                    subject,
                    format!(
                        "is refused, {}: {}",
                        text(condition, "/reason"),
                        text(condition, "/message")
                    ),
                    "until it is corrected, what was loaded of it last holds, or its scope denies",
                )),
                None => findings.push(Finding::warning(
                    subject,
                    "has not been looked at by a control plane yet",
                    "wait a few seconds; if that lasts, see the control plane's log",
                )),
            }
        }
    }
    findings
}

/// Those of one namespace that are about no sidecar: nobody enforces them.
pub(super) fn without_pods(objects: &Objects) -> Vec<Finding> {
    if !objects.is_known(Kind::Pods) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (kind, word) in KINDS {
        if kind == Kind::Evictions {
            continue;
        }
        for policy in objects.of(kind) {
            let pods = objects.of(Kind::Pods).iter();
            let selected: Vec<&Value> = pods
                .filter(|pod| is_running(pod) && selects(policy, pod))
                .collect();
            if selected.iter().any(|pod| is_meshed(pod)) {
                continue;
            }
            let (what, next) = match selected.len() {
                0 => (
                    "selects no pod: it protects nobody".to_owned(),
                    "compare its selector with kubectl get pods --show-labels",
                ),
                count => (
                    format!("selects {count} pods, none with a sidecar: it protects nobody"),
                    "label the namespace and restart the pods",
                ),
            };
            findings.push(Finding::warning(subject(word, policy), what, next));
        }
    }
    findings
}

/// Without a selector it is about every pod of the namespace.
fn selects(policy: &Value, pod: &Value) -> bool {
    let labels = texts(pod, "/metadata/labels");
    texts(policy, "/spec/selector/matchLabels")
        .iter()
        .all(|wanted| labels.contains(wanted))
}
