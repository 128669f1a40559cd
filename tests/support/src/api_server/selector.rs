//! Label and field selectors of lists and watches.

use serde_json::Value;

/// Both selectors of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Selector {
    pub(super) labels: String,
    pub(super) fields: String,
}

impl Selector {
    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        terms(&self.labels).all(|term| label_matches(labels, &term))
            && terms(&self.fields).all(|term| field_matches(object, &term))
    }
}

/// Split at commas that are not inside parentheses.
fn terms(text: &str) -> impl Iterator<Item = String> {
    let mut terms = vec![String::new()];
    let mut depth = 0;
    for character in text.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if character == ',' && depth == 0 {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(character);
        }
    }
    terms
        .into_iter()
        .map(|term| term.trim().to_owned())
        .filter(|term| !term.is_empty())
}

fn label_matches(labels: &Value, term: &str) -> bool {
    let value = |key: &str| labels.get(key.trim()).and_then(Value::as_str);
    if let Some((key, rest)) = term.split_once(" notin ") {
        return !value(key).is_some_and(|value| listed(rest, value));
    }
    if let Some((key, rest)) = term.split_once(" in ") {
        return value(key).is_some_and(|value| listed(rest, value));
    }
    if let Some((key, wanted)) = term.split_once("!=") {
        return value(key) != Some(wanted.trim());
    }
    if let Some((key, wanted)) = equality(term) {
        return value(key) == Some(wanted);
    }
    match term.strip_prefix('!') {
        Some(key) => value(key).is_none(),
        None => value(term).is_some(),
    }
}

fn listed(set: &str, value: &str) -> bool {
    set.trim()
        .trim_matches(['(', ')'])
        .split(',')
        .any(|item| item.trim() == value)
}

fn field_matches(object: &Value, term: &str) -> bool {
    let value = |path: &str| {
        let found = path
            .trim()
            .split('.')
            .fold(object, |value, name| &value[name]);
        match found {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    };
    if let Some((path, unwanted)) = term.split_once("!=") {
        return value(path) != unwanted.trim();
    }
    let (path, wanted) = equality(term).unwrap_or((term, ""));
    value(path) == wanted
}

fn equality(term: &str) -> Option<(&str, &str)> {
    let (key, value) = term.split_once('=')?;
    Some((key.trim(), value.trim_start_matches('=').trim()))
}
