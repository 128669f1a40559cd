//! A custom resource → the YAML document that `kubectl get -o yaml` shows of it, read by the one
//! loader of documents: so an error's line is the line that people see.

use std::{fmt::Write as _, sync::Arc};

use kube::api::DynamicObject;
use mesh_lite_proto::document::{
    Dialect, DocumentError, DocumentKey, Documents, Kind, MAX_FILE, Place, Position, RawDocument,
    RefusalClass, UnreadableDocument,
};
use serde_json::Value;

use super::{
    kinds::WatchedKind,
    object_status::{Found, LastLoaded, Told},
    objects::ObjectName,
};

/// A policy as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyObject {
    pub(super) key: DocumentKey,
    /// Empty if it would be longer than a document may be.
    text: Arc<str>,
    pub(super) uid: String,
    /// Counts changes of what its author says.
    pub(super) generation: i64,
    /// What its status says of it now.
    pub(super) told: Option<Told>,
    pub(super) conditions: Found,
    /// What its status says loaded last.
    pub(super) last_loaded: Option<LastLoaded>,
}

/// As documents' places name it.
pub(super) fn file(key: &DocumentKey) -> String {
    format!("kubernetes:{}/{}/{}", key.kind, key.namespace, key.name)
}

/// `None`: not a policy's kind.
pub(super) fn document_key(kind: WatchedKind, name: &ObjectName) -> Option<DocumentKey> {
    Some(DocumentKey {
        kind: kind.document()?,
        namespace: name.namespace.as_str().into(),
        name: name.name.as_str().into(),
    })
}

/// `None`: it has no name, which no object of an API server lacks.
pub(super) fn policy_object(kind: Kind, mut object: DynamicObject) -> Option<PolicyObject> {
    let metadata = &mut object.metadata;
    let key = DocumentKey {
        kind,
        namespace: metadata.namespace.as_deref()?.into(),
        name: metadata.name.as_deref()?.into(),
    };
    let uid = metadata.uid.clone().unwrap_or_default();
    let generation = metadata.generation.unwrap_or_default();
    // it changes with every word in the status, and the text must not
    metadata.resource_version = metadata.resource_version.take().map(|_| "0".to_owned());
    metadata.managed_fields = None;
    let metadata = serde_json::to_value(&object.metadata).ok()?;
    let told = Told::of_object(&object.data);
    let conditions = Found::of_object(&object.data);
    let mut last_loaded = LastLoaded::of_object(&object.data);
    let mut fields = match object.data {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    fields.remove("status");
    fields.insert(
        "apiVersion".to_owned(),
        mesh_lite_proto::document::API_VERSION.into(),
    );
    fields.insert("kind".to_owned(), kind.as_str().into());
    fields.insert("metadata".to_owned(), metadata);
    let mut text = yaml(&fields);
    if text.len() > MAX_FILE {
        text = String::new();
    }
    let text: Arc<str> = text.into();
    if let Some(last_loaded) = &mut last_loaded
        && last_loaded.document == text
    {
        // most have loaded, and are held once
        last_loaded.document = Arc::clone(&text);
    }
    Some(PolicyObject {
        key,
        text,
        uid,
        generation,
        told,
        conditions,
        last_loaded,
    })
}

impl PolicyObject {
    /// Whether an object says something else as a document.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.key != other.key || self.text != other.text
    }

    /// Whether the status of an object tells of another last good version than that object is.
    pub(super) fn has_another_last_good(&self, before: &Self) -> bool {
        self.last_loaded != before.last_loaded
            && self
                .last_loaded
                .as_ref()
                .is_some_and(|last| last.document != self.text)
    }

    /// The last good version that its status tells of, if this process knows an older one or none.
    pub(super) fn newer_last_good(&self, own: Option<&LastLoaded>) -> Option<&LastLoaded> {
        let told = self.last_loaded.as_ref()?;
        let is_newer = own.is_none_or(|own| own.generation < told.generation);
        (is_newer && told.document != self.text).then_some(told)
    }

    /// It as a document, if it is a version of this object.
    pub(super) fn last_good_document(
        &self,
        last: &LastLoaded,
        dialect: &Dialect,
    ) -> Option<RawDocument> {
        let mut documents = dialect.split(&self.file(), last.document.as_bytes());
        let document = documents.readable.pop()?;
        let alone = documents.readable.is_empty() && documents.unreadable.is_empty();
        (alone && document.key == self.key).then_some(document)
    }

    /// What its status should say of it if it loads.
    pub(super) fn as_last_loaded(&self) -> LastLoaded {
        LastLoaded {
            generation: self.generation,
            document: Arc::clone(&self.text),
        }
    }

    /// As documents' places name it.
    pub(super) fn file(&self) -> String {
        file(&self.key)
    }

    /// Bytes of what its author says; `None` if they are more than a document may have.
    pub(super) fn size(&self) -> Option<usize> {
        (!self.text.is_empty()).then_some(self.text.len())
    }

    /// Whatever can't be read is of the object's namespace: no namespace's objects may deny in
    /// another's.
    pub(super) fn documents(&self, dialect: &Dialect) -> Documents {
        let key = &self.key;
        let file = self.file();
        let mut documents = if self.text.is_empty() {
            Documents {
                readable: Vec::new(),
                unreadable: vec![too_large(&file)],
            }
        } else {
            dialect.split(&file, self.text.as_bytes())
        };
        for unreadable in &mut documents.unreadable {
            unreadable.namespace = Some(Arc::clone(&key.namespace));
            unreadable.name = Some(Arc::clone(&key.name));
        }
        documents
    }
}

fn too_large(file: &str) -> UnreadableDocument {
    let file: Arc<str> = file.into();
    let place = Place::new(&file, Position { line: 1, column: 1 });
    let problem = format!("as YAML it has more than the {MAX_FILE} bytes that are allowed");
    let class = RefusalClass::TooLarge;
    let remedy = "use patterns, or split it into several objects";
    let errors = DocumentError::new(class, place, problem, remedy).into();
    UnreadableDocument::of_file(&file, 1, errors)
}

/// Longer than a file may be, and broken off, if it is too long.
pub(super) fn yaml(fields: &serde_json::Map<String, Value>) -> String {
    let mut text = String::new();
    map(fields, 0, &mut text);
    text
}

/// Sorted by key, as serde_json's maps are; lists stand at their key's column.
fn map(fields: &serde_json::Map<String, Value>, indent: usize, text: &mut String) {
    // too long already: it is not used
    if text.len() > MAX_FILE {
        return;
    }
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 || indent == 0 || text.ends_with('\n') {
            spaces(indent, text);
        }
        scalar(key, indent, true, text);
        text.push(':');
        below_key(value, indent, text);
    }
}

fn below_key(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            map(fields, indent.saturating_add(2), text);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            list(items, indent, text);
        }
        other => {
            text.push(' ');
            leaf(other, indent, text);
        }
    }
}

fn list(items: &[Value], indent: usize, text: &mut String) {
    let inner = indent.saturating_add(2);
    for item in items {
        if text.len() > MAX_FILE {
            return;
        }
        spaces(indent, text);
        text.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => map(fields, inner, text),
            Value::Array(items) if !items.is_empty() => nested(items, inner, text),
            other => leaf(other, indent, text),
        }
    }
}

/// A list right in a list: its first item stands on the same line.
fn nested(items: &[Value], indent: usize, text: &mut String) {
    let mut inner = String::new();
    list(items, indent, &mut inner);
    text.push_str(inner.trim_start_matches(' '));
}

fn leaf(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::String(string) => scalar(string, indent, false, text),
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        // null, booleans and numbers as JSON has them
        other => _ = write!(text, "{other}"),
    }
    text.push('\n');
}

/// Plain where that is surely the same text, a literal block for lines, else in double quotes.
fn scalar(string: &str, indent: usize, is_key: bool, text: &mut String) {
    if is_plain(string) {
        text.push_str(string);
    } else if !is_key && is_block(string) {
        block(string, indent.saturating_add(2), text);
    } else if is_key {
        // JSON's strings are YAML's in double quotes
        text.push_str(&Value::from(string).to_string());
    } else {
        quoted(string, indent.saturating_add(2), text);
    }
}

/// Letters first, and nothing that YAML could read as something else. More is quoted than
/// `kubectl` quotes, which moves no line.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 14] = [
        "null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity",
        "nul", "none",
    ];
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    string
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic())
        && string.len() <= 512
        && string.bytes().all(inner)
        && !WORDS.contains(&string.to_ascii_lowercase().as_str())
}

/// In double quotes, as JSON has it, with a new line where `kubectl` begins one: at the first
/// single space beyond column 80. To readers of YAML that is a space too.
fn quoted(string: &str, indent: usize, text: &mut String) {
    const WIDTH: usize = 80;
    let line = text.rsplit('\n').next().unwrap_or_default();
    // kubectl quotes less
    let mut column = line
        .chars()
        .count()
        .saturating_add(usize::from(!is_plain_in_go(string)));
    text.push('"');
    let mut before = ' ';
    let mut chars = string.chars().peekable();
    while let Some(char) = chars.next() {
        let is_between = before != ' ' && chars.peek().is_some_and(|next| *next != ' ');
        if char == ' ' && is_between && column > WIDTH {
            text.push('\n');
            spaces(indent, text);
            column = indent;
        } else {
            let escaped = Value::from(char.to_string()).to_string();
            let inner = escaped
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            text.push_str(inner.unwrap_or_default());
            column = column.saturating_add(1);
        }
        before = char;
    }
    text.push('"');
}

/// Sentences, mostly: whether `kubectl` writes them without quotes moves a column, no more.
fn is_plain_in_go(string: &str) -> bool {
    string.starts_with(|first: char| first.is_alphabetic())
        && !string.ends_with([' ', ':'])
        && !string.contains(": ")
        && !string.contains(" #")
}

fn is_block(string: &str) -> bool {
    let is_safe_line = |line: &str| !line.ends_with([' ', '\t']) && !line.starts_with([' ', '\t']);
    let body = string.strip_suffix('\n').unwrap_or(string);
    string.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with('\n')
        && body.lines().all(is_safe_line)
        && string
            .chars()
            .all(|char| char == '\n' || (!char.is_control() && !is_special(char)))
}

/// Line ends that YAML knows and others don't, and what it does not take as it is.
fn is_special(char: char) -> bool {
    matches!(
        char,
        '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
    )
}

fn block(string: &str, indent: usize, text: &mut String) {
    text.push_str(if string.ends_with('\n') { "|" } else { "|-" });
    for line in string.lines() {
        text.push('\n');
        if !line.is_empty() {
            spaces(indent, text);
            text.push_str(line);
        }
    }
}

fn spaces(count: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests;
