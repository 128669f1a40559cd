//! YAML documents: split, their headers read, their bodies as trees that know their lines.
//!
//! ```text
//!   file ── split ──┬─ RawDocument         header known; its body may still be wrong
//!                   └─ UnreadableDocument  not even that: whatever it was meant to be
//! ```
//! One wrong document never takes its neighbours with it, and is never passed over in silence:
//! it may have been the one that denies.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

pub use self::{
    dialect::Dialect,
    error::{DocumentError, Place},
    errors::DocumentErrors,
    node::{Entry, Node, Position, Value},
    refusal_class::RefusalClass,
};

mod dialect;
mod error;
mod errors;
pub mod fields;
mod header;
mod layer_7;
mod misplaced_field;
pub mod nearest_name;
pub mod node;
mod refusal_class;
pub mod snippet;
mod tag;

/// A file of documents has at most so many bytes; an object in Kubernetes has at most 1.5 MB,
/// and no policy comes near either.
pub const MAX_FILE: usize = 1024 * 1024;
/// A file has at most so many documents: enough for a mesh in one file.
pub const MAX_DOCUMENTS: usize = 1024;

/// The one version of all documents.
pub const API_VERSION: &str = "mesh-lite.io/v1";
/// Where a document without `metadata.namespace` belongs, as `kubectl` has it.
pub const DEFAULT_NAMESPACE: &str = "default";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    AuthorizationPolicy,
    PeerAuthentication,
    Eviction,
    Workload,
    Service,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::Eviction,
        Self::Workload,
        Self::Service,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Eviction => "Eviction",
            Self::Workload => "Workload",
            Self::Service => "Service",
        }
    }

    /// Whether Istio has it too.
    #[must_use]
    const fn is_istios(self) -> bool {
        matches!(self, Self::AuthorizationPolicy | Self::PeerAuthentication)
    }

    /// Whether documents of this kind decide who may connect.
    #[must_use]
    pub const fn is_policy(self) -> bool {
        matches!(
            self,
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::Eviction
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownKind)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of document that mesh-lite knows")]
pub struct UnknownKind;

/// What makes a document the same one after an edit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentKey {
    pub kind: Kind,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// Shown as `Kind namespace/name`.
impl fmt::Display for DocumentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A document whose header could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct RawDocument {
    pub key: DocumentKey,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Where an annotation of Istio's says that the policy is recorded and not enforced.
    pub dry_run: Option<Position>,
    /// A document of Istio's in Istio's root namespace: it is for all namespaces.
    pub for_whole_mesh: bool,
    pub file: Arc<str>,
    /// Line of its first key, counted from 1.
    pub line: u32,
    /// Where its name stands.
    pub name_at: Position,
    spec: Spec,
}

/// What a document says below its header.
#[derive(Debug, Clone, PartialEq)]
enum Spec {
    Readable(Node),
    /// Something beside it is wrong, so that it does not hold.
    BesideErrors(Node, DocumentErrors),
    Unreadable(DocumentErrors),
}

impl Spec {
    fn errors(&self, file: &Arc<str>, at: Position) -> DocumentErrors {
        match self {
            Self::BesideErrors(_, errors) | Self::Unreadable(errors) => errors.clone(),
            // its header was read, or an error said why not
            Self::Readable(_) => fields::Fields::new(file).into_errors(at),
        }
    }
}

impl RawDocument {
    /// The `spec`, as a tree.
    ///
    /// # Errors
    /// If the document is no YAML, has no `spec`, or its header is wrong.
    pub const fn spec_node(&self) -> Result<&Node, &DocumentErrors> {
        match &self.spec {
            Spec::Readable(node) => Ok(node),
            Spec::BesideErrors(_, errors) | Spec::Unreadable(errors) => Err(errors),
        }
    }

    /// The `spec` of a document whose header is wrong: it does not hold, but what is wrong with it
    /// can be said as well.
    #[must_use]
    pub const fn spec_beside_errors(&self) -> Option<&Node> {
        match &self.spec {
            Spec::BesideErrors(node, _) => Some(node),
            Spec::Readable(_) | Spec::Unreadable(_) => None,
        }
    }
}

/// A document whose header can't be read, and what could be read of it.
#[derive(Debug, Clone, PartialEq)]
pub struct UnreadableDocument {
    pub file: Arc<str>,
    pub line: u32,
    /// Its namespace, if that much could be read.
    pub namespace: Option<Arc<str>>,
    pub name: Option<Arc<str>>,
    /// As of [`RawDocument`].
    pub for_whole_mesh: bool,
    /// Whether it may have been meant to decide who connects. False only if it says that it is
    /// something else.
    pub may_be_policy: bool,
    pub errors: DocumentErrors,
    /// What it would be under another name.
    nameless: Option<Box<RawDocument>>,
}

impl UnreadableDocument {
    /// A file that can't be read at all. `may_be_policy` holds of it: nobody knows what is in it.
    #[must_use]
    pub fn of_file(file: &Arc<str>, line: u32, errors: DocumentErrors) -> Self {
        Self {
            file: Arc::clone(file),
            line,
            namespace: None,
            name: None,
            for_whole_mesh: false,
            may_be_policy: true,
            errors,
            nameless: None,
        }
    }

    /// The document, if all that can't be read of its header is its name or namespace: so that what
    /// is wrong with its spec can be said as well. It never holds.
    #[must_use]
    pub fn nameless(&self) -> Option<&RawDocument> {
        self.nameless.as_deref()
    }
}

/// The documents of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Documents {
    pub readable: Vec<RawDocument>,
    pub unreadable: Vec<UnreadableDocument>,
}

/// Splits a file into its documents, which are mesh-lite's own; others are refused. Istio's are
/// taken by [`Dialect::split`]. `file` is its name as messages shall show it.
#[must_use]
pub fn split(file: &str, bytes: &[u8]) -> Documents {
    split_as(file, bytes, &Dialect::default())
}

fn split_as(file: &str, bytes: &[u8], dialect: &Dialect) -> Documents {
    let file: Arc<str> = file.into();
    let mut documents = Documents::default();
    if bytes.len() > MAX_FILE {
        let problem = format!("the file has {} bytes, {MAX_FILE} are allowed", bytes.len());
        let class = RefusalClass::TooLarge;
        documents
            .unreadable
            .push(UnreadableDocument::whole_file(&file, 1, class, problem));
        return documents;
    }
    for (index, chunk) in chunks(bytes).into_iter().enumerate() {
        if index == MAX_DOCUMENTS {
            let problem = format!("the file has more than {MAX_DOCUMENTS} documents");
            let line = chunk.lines_before.saturating_add(1);
            let class = RefusalClass::TooManyDocuments;
            documents
                .unreadable
                .push(UnreadableDocument::whole_file(&file, line, class, problem));
            break;
        }
        match header::read(&file, &chunk, dialect) {
            Ok(document) => documents.readable.push(document),
            Err(document) => documents.unreadable.push(*document),
        }
    }
    documents
}

impl UnreadableDocument {
    fn whole_file(file: &Arc<str>, line: u32, class: RefusalClass, problem: String) -> Self {
        let place = Place::new(file, Position { line, column: 1 });
        let remedy = "split it into several files";
        Self::of_file(
            file,
            line,
            DocumentError::new(class, place, problem, remedy).into(),
        )
    }
}

/// The bytes of one document, and the lines of the file before them.
struct Chunk<'a> {
    bytes: &'a [u8],
    lines_before: u32,
}

/// Cuts at `---` and `...`: at the start of a line these are markers wherever they stand, even
/// inside of quotes and block scalars (YAML 1.2.2 §9.1.2).
fn chunks(bytes: &[u8]) -> Vec<Chunk<'_>> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let mut chunks = Vec::new();
    let mut start = 0_usize;
    let mut lines_before = 0_u32;
    let mut offset = 0_usize;
    let mut line = 0_u32;
    let mut close = |from: usize, to: usize, lines_before: u32| {
        let bytes = bytes.get(from..to).unwrap_or_default();
        if has_content(bytes) {
            chunks.push(Chunk {
                bytes,
                lines_before,
            });
        }
    };
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = offset.saturating_add(text.len());
        if is_marker(text, b"---") {
            close(start, offset, lines_before);
            (start, lines_before) = (offset, line);
        } else if is_marker(text, b"...") {
            close(start, offset, lines_before);
            (start, lines_before) = (end, line.saturating_add(1));
        }
        offset = end;
        line = line.saturating_add(1);
    }
    close(start, offset, lines_before);
    chunks
}

fn is_marker(line: &[u8], marker: &[u8]) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.first().is_none_or(|byte| b" \t\r\n".contains(byte)))
}

/// Whether there is more than comments, directives and the marker that opens the document.
fn has_content(bytes: &[u8]) -> bool {
    bytes.split(|byte| *byte == b'\n').any(|line| {
        let line = if is_marker(line, b"---") {
            line.get(3..).unwrap_or_default()
        } else {
            line
        };
        let directive = line.starts_with(b"%");
        let line = line.trim_ascii();
        !line.is_empty() && !line.starts_with(b"#") && !directive
    })
}

#[cfg(test)]
mod tests;
