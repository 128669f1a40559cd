//! What the control plane wrote about each policy.

use super::{
    Finding, list,
    objects::{Kind, Objects},
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
