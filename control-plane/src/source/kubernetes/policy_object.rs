//! A custom resource → the YAML document that `kubectl get -o yaml` shows of it, read by the one
//! loader of documents: so an error's line is the line that people see.

use std::{fmt::Write as _, sync::Arc};

use kube::api::DynamicObject;
use mesh_lite_proto::document::{
    Dialect, DocumentError, DocumentKey, Documents, Kind, MAX_FILE, Place, Position, RefusalClass,
    UnreadableDocument,
};
use serde_json::Value;

use super::object_status::Told;

/// A policy as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyObject {
    pub(super) key: DocumentKey,
    /// Empty if it would be longer than a document may be.
    text: String,
    pub(super) uid: String,
    /// Counts changes of what its author says.
    pub(super) generation: i64,
    /// What its status says of it now.
    pub(super) told: Option<Told>,
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
    let mut text = String::new();
    map(&fields, 0, &mut text);
    if text.len() > MAX_FILE {
        text = String::new();
    }
    Some(PolicyObject {
        key,
        text,
        uid,
        generation,
        told,
    })
}

impl PolicyObject {
    /// Whether an object says something else as a document.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.key != other.key || self.text != other.text
    }

    /// As documents' places name it.
    pub(super) fn file(&self) -> String {
        let key = &self.key;
        format!("kubernetes:{}/{}/{}", key.kind, key.namespace, key.name)
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
    } else {
        // JSON's strings are YAML's in double quotes
        text.push_str(&Value::from(string).to_string());
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
