//! What is wrong with a document: where, what, and what to do.

use std::{fmt, sync::Arc};

use serde_saphyr::{Error as ParserError, MessageFormatter, UserMessageFormatter};

use super::{Position, RefusalClass, snippet::visible};

/// Beyond this many, one more error of the same file tells nobody anything.
const MAX_ERRORS: usize = 50;

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
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// `lines_before`: lines of the file before the text that was parsed.
    pub(super) fn from_parser(error: &ParserError, file: &Arc<str>, lines_before: u32) -> Self {
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
        | ParserError::TaggedScalarCannotDeserializeIntoString { .. } => (
            RefusalClass::YamlTag,
            "remove the tag; put a text in quotes",
        ),
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

/// All that is wrong with a document. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentErrors(Vec<DocumentError>);

impl DocumentErrors {
    /// `Ok(value)` if nothing is wrong.
    ///
    /// # Errors
    /// The errors, if there are any, in the order of their places.
    pub fn check<T>(value: T, mut errors: Vec<DocumentError>) -> Result<T, Self> {
        if errors.is_empty() {
            Ok(value)
        } else {
            errors.sort_by_key(|error| error.place.at);
            Err(Self(errors))
        }
    }

    /// These and others, in the order of their places.
    #[must_use]
    pub fn and(&self, others: impl IntoIterator<Item = DocumentError>) -> Self {
        let mut all: Vec<DocumentError> = self.0.iter().cloned().chain(others).collect();
        all.sort_by_key(|error| error.place.at);
        Self(all)
    }

    pub fn iter(&self) -> impl Iterator<Item = &DocumentError> {
        self.0.iter()
    }

    #[must_use]
    pub const fn count(&self) -> usize {
        self.0.len()
    }
}

impl From<DocumentError> for DocumentErrors {
    fn from(error: DocumentError) -> Self {
        Self(vec![error])
    }
}

/// One error a line.
impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for error in self.0.iter().take(MAX_ERRORS) {
            write!(f, "{separator}{error}")?;
            separator = "\n";
        }
        match self.0.len().checked_sub(MAX_ERRORS) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for DocumentErrors {}
