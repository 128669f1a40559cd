use std::sync::Arc;

use super::*;
use crate::document::{Position, RefusalClass};

fn error(line: u32, column: u32, problem: &str, remedy: &str) -> DocumentError {
    let file: Arc<str> = "documents/shop.yaml".into();
    let place = Place::new(&file, Position { line, column });
    DocumentError::new(RefusalClass::UnknownField, place, problem, remedy)
}

fn plain(error: &DocumentError, text: &str) -> String {
    Snippet::from(error).render(Some(text), Colours::Off)
}

/// The line of the file and the mark below it, without the margin.
fn marked(text: &str, line: u32, column: u32) -> (String, String) {
    let rendered = plain(&error(line, column, "p", "h"), text);
    let lines: Vec<&str> = rendered.lines().collect();
    let behind_bar = |line: &str| line.split_once("| ").unwrap().1.to_owned();
    (behind_bar(lines[3]), behind_bar(lines[4]))
}

#[test]
fn shows_the_line_marks_the_part_and_says_what_to_do() {
    let text = format!("{}  ruels:\n", "\n".repeat(22));
    let error = error(23, 3, "unknown field spec.ruels", "did you mean \"rules\"?");
    assert_eq!(
        plain(&error, &text),
        "\
error[unknown-field]: unknown field spec.ruels
  --> documents/shop.yaml:23:3
   |
23 |   ruels:
   |   ^^^^^
   = help: did you mean \"rules\"?
"
    );
}

#[test]
fn a_warning_says_that_it_is_one() {
    let error = error(1, 1, "p", "h");
    let snippet = Snippet {
        severity: Severity::Warning,
        class: "shadowed-rule",
        ..Snippet::from(&error)
    };
    let rendered = snippet.render(Some("a: b"), Colours::Off);
    assert!(
        rendered.starts_with("warning[shadowed-rule]: p\n"),
        "{rendered}"
    );
}

#[test]
fn the_mark_covers_what_is_meant_and_no_more() {
    for (line, column, mark) in [
        ("a: {b: [c, \"d e\"], f: g}", 1, "^"),
        ("a: {b: [c, \"d e\"], f: g}", 4, "   ^"),
        ("a: {b: [c, \"d e\"], f: g}", 12, "           ^^^^^"),
        ("a: {b: [c, \"d e\"], f: g}", 20, "                   ^"),
        ("x: 'it''s'", 4, "   ^^^^"),
        (r#"x: "a\"b" # c"#, 4, "   ^^^^^^"),
        ("x: spiffe://a.b/ns/c # c", 4, "   ^^^^^^^^^^^^^^^^^"),
        ("- port: 0", 3, "  ^^^^"),
        ("- port: 0", 1, "^"),
        ("-1", 1, "^^"),
        ("x: [\"open", 5, "    ^^^^^"),
        ("end:", 5, "    ^"),
    ] {
        assert_eq!(marked(line, 1, column), (line.to_owned(), mark.to_owned()));
    }
}

#[test]
fn a_mark_stands_under_its_part_behind_tabs_and_wide_characters() {
    assert_eq!(marked("\ta: b", 1, 2), ("    a: b".into(), "    ^".into()));
    assert_eq!(
        marked("ab\ta: b", 1, 4),
        ("ab  a: b".into(), "    ^".into())
    );
    assert_eq!(
        marked("港: bad", 1, 4),
        ("港: bad".into(), "    ^^^".into())
    );
    assert_eq!(
        marked("e\u{301}: bad", 1, 5),
        ("e\u{301}: bad".into(), "   ^^^".into())
    );
}

#[test]
fn no_character_of_a_document_does_anything_to_the_terminal() {
    let text = "a\u{1b}[2J\u{202e}\u{200b}: \u{7}b\r\n";
    let mut error = error(1, 1, "p\n\u{1b}[31m", "h\u{9b}");
    error.place.file = "f\u{1b}[2J.yaml".into();
    let rendered = plain(&error, text);
    let controls = rendered.chars().filter(|c| c.is_control() && *c != '\n');
    assert_eq!(controls.count(), 0, "{rendered:?}");
    assert_eq!(rendered.lines().count(), 6, "{rendered}");
    assert!(!rendered.contains(['\u{202e}', '\u{200b}']));
}

#[test]
fn a_long_line_is_shown_around_its_mark() {
    let line = format!("{}bad: {}", "x: y, ".repeat(5_000), "z".repeat(100_000));
    let column = 6 * 5_000 + 1;
    let (source, mark) = marked(&line, 1, column);
    assert!(source.starts_with('…') && source.ends_with('…'), "{source}");
    assert!(
        source.chars().count() <= MAX_COLUMNS,
        "{}",
        source.chars().count()
    );
    assert_eq!(mark.trim_start(), "^^^");
    let start = mark.chars().count() - 3;
    let under: String = source.chars().skip(start).take(3).collect();
    assert_eq!(under, "bad");
}

/// Counted, not timed: of a megabyte in one line, a few hundred characters are looked at.
#[test]
fn of_a_long_line_only_what_is_near_the_mark_is_looked_at() {
    let line = format!("[{}]", "{a: b}, ".repeat(100_000));
    for column in [1, 400_003, 800_000] {
        let window = excerpt::Window::of(&line, column);
        assert!(window.head.chars().count() <= MAX_COLUMNS);
        assert!(window.rest.chars().count() <= MAX_COLUMNS);
        let whole: String = line.chars().skip(column).take(20).collect();
        assert!(window.rest.starts_with(&whole), "{}", window.rest);
    }
    let window = excerpt::Window::of("short", 2);
    assert_eq!((window.head, window.rest), ("sh", "ort"));
    assert!(!window.cut_front && !window.cut_back);
}

#[test]
fn no_text_is_longer_than_a_person_reads() {
    let long = format!("{} {}", "word ".repeat(300), "w".repeat(5_000));
    for text in [long.as_str(), &"x".repeat(5_000)] {
        let rendered = plain(&error(7, 1, text, text), "one line");
        assert!(rendered.chars().count() < 3 * MAX_TEXT, "{rendered}");
        for line in rendered.lines() {
            assert!(line.chars().count() <= MAX_COLUMNS + 30, "{line}");
        }
    }
}

#[test]
fn long_text_is_folded_between_words_and_loses_none() {
    let words = "one two three four five six seven eight nine ten ".repeat(8);
    let rendered = plain(&error(7, 1, words.trim(), words.trim()), "one line");
    let all: Vec<&str> = rendered.split_whitespace().collect();
    assert_eq!(
        all.iter().filter(|word| **word == "seven").count(),
        16,
        "{rendered}"
    );
    assert_eq!(
        all.len(),
        160 + "error[unknown-field]: --> place = help:".split(' ').count()
    );
    for line in rendered.lines() {
        assert!(line.chars().count() <= FOLD, "{line}");
    }
}

#[test]
fn a_place_behind_the_end_has_no_line_to_show() {
    let rendered = plain(&error(9, 1, "p", "h"), "one line");
    assert_eq!(
        rendered,
        "error[unknown-field]: p\n --> documents/shop.yaml:9:1\n  = help: h\n"
    );
    let without_text = Snippet::from(&error(9, 1, "p", "h")).render(None, Colours::Off);
    assert_eq!(without_text, rendered);
}

proptest::proptest! {
    #[test]
    fn whatever_a_document_holds_is_shown_as_lines_of_visible_characters(
        text in "(?s).{0,300}",
        line in 1..8_u32,
        column in 1..200_u32,
        problem in "(?s).{0,300}",
    ) {
        let rendered = plain(&error(line, column, &problem, &problem), &text);
        for shown in rendered.lines() {
            proptest::prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
            proptest::prop_assert!(shown.chars().count() <= 2 * MAX_COLUMNS, "{shown}");
        }
        proptest::prop_assert!(rendered.ends_with('\n'));
    }
}

#[test]
fn colours_are_all_that_differs() {
    let error = error(1, 4, "unknown field", "look");
    let coloured = Snippet::from(&error).render(Some("a: bad"), Colours::On);
    assert!(coloured.contains("\u{1b}[1;31merror[unknown-field]\u{1b}[0m"));
    assert!(coloured.contains("\u{1b}[1;31m^^^\u{1b}[0m"));
    let mut uncoloured = coloured;
    for code in ["0", BOLD, RED, BLUE] {
        uncoloured = uncoloured.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(uncoloured, plain(&error, "a: bad"));
}
