//! Answers that refuse, as an API server words them.

use serde_json::{Value, json};

use super::kinds::Kind;

/// A `Status` of failure.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Failure {
    pub(super) fn status(&self) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details,
            "code": self.code})
    }

    fn about(code: u16, reason: &'static str, kind: Kind, name: &str, what: &str) -> Self {
        Self {
            code,
            reason,
            message: format!("{} \"{name}\" {what}", qualified(kind)),
            details: json!({"name": name, "group": kind.group, "kind": kind.plural}),
        }
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self::about(404, "NotFound", kind, name, "not found")
    }

    pub(super) fn already_exists(kind: Kind, name: &str) -> Self {
        Self::about(409, "AlreadyExists", kind, name, "already exists")
    }

    pub(super) fn conflict(kind: Kind, name: &str) -> Self {
        let mut failure = Self::about(409, "Conflict", kind, name, "");
        failure.message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; \
             please apply your changes to the latest version and try again",
            qualified(kind)
        );
        failure
    }

    pub(super) fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: json!({}),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::plain(422, "Invalid", message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::plain(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        )
    }

    /// What a test's script asks for.
    pub(super) fn scripted(code: u16, method: &str, path: &str) -> Self {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized".to_owned()),
            403 => (
                "Forbidden",
                format!(
                    "{path} is forbidden: User \"system:serviceaccount:test:test\" cannot {method} it"
                ),
            ),
            429 => (
                "TooManyRequests",
                "too many requests, please try again later".to_owned(),
            ),
            _ => (
                "InternalError",
                format!("an error on the server ({code}) by script"),
            ),
        };
        Self::plain(code, reason, message)
    }
}

fn qualified(kind: Kind) -> String {
    if kind.group.is_empty() {
        kind.plural.to_owned()
    } else {
        format!("{}.{}", kind.plural, kind.group)
    }
}
