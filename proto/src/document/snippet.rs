//! What is wrong or odd with a document, as a person sees it: the line itself, a mark under the
//! part that is meant, and what to do.
//!
//! ```text
//! error[unknown-field]: unknown field spec.ruels
//!   --> documents/shop.yaml:23:3
//!    |
//! 23 |   ruels:
//!    |   ^^^^^
//!    = help: did you mean "rules"? spec has selector, action, rules
//! ```
//! Nothing of a document reaches the terminal as anything but visible characters.

use std::fmt::Write;

use self::excerpt::Excerpt;
pub use self::excerpt::is_hidden;
pub(super) use self::excerpt::visible;
use super::{DocumentError, Place};

mod excerpt;

/// No line is longer; a terminal shows that much, and a document may hold a megabyte in one line.
const MAX_COLUMNS: usize = 160;
/// Text is folded here, as people read.
const FOLD: usize = 100;
/// A problem or a help has at most so many characters; a value in it may have thousands.
const MAX_TEXT: usize = 800;

/// Whether to write escape sequences for colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The document is refused.
    Error,
    /// It is taken, and is probably not what was meant.
    Warning,
    /// It is taken, and may be just what was meant.
    Note,
}

/// One thing to say about one place of a document.
#[derive(Debug, Clone, Copy)]
pub struct Snippet<'a> {
    pub severity: Severity,
    /// What kind of thing: the name in brackets.
    pub class: &'a str,
    pub problem: &'a str,
    pub place: &'a Place,
    /// What to do about it.
    pub help: &'a str,
}

impl<'a> From<&'a DocumentError> for Snippet<'a> {
    fn from(error: &'a DocumentError) -> Self {
        Self {
            severity: Severity::Error,
            class: error.class.as_str(),
            problem: &error.problem,
            place: &error.place,
            help: &error.remedy,
        }
    }
}

impl Snippet<'_> {
    /// In several lines, the last of them ended. `text`: of the file, if it is at hand.
    #[must_use]
    pub fn render(&self, text: Option<&str>, colours: Colours) -> String {
        let paint = Paint(colours);
        let (word, colour) = match self.severity {
            Severity::Error => ("error", RED),
            Severity::Warning => ("warning", YELLOW),
            Severity::Note => ("note", BLUE),
        };
        let place = self.place;
        let number = place.at.line.to_string();
        let margin = " ".repeat(number.len());
        let mut out = String::new();
        let title = format!("{word}[{}]", self.class);
        let problem = folded(self.problem, title.len().saturating_add(2), 4);
        let mut line = |text: String| {
            // a String takes everything
            let _ = writeln!(out, "{text}");
        };
        line(format!("{}: {problem}", paint.with(colour, &title)));
        let arrow = paint.with(BLUE, "-->");
        line(format!("{margin}{arrow} {}", harmless(&place.to_string())));
        let bar = paint.with(BLUE, "|");
        if let Some(excerpt) = text.and_then(|text| Excerpt::of(text, place.at)) {
            line(format!("{margin} {bar}"));
            let source = format!("{} {bar} {}", paint.with(BLUE, &number), excerpt.source);
            line(source.trim_end().to_owned());
            let marks = paint.with(colour, &"^".repeat(excerpt.marks));
            let before = " ".repeat(excerpt.before);
            line(format!("{margin} {bar} {before}{marks}"));
        }
        let label = paint.with(BOLD, "help");
        let indent = number.len().saturating_add("   help: ".len());
        let help = folded(self.help, indent, indent);
        line(format!(
            "{margin} {} {label}: {help}",
            paint.with(BLUE, "=")
        ));
        out
    }
}

const RED: &str = "1;31";
const YELLOW: &str = "1;33";
const BLUE: &str = "1;34";
const BOLD: &str = "1";

struct Paint(Colours);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        match self.0 {
            Colours::On => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Colours::Off => text.to_owned(),
        }
    }
}

/// Folded between words. `before`: columns that the first line has already; `indent`: of the
/// others.
fn folded(text: &str, before: usize, indent: usize) -> String {
    let mut out = String::new();
    let mut column = before;
    for (index, word) in cut(&harmless(text), MAX_TEXT).split(' ').enumerate() {
        let word = cut(word, MAX_COLUMNS.saturating_sub(indent).saturating_sub(2));
        let width = word.chars().count();
        if index > 0 && column.saturating_add(1).saturating_add(width) > FOLD {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column = column.saturating_add(1);
        }
        out.push_str(&word);
        column = column.saturating_add(width);
    }
    out
}

fn cut(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let start: String = text.chars().take(max.saturating_sub(1)).collect();
    format!("{start}…")
}

fn harmless(text: &str) -> String {
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests;
