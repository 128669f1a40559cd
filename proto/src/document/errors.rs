//! All that is wrong with a document: what stands first, and how much more there is.

use std::{fmt, sync::Arc};

use super::{DocumentError, RefusalClass};

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
    }
}
