//! All that is wrong with a document: what stands first, and how much more there is.

use std::{fmt, sync::Arc};

use super::{DocumentError, Position, RefusalClass};

/// Of one document, so many errors are kept: one more tells nobody anything. It also bounds what a
/// document takes that is nothing but mistakes, of which a control plane may hold many.
const MAX_ERRORS: usize = 50;

/// All that is wrong with a document, in the order of places. Never empty, and cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentErrors {
    /// If there are too many, the last one says how many more there are.
    told: Arc<[DocumentError]>,
    /// Errors that are not told of.
    more: usize,
}

impl DocumentErrors {
    /// These and others, in the order of their places.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        let mut all = Collected::default();
        for errors in [self, others] {
            errors.told().cloned().for_each(|error| all.push(error));
            all.count = all.count.saturating_add(errors.more);
        }
        // neither was empty
        all.into_errors().unwrap_or_else(|| self.clone())
    }

    /// The first of them; behind those, one that says how many more there are.
    pub fn iter(&self) -> impl Iterator<Item = &DocumentError> {
        self.told.iter()
    }

    /// How many there are, told of or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.told().count().saturating_add(self.more)
    }

    /// Without the one that counts the others.
    fn told(&self) -> impl Iterator<Item = &DocumentError> {
        let all = if self.more == 0 {
            self.told.len()
        } else {
            self.told.len().saturating_sub(1)
        };
        self.told.iter().take(all)
    }
}

impl From<DocumentError> for DocumentErrors {
    fn from(error: DocumentError) -> Self {
        Self {
            told: Arc::new([error]),
            more: 0,
        }
    }
}

/// One error a line.
impl fmt::Display for DocumentErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for error in self.told() {
            write!(f, "{separator}{error}")?;
            separator = "\n";
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for DocumentErrors {}

/// The errors of a document while it is read: however many there are, it stays small.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// All that may be among the first, in the order in which they were found.
    first: Vec<DocumentError>,
    /// Whatever stands behind it is not among the first. `None`: there is room.
    last_kept: Option<Position>,
    count: usize,
}

impl Collected {
    pub(super) fn push(&mut self, error: DocumentError) {
        self.count = self.count.saturating_add(1);
        self.first.push(error);
        // not at each one: to sort them costs more than to hold them
        if self.first.len() >= 2 * MAX_ERRORS {
            self.keep_the_first();
        }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Counts an error that stands here, if it is certain that it is not among the first: so that
    /// nobody looks for words for it.
    pub(super) fn only_count(&mut self, at: Position) -> bool {
        let beyond = self.last_kept.is_some_and(|last| last <= at);
        if beyond {
            self.count = self.count.saturating_add(1);
        }
        beyond
    }

    /// `None` if there are none.
    pub(super) fn into_errors(mut self) -> Option<DocumentErrors> {
        self.keep_the_first();
        let last = self.first.last()?;
        let more = self.count.saturating_sub(self.first.len());
        if more > 0 {
            let what = if more == 1 { "error" } else { "errors" };
            let problem = format!("{more} more {what} in this document");
            let remedy = "correct those before it first";
            let class = RefusalClass::TooManyErrors;
            let counting = DocumentError::new(class, last.place.clone(), problem, remedy);
            self.first.push(counting);
        }
        Some(DocumentErrors {
            told: self.first.into(),
            more,
        })
    }

    fn keep_the_first(&mut self) {
        self.first.sort_by_key(|error| error.place.at);
        self.first.truncate(MAX_ERRORS);
        let last = self.first.get(MAX_ERRORS.saturating_sub(1));
        self.last_kept = last.map(|last| last.place.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Place;

    fn error(line: u32) -> DocumentError {
        let place = Place::new(&"p.yaml".into(), at(line));
        DocumentError::new(RefusalClass::UnknownField, place, "a", "b")
    }

    const fn at(line: u32) -> Position {
        Position { line, column: 1 }
    }

    #[test]
    fn however_many_are_found_few_are_held() {
        let mut collected = Collected::default();
        for line in (1..=10_000).rev() {
            collected.push(error(line));
            assert!(collected.first.len() < 2 * MAX_ERRORS);
        }
        let errors = collected.into_errors().unwrap();
        assert_eq!(errors.count(), 10_000);
        let lines: Vec<u32> = errors.told().map(|error| error.place.at.line).collect();
        assert_eq!(lines, (1..=50).collect::<Vec<u32>>());
    }

    #[test]
    fn what_stands_behind_those_that_are_kept_is_only_counted() {
        let mut collected = Collected::default();
        assert!(!collected.only_count(at(1000)), "there is room");
        (1..=100).for_each(|line| collected.push(error(2 * line)));
        assert!(collected.only_count(at(1000)) && collected.only_count(at(100)));
        assert!(!collected.only_count(at(99)), "it is one of the first");
        assert_eq!(collected.count(), 102);
        collected.push(error(99));
        let errors = collected.into_errors().unwrap();
        assert_eq!(errors.count(), 103);
        assert_eq!(errors.told().last().unwrap().place.at.line, 99);
    }
}
