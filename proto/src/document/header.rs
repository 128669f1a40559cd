//! The header of a document: which one it is.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    API_VERSION, Chunk, DEFAULT_NAMESPACE, DocumentError, DocumentErrors, DocumentKey, Entry, Kind,
    Node, Place, Position, RawDocument, UnreadableDocument, Value,
};

/// What the Kubernetes API server adds to `metadata`, or tools do. A misspelt `namespace` must
/// not put a policy somewhere else, so anything beyond is refused.
const METADATA_FIELDS: [&str; 15] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "generateName",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "managedFields",
    "ownerReferences",
    "selfLink",
];
/// A DNS label, and a DNS subdomain (RFC 1123), as Kubernetes names things.
const MAX_NAMESPACE: usize = 63;
const MAX_NAME: usize = 253;

/// Reads a document as far as it can be read.
pub(super) fn read(
    file: &Arc<str>,
    chunk: &Chunk<'_>,
) -> Result<RawDocument, Box<UnreadableDocument>> {
    let mut errors = Errors {
        file,
        list: Vec::new(),
    };
    let text = String::from_utf8_lossy(chunk.bytes);
    if let Err(error) = std::str::from_utf8(chunk.bytes) {
        let valid = chunk.bytes.get(..error.valid_up_to()).unwrap_or_default();
        let lines = valid.iter().filter(|byte| **byte == b'\n').count();
        let line = u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1);
        let at = Position { line, column: 1 }.below(chunk.lines_before);
        errors.add(at, "the line is not UTF-8", "save the file as UTF-8");
    }
    let whole = match Node::parse(&text, chunk.lines_before) {
        Ok(node) => node,
        Err(error) => {
            errors
                .list
                .push(DocumentError::from_parser(&error, file, chunk.lines_before));
            salvage(&text, chunk.lines_before)
        }
    };
    let header = read_header(&whole, &mut errors);
    let line = match &whole.value {
        Value::Map(entries) => entries.first().map_or(whole.at.line, |first| first.at.line),
        _ => whole.at.line,
    };
    match header {
        Ok((key, labels)) => Ok(RawDocument {
            key,
            labels,
            file: Arc::clone(file),
            line,
            spec: spec(whole, errors),
            text: text.into(),
            lines_before: chunk.lines_before,
        }),
        Err(part) => Err(Box::new(UnreadableDocument {
            file: Arc::clone(file),
            line,
            namespace: part.namespace,
            name: part.name,
            may_be_policy: part.may_be_policy,
            errors: errors.into_errors(whole.at),
        })),
    }
}

struct Errors<'a> {
    file: &'a Arc<str>,
    list: Vec<DocumentError>,
}

impl Errors<'_> {
    fn add(&mut self, at: Position, problem: impl Into<String>, remedy: impl Into<String>) {
        self.list.push(DocumentError::new(
            Place::new(self.file, at),
            problem,
            remedy,
        ));
    }

    fn into_errors(self, at: Position) -> DocumentErrors {
        let file = self.file;
        DocumentErrors::check((), self.list)
            .err()
            .unwrap_or_else(|| {
                let remedy = "state apiVersion, kind and metadata.name";
                DocumentError::new(Place::new(file, at), "the header can't be read", remedy).into()
            })
    }
}

/// The `spec`, unless something is wrong beside it.
fn spec(document: Node, mut errors: Errors<'_>) -> Result<Node, DocumentErrors> {
    let at = document.at;
    let Value::Map(entries) = document.value else {
        return Err(errors.into_errors(at));
    };
    let mut spec = None;
    for entry in entries {
        match entry.key.as_str() {
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" => spec = Some(entry.value),
            unknown => errors.add(
                entry.at,
                format!("unknown field {unknown:?}"),
                "a document has apiVersion, kind, metadata and spec",
            ),
        }
    }
    if errors.list.is_empty() && spec.as_ref().is_none_or(|spec| spec.value == Value::Null) {
        errors.add(
            at,
            "spec is missing",
            "write one; `spec: {}` if it shall be empty",
        );
    }
    match spec {
        Some(spec) => DocumentErrors::check(spec, errors.list),
        None => Err(errors.into_errors(at)),
    }
}

/// What is left of a document that is no YAML: the parts of its header that are, each on its
/// own. A part that seems to stand there twice is not taken: one of them may be inside of a text.
fn salvage(text: &str, lines_before: u32) -> Node {
    let mut parts: Vec<(u32, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let opens = line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '"' || c == '\'');
        match parts.last_mut() {
            Some((_, part)) if !opens => {
                part.push_str(line);
                part.push('\n');
            }
            None if !opens => {}
            _ => parts.push((
                u32::try_from(index).unwrap_or(u32::MAX),
                format!("{line}\n"),
            )),
        }
    }
    let entries = ["apiVersion", "kind", "metadata"]
        .into_iter()
        .filter_map(|wanted| {
            let mut found = parts.iter().filter(|(_, part)| {
                let part = part.trim_start_matches(['"', '\'']);
                part.strip_prefix(wanted)
                    .is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            });
            let ((above, part), None) = (found.next()?, found.next()) else {
                return None;
            };
            let node = Node::parse(part, lines_before.saturating_add(*above)).ok()?;
            match node.value {
                Value::Map(mut entries) if entries.len() == 1 => entries.pop(),
                _ => None,
            }
        });
    let entries: Vec<Entry> = entries.filter(|entry| !entry.key.is_empty()).collect();
    let start = Position { line: 1, column: 1 }.below(lines_before);
    let at = entries.iter().map(|entry| entry.at).min().unwrap_or(start);
    Node {
        at,
        value: Value::Map(entries),
    }
}

/// What could be read of a header that does not say which document this is.
struct PartOfHeader {
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    may_be_policy: bool,
}

type Header = (DocumentKey, BTreeMap<String, String>);

fn read_header(document: &Node, errors: &mut Errors<'_>) -> Result<Header, PartOfHeader> {
    if !matches!(document.value, Value::Map(_)) {
        let found = document.value.what();
        errors.add(
            document.at,
            format!("a document is a map, found {found}"),
            "see the README",
        );
    }
    let ours = is_our_version(document, errors);
    let kind = kind(document, errors);
    let metadata = document.entry("metadata").map(|entry| &entry.value);
    let labels = metadata
        .map(|metadata| labels(metadata, errors))
        .unwrap_or_default();
    let namespace = match metadata.and_then(|metadata| metadata.entry("namespace")) {
        Some(entry) => name(entry, MAX_NAMESPACE, errors),
        None => metadata.map(|_| DEFAULT_NAMESPACE.into()),
    };
    let name = match metadata.and_then(|metadata| metadata.entry("name")) {
        Some(entry) => name(entry, MAX_NAME, errors),
        None => {
            errors.add(document.at, "metadata.name is missing", "name the document");
            None
        }
    };
    match (kind, namespace, name) {
        (Some(Ok(kind)), Some(namespace), Some(name)) => Ok((
            DocumentKey {
                kind,
                namespace,
                name,
            },
            labels,
        )),
        (kind, namespace, name) => Err(PartOfHeader {
            namespace,
            name,
            may_be_policy: match kind {
                Some(Ok(kind)) => kind.is_policy(),
                // a kind of somebody else's, or one of ours misspelt
                Some(Err(_)) => ours != Some(false),
                None => true,
            },
        }),
    }
}

/// `None`: it does not say.
fn is_our_version(document: &Node, errors: &mut Errors<'_>) -> Option<bool> {
    let remedy = "write apiVersion: mesh-lite.io/v1";
    let Some(version) = document.text("apiVersion") else {
        errors.add(document.at, "apiVersion is missing", remedy);
        return None;
    };
    if version != API_VERSION {
        let at = document
            .entry("apiVersion")
            .map_or(document.at, |entry| entry.value.at);
        errors.add(
            at,
            format!("apiVersion {version:?} is not one of mesh-lite's"),
            remedy,
        );
    }
    Some(version.split('/').next() == API_VERSION.split('/').next())
}

fn kind(document: &Node, errors: &mut Errors<'_>) -> Option<Result<Kind, super::UnknownKind>> {
    let Some(text) = document.text("kind") else {
        errors.add(document.at, "kind is missing", "state what the document is");
        return None;
    };
    let kind = text.parse::<Kind>();
    if kind.is_err() {
        let at = document
            .entry("kind")
            .map_or(document.at, |entry| entry.value.at);
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        errors.add(
            at,
            format!("unknown kind {text:?}"),
            format!("mesh-lite knows {known}"),
        );
    }
    Some(kind)
}

fn labels(metadata: &Node, errors: &mut Errors<'_>) -> BTreeMap<String, String> {
    let Value::Map(entries) = &metadata.value else {
        let found = metadata.value.what();
        errors.add(
            metadata.at,
            format!("metadata is a map, found {found}"),
            "state its name",
        );
        return BTreeMap::new();
    };
    for entry in entries {
        if !METADATA_FIELDS.contains(&entry.key.as_str()) {
            let problem = format!("unknown field metadata.{}", entry.key.escape_debug());
            errors.add(
                entry.at,
                problem,
                "metadata has name, namespace, labels and annotations",
            );
        }
    }
    let Some(labels) = metadata.entry("labels") else {
        return BTreeMap::new();
    };
    text_map(
        &labels.value,
        "metadata.labels",
        &mut |at, problem, remedy| {
            errors.add(at, problem, remedy);
        },
    )
}

/// Reads a map of texts, such as labels; `null` is none. Whatever is no text is reported and
/// left out.
pub(crate) fn text_map(
    node: &Node,
    path: &str,
    report: &mut dyn FnMut(Position, String, &'static str),
) -> BTreeMap<String, String> {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Null => &[],
        other => {
            let found = other.what();
            report(
                node.at,
                format!("{path} is a map of texts, found {found}"),
                "write a: b",
            );
            &[]
        }
    };
    let mut texts = BTreeMap::new();
    for entry in entries {
        match &entry.value.value {
            Value::Text(text) => {
                texts.insert(entry.key.clone(), text.clone());
            }
            other => {
                let key = entry.key.escape_debug();
                let problem = format!("{path}.{key} is a text, found {}", other.what());
                report(entry.value.at, problem, "put it in quotes");
            }
        }
    }
    texts
}

/// A namespace or a name. What is invalid is reported and not taken.
fn name(entry: &Entry, max: usize, errors: &mut Errors<'_>) -> Option<Arc<str>> {
    let remedy = "use lower-case letters, digits, dots and dashes; put numbers in quotes";
    let path = format!("metadata.{}", entry.key);
    let Value::Text(text) = &entry.value.value else {
        let found = entry.value.value.what();
        errors.add(
            entry.value.at,
            format!("{path} is a text, found {found}"),
            remedy,
        );
        return None;
    };
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || byte == b'-'
            || (byte == b'.' && max == MAX_NAME)
    };
    if text.is_empty() || text.len() > max || !text.bytes().all(allowed) {
        errors.add(
            entry.value.at,
            format!("{path} {text:?} is not a valid name"),
            remedy,
        );
        return None;
    }
    Some(text.as_str().into())
}
