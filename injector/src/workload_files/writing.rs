//! Documents as text again, which is read once more before it is given away.

use serde_json::Value;

use super::{
    File, RewriteError,
    reading::read,
    tree::{Fields, Tree},
};
use crate::installation::yaml::bare_or_quoted;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Yaml,
    Json,
}

/// # Errors
/// If the text, read again, would mean anything else.
pub(super) fn write(documents: &[Tree], style: Style) -> Result<String, RewriteError> {
    let text = match style {
        Style::Json => json(documents)?,
        Style::Yaml => yaml(documents),
    };
    let file = File {
        name: "the result",
        text: &text,
    };
    let (again, _) = read(&file).map_err(|_| RewriteError::Unwritable)?;
    let wanted: Vec<Value> = documents
        .iter()
        .filter(|tree| !is_nothing(tree))
        .map(Tree::to_value)
        .collect();
    let again: Vec<Value> = again
        .iter()
        .map(|document| document.root.to_value())
        .collect();
    let same = wanted.len() == again.len()
        && wanted
            .iter()
            .zip(&again)
            .all(|(wanted, again)| is_same(wanted, again));
    if same {
        Ok(text)
    } else {
        Err(RewriteError::Unwritable)
    }
}

/// Equal, but for the last bit of a fraction, which the JSON parser does not keep. (Kubernetes' own
/// types have no fractions.)
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(key, value)| other.get(key).is_some_and(|other| is_same(value, other)))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() && other.is_f64() => {
            let (one, other) = (one.as_f64(), other.as_f64());
            one.zip(other)
                .is_some_and(|(one, other)| (one - other).abs() <= one.abs() * 2.0 * f64::EPSILON)
        }
        (one, other) => one == other,
    }
}

fn is_nothing(tree: &Tree) -> bool {
    matches!(tree, Tree::Scalar(Value::Null))
}

fn json(documents: &[Tree]) -> Result<String, RewriteError> {
    let mut text = String::new();
    for document in documents {
        let written = serde_json::to_string_pretty(document);
        text.push_str(&written.map_err(|_| RewriteError::Unwritable)?);
        text.push('\n');
    }
    Ok(text)
}

fn yaml(documents: &[Tree]) -> String {
    let mut text = String::new();
    for document in documents.iter().filter(|tree| !is_nothing(tree)) {
        if !text.is_empty() {
            text.push_str("---\n");
        }
        match document {
            Tree::Map(fields) if !fields.entries.is_empty() => map(fields, 0, &mut text),
            Tree::List(items) if !items.is_empty() => list(items, 0, &mut text),
            other => {
                text.push_str(&one_line(other));
                text.push('\n');
            }
        }
    }
    text
}

/// Begins where the text stands: at the begin of a line, or behind the dash of a list's entry.
fn map(fields: &Fields, indent: usize, text: &mut String) {
    for (key, value) in &fields.entries {
        start_line(indent, text);
        text.push_str(&bare_or_quoted(key));
        text.push(':');
        match value {
            Tree::Map(inner) if !inner.entries.is_empty() => {
                text.push('\n');
                map(inner, indent.saturating_add(2), text);
            }
            // lists stand as deep as their key, as kubectl prints them
            Tree::List(items) if !items.is_empty() => {
                text.push('\n');
                list(items, indent, text);
            }
            scalar => {
                text.push(' ');
                end_of_line(scalar, indent.saturating_add(2), text);
            }
        }
    }
}

fn list(items: &[Tree], indent: usize, text: &mut String) {
    for item in items {
        start_line(indent, text);
        text.push_str("- ");
        let deeper = indent.saturating_add(2);
        match item {
            Tree::Map(fields) if !fields.entries.is_empty() => map(fields, deeper, text),
            Tree::List(items) if !items.is_empty() => list(items, deeper, text),
            scalar => end_of_line(scalar, deeper, text),
        }
    }
}

fn start_line(indent: usize, text: &mut String) {
    if text.is_empty() || text.ends_with('\n') {
        text.extend(std::iter::repeat_n(' ', indent));
    }
}

fn end_of_line(scalar: &Tree, indent: usize, text: &mut String) {
    match scalar {
        Tree::Scalar(Value::String(lines)) if is_block(lines) => block(lines, indent, text),
        other => {
            text.push_str(&one_line(other));
            text.push('\n');
        }
    }
}

fn one_line(tree: &Tree) -> String {
    match tree {
        Tree::Scalar(Value::String(text)) => bare_or_quoted(text),
        Tree::Scalar(other) => other.to_string(),
        Tree::List(_) => "[]".to_owned(),
        Tree::Map(_) => "{}".to_owned(),
    }
}

/// Whether several lines of text can stand as they are: begun by one that shows how deep they are,
/// and with nothing in them that YAML takes for something else.
fn is_block(text: &str) -> bool {
    let begins = text
        .chars()
        .next()
        .is_some_and(|char| !char.is_whitespace());
    let plain = |char: char| {
        char == '\n'
            || char == '\t'
            || !(char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{feff}'))
    };
    begins && text.contains('\n') && text.chars().all(plain)
}

fn block(lines: &str, indent: usize, text: &mut String) {
    let body = lines.trim_end_matches('\n');
    text.push_str(match lines.len().saturating_sub(body.len()) {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            text.extend(std::iter::repeat_n(' ', indent));
            text.push_str(line);
        }
        text.push('\n');
    }
    let more = lines.len().saturating_sub(body.len()).saturating_sub(1);
    text.extend(std::iter::repeat_n('\n', more));
}
