//! What people see on a terminal: colours where there is one, and never anything but text.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use mesh_lite_proto::document::snippet::{Colours, is_hidden};

/// Colours on a terminal, none for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Of standard output; none if `NO_COLOR` has a value, see <https://no-color.org>.
    pub(crate) fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(!unwanted && io::stdout().is_terminal())
    }

    pub(crate) const fn colours(self) -> Colours {
        if self.0 { Colours::On } else { Colours::Off }
    }

    pub(crate) fn title(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    pub(crate) fn odd(self, text: &str) -> String {
        self.with("33", text)
    }

    /// Of less interest than what stands around it.
    pub(crate) fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Writes an answer to standard output. A reader who has gone away, as `head` does, has seen what
/// it wanted: nothing is said of it, and the exit code is the answer's.
///
/// # Errors
/// If it can't be written for another reason, as on a full disk: then nobody has the answer.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("the answer can't be written to standard output")
        }
        _ => Ok(()),
    }
}

/// As [`print`], with an end of line.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Text of documents, peers and logs as one line that steers no terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) {
            // of some of them `escape_debug` thinks that they can be seen
            match c.escape_debug() {
                shows if shows.len() > 1 => shown.extend(shows),
                _ => shown.extend(c.escape_unicode()),
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// What a terminal obeys instead of showing, and what it shows as nothing at all.
fn steers(c: char) -> bool {
    c.is_control() || is_hidden(c)
}

/// JSON for programs. JSON itself escapes only the first 32 control characters; what a terminal
/// obeys of the others is escaped here, which means the same.
pub(crate) fn json(value: &serde_json::Value) -> String {
    let plain = format!("{value:#}");
    let mut text = String::with_capacity(plain.len());
    for c in plain.chars() {
        if c != '\n' && steers(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let hostile = "a\x1b[31m\r\n\u{9b}2J\u{202e}\u{200b}\u{ad}\u{feff}\u{e0041}b \"quoted\"";
        let shown = harmless(hostile);
        assert!(!shown.chars().any(steers), "{shown:?}");
        assert!(
            shown.contains("\\u{200b}\\u{ad}\\u{feff}\\u{e0041}"),
            "{shown}"
        );
        assert!(
            shown.ends_with("b \"quoted\""),
            "what is text stays as it is: {shown}"
        );
        let value = serde_json::Value::from(hostile);
        let text = json(&value);
        assert!(!text.chars().any(steers), "{text:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }

    #[test]
    fn without_a_terminal_there_are_no_colours() {
        assert_eq!(Paint(false).bad("x"), "x");
        assert_eq!(Paint(true).bad("x"), "\x1b[31mx\x1b[0m");
    }
}
