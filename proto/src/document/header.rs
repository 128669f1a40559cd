//! The header of a document: which one it is.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    API_VERSION, Chunk, DEFAULT_NAMESPACE, Dialect, DocumentError, DocumentKey, Entry, Kind, Node,
    Place, Position, RawDocument, RefusalClass, Spec, UnreadableDocument, Value,
    dialect::ApiGroup,
    fields::{Fields, Path},
    nearest_name,
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
/// Of Istio: the policy is recorded and not enforced, as with our `dryRun`.
const ISTIO_DRY_RUN: &str = "istio.io/dry-run";

/// Reads a document as far as it can be read.
pub(super) fn read(
    file: &Arc<str>,
    chunk: &Chunk<'_>,
    dialect: &Dialect,
) -> Result<RawDocument, Box<UnreadableDocument>> {
    let mut errors = Fields::new(file);
    let (document, header) = match parse(file, chunk) {
        Ok(whole) => {
            let header = read_header(&whole, dialect, &mut errors);
            (whole, header)
        }
        Err(error) => {
            errors.add(error);
            let rest = salvage(&String::from_utf8_lossy(chunk.bytes), chunk.lines_before);
            // what seems to be missing may stand behind the mistake
            let header = read_header(&rest, dialect, &mut Fields::new(file));
            (rest, header)
        }
    };
    match header {
        Ok(header) => Ok(RawDocument {
            key: header.key,
            labels: header.labels,
            annotations: header.annotations,
            dry_run: header.dry_run,
            name_at: header.name_at,
            for_whole_mesh: header.for_whole_mesh,
            file: Arc::clone(file),
            line: first_line(&document),
            spec: spec(document, errors),
        }),
        Err(part) => Err(Box::new(unreadable(file, part, document, errors))),
    }
}

fn parse(file: &Arc<str>, chunk: &Chunk<'_>) -> Result<Node, DocumentError> {
    match std::str::from_utf8(chunk.bytes) {
        Ok(text) => Node::parse(text, chunk.lines_before)
            .map_err(|error| DocumentError::from_parser(&error, file, chunk.lines_before)),
        Err(error) => Err(not_utf8(file, chunk, error.valid_up_to())),
    }
}

fn first_line(document: &Node) -> u32 {
    let first = match &document.value {
        Value::Map(entries) => entries.first(),
        _ => None,
    };
    first.map_or(document.at, |first| first.at).line
}

/// What is known of a document that does not say which one it is.
fn unreadable(
    file: &Arc<str>,
    part: PartOfHeader,
    document: Node,
    errors: Fields<'_>,
) -> UnreadableDocument {
    let (at, line) = (document.at, first_line(&document));
    let spec = spec(document, errors);
    let errors = spec.errors(file, at);
    let nameless = part.key.map(|key| RawDocument {
        key,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        dry_run: None,
        for_whole_mesh: part.for_whole_mesh,
        file: Arc::clone(file),
        line,
        name_at: at,
        spec,
    });
    UnreadableDocument {
        file: Arc::clone(file),
        line,
        namespace: part.namespace,
        name: part.name,
        for_whole_mesh: part.for_whole_mesh,
        may_be_policy: part.may_be_policy,
        errors,
        nameless: nameless.map(Box::new),
    }
}

fn not_utf8(file: &Arc<str>, chunk: &Chunk<'_>, valid: usize) -> DocumentError {
    let valid = chunk.bytes.get(..valid).unwrap_or_default();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    let line = valid.iter().filter(|byte| **byte == b'\n').count();
    let before = valid.rsplit(|byte| *byte == b'\n').next();
    let before = String::from_utf8_lossy(before.unwrap_or_default());
    let at = Position {
        line: number(line),
        column: number(before.chars().count()),
    };
    let place = Place::new(file, at.below(chunk.lines_before));
    let remedy = "save the file as UTF-8";
    DocumentError::new(
        RefusalClass::NotUtf8,
        place,
        "the line is not UTF-8",
        remedy,
    )
}

/// The `spec`, and whether something is wrong beside it.
fn spec(document: Node, mut errors: Fields<'_>) -> Spec {
    let at = document.at;
    // somebody else's: its apiVersion was refused, and what else it has is its own matter
    let foreign = document
        .text("apiVersion")
        .is_some_and(|version| ApiGroup::of(version) == ApiGroup::Other);
    if foreign {
        return Spec::Unreadable(errors.into_errors(at));
    }
    let Value::Map(entries) = document.value else {
        return Spec::Unreadable(errors.into_errors(at));
    };
    let mut spec = None;
    let known = ["apiVersion", "kind", "metadata", "spec"];
    for entry in entries {
        match entry.key.as_str() {
            "apiVersion" | "kind" | "metadata" | "status" => {}
            "spec" => spec = Some(entry.value),
            unknown => {
                let problem = format!("unknown field {unknown:?}");
                let has = "a document has apiVersion, kind, metadata and spec";
                let remedy = nearest_name::remedy(unknown, &known, has);
                errors.error(RefusalClass::UnknownField, entry.at, problem, remedy);
            }
        }
    }
    match spec {
        Some(spec) if spec.value != Value::Null && errors.is_clean() => Spec::Readable(spec),
        Some(spec) if spec.value != Value::Null => {
            let at = spec.at;
            Spec::BesideErrors(spec, errors.into_errors(at))
        }
        // behind a mistake in the YAML there may be one
        missing if errors.is_clean() => {
            let at = missing.map_or(at, |spec| spec.at);
            let remedy = "write one; `spec: {}` if it shall be empty";
            errors.error(RefusalClass::MissingField, at, "spec is missing", remedy);
            Spec::Unreadable(errors.into_errors(at))
        }
        _ => Spec::Unreadable(errors.into_errors(at)),
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

struct Header {
    key: DocumentKey,
    name_at: Position,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// Where an annotation says that the policy is not enforced.
    dry_run: Option<Position>,
    for_whole_mesh: bool,
}

/// What could be read of a header that does not say which document this is.
struct PartOfHeader {
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    /// As if it had a name, if it has a kind.
    key: Option<DocumentKey>,
    for_whole_mesh: bool,
    may_be_policy: bool,
}

fn read_header(
    document: &Node,
    dialect: &Dialect,
    errors: &mut Fields<'_>,
) -> Result<Header, PartOfHeader> {
    let group = api_group(document, dialect, errors);
    let kind = kind(document, group, errors);
    let metadata = metadata(document, kind.and_then(Result::ok), errors);
    let (namespace, name, name_at) = (metadata.namespace, metadata.name, metadata.name_at);
    let for_whole_mesh = group == Some(ApiGroup::Istio)
        && namespace
            .as_deref()
            .is_some_and(|namespace| dialect.is_istios_root(namespace));
    match (kind, namespace, name) {
        (Some(Ok(kind)), Some(namespace), Some(name)) => Ok(Header {
            key: DocumentKey {
                kind,
                namespace,
                name,
            },
            name_at: name_at.unwrap_or(document.at),
            labels: metadata.labels,
            annotations: metadata.annotations,
            dry_run: metadata.dry_run,
            for_whole_mesh,
        }),
        (kind, namespace, name) => Err(PartOfHeader {
            key: kind.and_then(Result::ok).map(|kind| DocumentKey {
                kind,
                namespace: namespace.clone().unwrap_or_else(|| "?".into()),
                name: name.clone().unwrap_or_else(|| "?".into()),
            }),
            namespace,
            name,
            for_whole_mesh,
            may_be_policy: match kind {
                Some(Ok(kind)) => kind.is_policy(),
                // a kind of somebody else's, or one of ours misspelt
                Some(Err(_)) => group != Some(ApiGroup::Other),
                None => true,
            },
        }),
    }
}

/// Of what `kubectl get -o yaml` shows of several objects.
const LIST_REMEDY: &str = "this is a List: put its items into documents of their own, as \
                           `mesh-lite policy documents` prints them";

/// The kind of a document that is neither ours nor Istio's, and no kind of ours misspelt.
fn foreign_kind<'a>(document: &'a Node, version: &str) -> Option<&'a str> {
    let kind = document.text("kind")?;
    let foreign = ApiGroup::of(version) == ApiGroup::Other
        && !names_of_kinds().contains(&kind)
        && nearest_name::nearest(kind, &names_of_kinds()).is_none();
    foreign.then_some(kind)
}

/// `None`: it does not say.
fn api_group(document: &Node, dialect: &Dialect, errors: &mut Fields<'_>) -> Option<ApiGroup> {
    let remedy = format!("write apiVersion: {API_VERSION}");
    if !matches!(document.value, Value::Map(_)) {
        let found = document.value.what();
        let problem = format!("a document is a map, found {found}");
        let remedy = "write apiVersion, kind, metadata and spec, each on a line of its own";
        errors.error(RefusalClass::WrongType, document.at, problem, remedy);
        return None;
    }
    let Some(entry) = document.entry("apiVersion") else {
        let class = RefusalClass::MissingField;
        errors.error(class, document.at, "apiVersion is missing", remedy);
        return None;
    };
    let version = errors.text(&entry.value, &Path::root("apiVersion"))?;
    if let Err(refused) = dialect.takes(version) {
        let remedy = match foreign_kind(document, version) {
            Some("List") if version == "v1" => LIST_REMEDY.to_owned(),
            Some(kind) => format!("remove it: mesh-lite has no kind {kind:?}"),
            None => refused.remedy,
        };
        errors.error(refused.class, entry.value.at, refused.problem, remedy);
    }
    Some(ApiGroup::of(version))
}

fn kind(
    document: &Node,
    group: Option<ApiGroup>,
    errors: &mut Fields<'_>,
) -> Option<Result<Kind, super::UnknownKind>> {
    let Some(entry) = document.entry("kind") else {
        if matches!(document.value, Value::Map(_)) {
            let class = RefusalClass::MissingField;
            let remedy = format!("write one of {}", names_of_kinds().join(", "));
            errors.error(class, document.at, "kind is missing", remedy);
        }
        return None;
    };
    let text = errors.text(&entry.value, &Path::root("kind"))?;
    let kind = text.parse::<Kind>().and_then(|kind| match group {
        Some(ApiGroup::Istio) if !kind.is_istios() => Err(super::UnknownKind),
        _ => Ok(kind),
    });
    // of a document of somebody else's, its apiVersion was refused: its kind is its own matter
    if kind.is_err() && group != Some(ApiGroup::Other) {
        let problem = format!("unknown kind {text:?}");
        let known = format!("mesh-lite knows {}", names_of_kinds().join(", "));
        let remedy = match (text, group) {
            ("RequestAuthentication", _) => {
                "remove it; tokens of end users are the application's to judge".to_owned()
            }
            (_, Some(ApiGroup::Istio)) => {
                let names = [Kind::AuthorizationPolicy, Kind::PeerAuthentication].map(Kind::as_str);
                let known = format!("of Istio's kinds mesh-lite knows {}", names.join(" and "));
                nearest_name::remedy(text, &names, &known)
            }
            _ => nearest_name::remedy(text, &names_of_kinds(), &known),
        };
        errors.error(RefusalClass::UnknownKind, entry.value.at, problem, remedy);
    }
    Some(kind)
}

fn names_of_kinds() -> [&'static str; Kind::ALL.len()] {
    Kind::ALL.map(Kind::as_str)
}

#[derive(Default)]
struct Metadata {
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    name_at: Option<Position>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    dry_run: Option<Position>,
}

fn metadata(document: &Node, kind: Option<Kind>, errors: &mut Fields<'_>) -> Metadata {
    let path = Path::root("metadata");
    let remedy = "name the document: metadata: {name: ..., namespace: ...}";
    let Some(entry) = document.entry("metadata") else {
        if matches!(document.value, Value::Map(_)) {
            let class = RefusalClass::MissingField;
            errors.error(class, document.at, "metadata is missing", remedy);
        }
        return Metadata::default();
    };
    let node = &entry.value;
    let Value::Map(entries) = &node.value else {
        let problem = format!("metadata is a map, found {}", node.value.what());
        errors.error(RefusalClass::WrongType, node.at, problem, remedy);
        return Metadata::default();
    };
    for entry in entries {
        if !METADATA_FIELDS.contains(&entry.key.as_str()) {
            let problem = format!("unknown field metadata.{}", entry.key.escape_debug());
            let has = "metadata has name, namespace, labels and annotations";
            let remedy = nearest_name::remedy(&entry.key, &METADATA_FIELDS, has);
            errors.error(RefusalClass::UnknownField, entry.at, problem, remedy);
        }
    }
    let mut texts = |field: &'static str| {
        let map = node.entry(field);
        map.map(|entry| errors.text_map(&entry.value, &path.key(field)))
            .unwrap_or_default()
    };
    let (labels, annotations) = (texts("labels"), texts("annotations"));
    let dry_run = node
        .entry("annotations")
        .and_then(|annotations| annotations.value.entry(ISTIO_DRY_RUN))
        .and_then(|entry| dry_run(entry, kind, errors));
    Metadata {
        namespace: match node.entry("namespace") {
            Some(entry) => name(entry, MAX_NAMESPACE, errors),
            None => Some(DEFAULT_NAMESPACE.into()),
        },
        name: errors
            .required(node, &path, "name", remedy)
            .and_then(|entry| name(entry, MAX_NAME, errors)),
        name_at: node.entry("name").map(|entry| entry.value.at),
        labels,
        annotations,
        dry_run,
    }
}

/// To pass the annotation over would enforce what shall not be enforced yet.
fn dry_run(entry: &Entry, kind: Option<Kind>, errors: &mut Fields<'_>) -> Option<Position> {
    let Value::Text(text) = &entry.value.value else {
        // reported as an annotation that is no text
        return None;
    };
    // as Istio reads it
    match text.as_str() {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => {}
        "false" | "False" | "FALSE" | "f" | "F" | "0" => return None,
        other => {
            let problem =
                format!("the annotation {ISTIO_DRY_RUN} is \"true\" or \"false\", found {other:?}");
            let remedy = "write one of the two, in quotes; or remove it and use spec.dryRun";
            let class = RefusalClass::UnknownValue;
            errors.error(class, entry.value.at, problem, remedy);
            return None;
        }
    }
    if let Some(kind) = kind.filter(|kind| *kind != Kind::AuthorizationPolicy) {
        let problem = format!("a {kind} can't be tried by a dry run");
        let class = RefusalClass::NoDryRun;
        errors.error(class, entry.at, problem, "remove the annotation");
    }
    Some(entry.at)
}

/// A namespace or a name. What is invalid is reported and not taken.
fn name(entry: &Entry, max: usize, errors: &mut Fields<'_>) -> Option<Arc<str>> {
    let remedy = "use lower-case letters, digits, dots and dashes; put numbers in quotes";
    let path = format!("metadata.{}", entry.key);
    let Value::Text(text) = &entry.value.value else {
        let problem = format!("{path} is a text, found {}", entry.value.value.what());
        errors.error(RefusalClass::WrongType, entry.value.at, problem, remedy);
        return None;
    };
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || byte == b'-'
            || (byte == b'.' && max == MAX_NAME)
    };
    if text.is_empty() || text.len() > max || !text.bytes().all(allowed) {
        let problem = format!("{path} {text:?} is not a valid name");
        errors.error(RefusalClass::BadName, entry.value.at, problem, remedy);
        return None;
    }
    Some(text.as_str().into())
}
