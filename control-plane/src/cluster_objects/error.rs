//! Why the API server did not do what was asked.

use std::time::Duration;

/// What the API server says of itself may be long; its beginning says it.
const SHOWN: usize = 500;

/// Names what was tried, on which object, and why it failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't {verb} {object}: {failure}")]
pub struct ObjectError {
    verb: &'static str,
    object: String,
    pub(crate) failure: Failure,
}

impl ObjectError {
    pub(crate) fn new(verb: &'static str, object: String, failure: Failure) -> Self {
        Self {
            verb,
            object,
            failure,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is none")]
    NotFound,
    #[error("there is one already")]
    AlreadyExists,
    #[error("somebody else changed it at the same time")]
    Conflict,
    #[error(
        "the API server forbids it ({0}): apply the roles that `mesh-lite install` prints, or run this as somebody who may"
    )]
    Forbidden(String),
    #[error("the API server refused it: {0}")]
    Refused(String),
    #[error("the API server can't be reached: {0}")]
    Unreachable(String),
    #[error("the API server did not answer within {0:?}")]
    TooLate(Duration),
    #[error("what the API server answered can't be read (line {line}, column {column})")]
    Unreadable { line: usize, column: usize },
    #[error("it changed each of the {0} times that it was to be changed: try again")]
    Contended(u32),
}

impl Failure {
    pub(crate) fn of(error: kube::Error) -> Self {
        let status = match error {
            kube::Error::Api(status) => status,
            other => return Self::Unreachable(shown(&in_words(&other))),
        };
        let message = || {
            let said = if status.message.is_empty() {
                &status.reason
            } else {
                &status.message
            };
            format!("{}: {}", status.code, shown(said))
        };
        match status.code {
            404 => Self::NotFound,
            403 | 401 => Self::Forbidden(message()),
            409 if status.reason == "AlreadyExists" => Self::AlreadyExists,
            409 => Self::Conflict,
            _ => Self::Refused(message()),
        }
    }
}

/// The error and what caused it: the outermost alone says little.
fn in_words(error: &dyn std::error::Error) -> String {
    const DEEPEST: usize = 8;
    let mut words = error.to_string();
    let causes = std::iter::successors(error.source(), |error| error.source());
    for cause in causes.take(DEEPEST) {
        let cause = cause.to_string();
        if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
    }
    words
}

fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}
