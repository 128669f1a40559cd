//! Lines of the sidecar's own log, which is no part of the access log: in what a container writes
//! they stand between the access log's lines.

use std::collections::HashMap;

use serde::{Deserialize, de::IgnoredAny};

use super::utc;

/// As the sidecar writes them for programs. Nothing else may be in it: a line of the access log
/// has other names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Diagnostic<'a> {
    #[serde(borrow)]
    timestamp: &'a str,
    level: &'a str,
    #[serde(rename = "fields", borrow)]
    _fields: HashMap<&'a str, IgnoredAny>,
    #[serde(rename = "target")]
    _target: &'a str,
    #[serde(rename = "span")]
    _span: Option<IgnoredAny>,
    #[serde(rename = "spans")]
    _spans: Option<IgnoredAny>,
}

/// Whether the line is one, whole, and nothing else: of everything that is not, nobody knows
/// which line of the access log it was.
pub(super) fn is_diagnostic(line: &str) -> bool {
    let line = line.trim_ascii_end();
    if line.starts_with('{') {
        let read = serde_json::from_str::<Diagnostic<'_>>(line);
        return read.is_ok_and(|read| is_level(read.level) && utc::parse(read.timestamp).is_some());
    }
    let plain = without_colours(line);
    let Some((timestamp, rest)) = plain.split_once(' ') else {
        return false;
    };
    let rest = rest.trim_ascii_start();
    let (level, words) = rest.split_once(' ').unwrap_or((rest, ""));
    // a piece of a line of JSON may have been written behind it
    let is_alone = !words.contains("\":");
    is_level(level) && utc::parse(timestamp).is_some() && is_alone
}

fn is_level(level: &str) -> bool {
    matches!(level, "TRACE" | "DEBUG" | "INFO" | "WARN" | "ERROR")
}

/// What a terminal was to show, without `ESC [ … m`.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut parts = line.split("\u{1b}[");
    plain.extend(parts.next());
    for part in parts {
        let is_colour = |c: char| c.is_ascii_digit() || c == ';';
        match part.trim_start_matches(is_colour).strip_prefix('m') {
            Some(shown) => plain.push_str(shown),
            None => plain.push_str(part),
        }
    }
    plain
}
