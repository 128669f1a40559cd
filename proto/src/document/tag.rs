//! Tags of YAML: which of them may stand before a value.

use serde_saphyr::granit_parser::{Parser, ScanError, Span, Tag};

use super::Position;

/// A tag that makes a value something else than what stands there.
#[derive(Debug)]
pub(super) struct RefusedTag {
    /// As it is written.
    pub(super) written: String,
    /// Where the value stands.
    pub(super) at: Position,
}

/// The first tag of a text that is refused. `!!binary` makes other letters of what stands there,
/// `!!null` makes nothing of it, `!!int` makes a number of what is in quotes: who reads the
/// document would see something else than what holds. Tags that only say of a text, a list or a
/// map that it is one are harmless.
///
/// The text was parsed before, so that its depth and size are bounded.
pub(super) fn refused(text: &str) -> Option<RefusedTag> {
    if !text.contains('!') {
        return None;
    }
    Parser::new_from_str(text).find_map(|event| match event {
        Ok((event, span)) => {
            let tag = event.tag().filter(|tag| !is_harmless(tag))?;
            let (written, at) = (tag.original(), start(&span));
            Some(RefusedTag { written, at })
        }
        Err(error) => Some(unreadable(&error)),
    })
}

fn is_harmless(tag: &Tag) -> bool {
    // not by its spelling: a directive may give it another one
    matches!(tag.core_suffix(), Some("str" | "seq" | "map")) || tag.original() == "!"
}

/// It was read once, so that there are none: but what can't be looked through is not taken.
fn unreadable(error: &ScanError) -> RefusedTag {
    let marker = error.marker();
    RefusedTag {
        written: "!".to_owned(),
        at: position(marker.line(), marker.col()),
    }
}

fn start(span: &Span) -> Position {
    position(span.start.line(), span.start.col())
}

/// Lines are counted from 1, columns from 0.
fn position(line: usize, column: usize) -> Position {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    Position {
        line: number(line).max(1),
        column: number(column).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn tags_that_change_what_stands_there_are_found_however_they_are_written() {
        for (text, written) in [
            ("a: !!binary c2hvcA==", "!!binary"),
            ("a: [b, !!binary c2hvcA==]", "!!binary"),
            ("!!binary cnVsZXM=: []", "!!binary"),
            (
                "a: !<tag:yaml.org,2002:binary> c2hvcA==",
                "!<tag:yaml.org,2002:binary>",
            ),
            (
                "%TAG !x! tag:yaml.org,2002:bin\n---\na: !x!ary c2hvcA==",
                "!x!ary",
            ),
            ("a: !binary c2hvcA==", "!binary"),
            ("a: !!null everybody", "!!null"),
            ("a: !!int \"80\"", "!!int"),
            ("a: !!bool \"true\"", "!!bool"),
            ("a: !!float 1", "!!float"),
            ("a: !!timestamp 2030-01-01", "!!timestamp"),
            ("a: &x !!binary c2hvcA==\nb: *x", "!!binary"),
            ("a: !str 80", "!str"),
            ("a: !b c", "!b"),
        ] {
            let found = refused(text).map(|tag| tag.written);
            assert_eq!(found.as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn tags_that_say_what_stands_there_are_harmless() {
        for text in [
            "a: !!str 80",
            "a: ! 80",
            "a: !!seq [b]",
            "!!map {a: b}",
            "%TAG !x! tag:yaml.org,2002:\n---\na: !x!str 80",
            "a: 'b! !!binary c'",
            "# !!binary\na: b!c",
        ] {
            assert!(refused(text).is_none(), "{text}");
        }
    }

    #[test]
    fn it_is_found_where_its_value_stands() {
        let at = refused("a: b\nc:\n- é: !!binary c2hvcA==").unwrap().at;
        assert_eq!((at.line, at.column), (3, 15));
    }
}
