//! JSON values as YAML that people can read and every parser reads alike: a text is bare only
//! where it can be nothing else.

use serde_json::Value;

/// The value as one YAML document, with an end of line.
pub fn to_text(value: &Value) -> String {
    to_template(value, |_| None)
}

/// As [`to_text`], for a program that fills in a template: of the entries for which `guard` names
/// a condition and what holds under it, that is written, between lines with the condition.
pub fn to_template(value: &Value, guard: fn(&Value) -> Option<(&'static str, &Value)>) -> String {
    let mut writer = Writer {
        text: String::new(),
        guard,
    };
    writer.after_dash_or_key(value, 0, "");
    writer.text
}

struct Writer {
    text: String,
    guard: fn(&Value) -> Option<(&'static str, &Value)>,
}

impl Writer {
    /// A map or a list that is not empty, one entry a line.
    fn block(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    self.guarded(field, |writer, field| {
                        writer.start_line(indent);
                        writer.text.push_str(&bare_or_quoted(key));
                        writer.text.push(':');
                        // lists stand as deep as their key, as kubectl prints them
                        let deeper = if field.is_array() { 0 } else { 2 };
                        if is_block(field) {
                            writer.text.push('\n');
                        }
                        writer.after_dash_or_key(field, indent + deeper, " ");
                    });
                }
            }
            Value::Array(entries) => {
                for entry in entries {
                    self.guarded(entry, |writer, entry| {
                        writer.start_line(indent);
                        writer.text.push_str("- ");
                        writer.after_dash_or_key(entry, indent + 2, "");
                    });
                }
            }
            scalar => self.text.push_str(&flow(scalar)),
        }
    }

    fn after_dash_or_key(&mut self, value: &Value, indent: usize, between: &str) {
        if is_block(value) {
            self.block(value, indent);
        } else {
            self.text.push_str(between);
            self.text.push_str(&flow(value));
            self.text.push('\n');
        }
    }

    fn guarded(&mut self, entry: &Value, write: impl FnOnce(&mut Self, &Value)) {
        let Some((condition, part)) = (self.guard)(entry) else {
            return write(self, entry);
        };
        self.text.push_str(&format!("{{{{- if {condition} }}}}\n"));
        write(self, part);
        self.text.push_str("{{- end }}\n");
    }

    /// The indentation, unless a dash has just been written, behind which its entry begins.
    fn start_line(&mut self, indent: usize) {
        if self.text.is_empty() || self.text.ends_with('\n') {
            self.text.extend(std::iter::repeat_n(' ', indent));
        }
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        _ => false,
    }
}

/// What stands on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => bare_or_quoted(text),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// Quoted as JSON unless it is plainly a word: begins with a letter or a slash, holds nothing but
/// letters, digits and `/._-`, and is no word that YAML 1.1 or 1.2 takes for something else.
pub(crate) fn bare_or_quoted(text: &str) -> String {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let holds = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if begins && holds && !means_something(text) {
        return text.to_owned();
    }
    quoted(text)
}

fn means_something(text: &str) -> bool {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// A JSON string is a double-quoted YAML one, but for the few characters that YAML wants escaped
/// and JSON does not.
fn quoted(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                written.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => written.push(c),
        }
    }
    written
}

#[cfg(test)]
mod tests;
