//! What is wrong with a document: where, what, and what to do.

use std::{fmt, sync::Arc};

use serde_saphyr::{Error as ParserError, MessageFormatter, UserMessageFormatter};

use super::{Position, RefusalClass, node::Unparsable, snippet::visible};

/// A problem or a remedy has at most so many bytes. It may quote what a document says, which may be
/// all of a megabyte; who reads it has seen enough by then.
const MAX_TEXT: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub at: Position,
}

impl Place {
    #[must_use]
    pub fn new(file: &Arc<str>, at: Position) -> Self {
        Self {
            file: Arc::clone(file),
            at,
        }
    }
}

/// Shown as `file:line:column`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.at.line, self.at.column)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}; {remedy}")]
pub struct DocumentError {
    pub class: RefusalClass,
    pub place: Place,
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl DocumentError {
    pub fn new(
        class: RefusalClass,
        place: Place,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            class,
            place,
            problem: bounded(problem.into()),
            remedy: bounded(remedy.into()),
        }
    }

    /// `lines_before`: lines of the file before the text that was parsed.
    pub(super) fn from_parser(error: &Unparsable, file: &Arc<str>, lines_before: u32) -> Self {
        let error = match error {
            Unparsable::Yaml(error) => error,
            Unparsable::Tag(tag) => {
                let place = Place::new(file, tag.at.below(lines_before));
                let written: String = tag.written.chars().map(visible).collect();
                let problem = format!("unsupported tag `{written}`");
                return Self::new(RefusalClass::YamlTag, place, problem, NO_TAG);
            }
        };
        let at = error
            .location()
            .map_or(Position { line: 1, column: 1 }, |location| {
                Position::of(&location)
            })
            .below(lines_before);
        let problem = UserMessageFormatter
            .format_message(error.without_snippet())
            .chars()
            .map(visible)
            .collect::<String>();
        let (class, remedy) = class_and_remedy(error.without_snippet());
        Self::new(class, Place::new(file, at), problem, remedy)
    }
}

const NO_TAG: &str = "remove the tag; put a text in quotes";

fn bounded(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    let ends = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=MAX_TEXT).rev().find(ends).unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// What the parser refuses, and what to do. Most of it is no YAML at all.
fn class_and_remedy(error: &ParserError) -> (RefusalClass, &'static str) {
    match error {
        ParserError::DuplicateMappingKey { .. } => (
            RefusalClass::DuplicateKey,
            "remove one of the two; of two lists make one",
        ),
        ParserError::MergeKeyNotAllowed { .. }
        | ParserError::MergeValueNotMapOrSeqOfMaps { .. } => (
            RefusalClass::MergeKey,
            "write the fields out where they hold",
        ),
        ParserError::UnsupportedTag { .. }
        | ParserError::TaggedScalarCannotDeserializeIntoString { .. }
        | ParserError::InvalidBinaryBase64 { .. }
        | ParserError::BinaryNotUtf8 { .. } => (RefusalClass::YamlTag, NO_TAG),
        ParserError::Budget { .. }
        | ParserError::AliasReplayCounterOverflow { .. }
        | ParserError::AliasReplayLimitExceeded { .. }
        | ParserError::AliasExpansionLimitExceeded { .. }
        | ParserError::AliasReplayStackDepthExceeded { .. } => (
            RefusalClass::TooComplex,
            "split the document, or write it without aliases",
        ),
        ParserError::AliasError { error, .. } => class_and_remedy(error),
        ParserError::SerdeInvalidType { .. } | ParserError::NonFiniteFloat { .. } => {
            (RefusalClass::WrongType, "write a text, in quotes")
        }
        _ => (
            RefusalClass::NotYaml,
            "correct it here; what follows is not read until then",
        ),
    }
}
