//! One line of a file, made fit for a terminal, and what to mark in it.

use super::super::Position;

/// Of a line, at most so many columns are shown.
const MAX_SHOWN: usize = super::MAX_COLUMNS - 20;
/// Columns shown before the mark if the line is too long to be shown whole.
const LEAD: usize = 40;
/// A tab goes to the next multiple.
const TAB: usize = 4;

pub(super) struct Excerpt {
    pub(super) source: String,
    /// Columns before the mark.
    pub(super) before: usize,
    /// Columns of the mark; at least 1.
    pub(super) marks: usize,
}

/// What one character of the file is on the terminal.
struct Cell {
    shown: char,
    width: usize,
}

impl Excerpt {
    /// `None` if the file has no such line, as of what is missing at its end.
    pub(super) fn of(text: &str, at: Position) -> Option<Self> {
        let number = |value: u32| {
            usize::try_from(value)
                .unwrap_or(usize::MAX)
                .saturating_sub(1)
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let line = text.split('\n').nth(number(at.line))?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let window = Window::of(line, number(at.column));
        let marked = extent(window.rest);
        let cells = cells(window.head.chars().chain(window.rest.chars()));
        let width = |cells: &[Cell]| {
            cells
                .iter()
                .fold(0_usize, |sum, cell| sum.saturating_add(cell.width))
        };
        let (head, rest) = cells
            .split_at_checked(window.head.chars().count())
            .unwrap_or((&cells, &[]));
        let is_long = window.cut_front || window.cut_back || width(&cells) > MAX_SHOWN;
        let (skipped, lead) = if window.cut_front || (is_long && width(head) > LEAD) {
            (true, cut_front(head))
        } else {
            (false, head)
        };
        let mark = if skipped { "…" } else { "" };
        let room = MAX_SHOWN.saturating_sub(width(lead));
        let (tail, cut) = cut_back(rest, room);
        let mut source = mark.to_owned();
        source.extend(lead.iter().chain(tail).flat_map(Cell::columns));
        if cut || window.cut_back {
            source.push('…');
        }
        let marked = tail.get(..marked.min(tail.len())).unwrap_or_default();
        Some(Self {
            source,
            before: width(lead).saturating_add(usize::from(skipped)),
            marks: width(marked).max(1),
        })
    }
}

/// The part of a line around a column that can be shown at all: whatever else is in the line
/// costs nothing.
pub(super) struct Window<'a> {
    pub(super) head: &'a str,
    pub(super) rest: &'a str,
    pub(super) cut_front: bool,
    pub(super) cut_back: bool,
}

impl<'a> Window<'a> {
    pub(super) fn of(line: &'a str, start: usize) -> Self {
        let (head, rest) = line
            .split_at_checked(offset(line, start))
            .unwrap_or((line, ""));
        let before = head.char_indices().rev().take(MAX_SHOWN).last();
        let from = before.map_or(0, |(from, _)| from);
        let shown = offset(rest, MAX_SHOWN);
        Self {
            head: head.get(from..).unwrap_or(head),
            rest: rest.get(..shown).unwrap_or(rest),
            cut_front: from > 0,
            cut_back: shown < rest.len(),
        }
    }
}

/// Bytes before the character with this index, or all.
fn offset(text: &str, index: usize) -> usize {
    let mut chars = text.chars();
    if let Some(last) = index.checked_sub(1) {
        chars.nth(last);
    }
    text.len().saturating_sub(chars.as_str().len())
}

impl Cell {
    /// A tab is its columns of blanks; a wide character takes two by itself.
    fn columns(&self) -> impl Iterator<Item = char> + use<> {
        let count = if self.shown == ' ' { self.width } else { 1 };
        std::iter::repeat_n(self.shown, count)
    }
}

/// The last columns before the mark.
fn cut_front(head: &[Cell]) -> &[Cell] {
    let mut columns = 0_usize;
    let kept = head
        .iter()
        .rev()
        .take_while(|cell| {
            columns = columns.saturating_add(cell.width);
            columns <= LEAD
        })
        .count();
    let lead = head.split_at_checked(head.len().saturating_sub(kept));
    lead.map_or(head, |(_, lead)| lead)
}

/// The first columns of the rest, and whether there were more.
fn cut_back(rest: &[Cell], room: usize) -> (&[Cell], bool) {
    let mut columns = 0_usize;
    let kept = rest
        .iter()
        .take_while(|cell| {
            columns = columns.saturating_add(cell.width);
            columns <= room
        })
        .count();
    let kept = rest.get(..kept).unwrap_or(rest);
    (kept, kept.len() < rest.len())
}

fn cells(line: impl Iterator<Item = char>) -> Vec<Cell> {
    let mut column = 0_usize;
    line.map(|c| {
        let (shown, width) = if c == '\t' {
            (' ', TAB.saturating_sub(column % TAB))
        } else {
            let shown = visible(c);
            (shown, width(shown))
        };
        column = column.saturating_add(width);
        Cell { shown, width }
    })
    .collect()
}

/// Characters that do something, or that only seem to be nothing, become one that says so.
pub(in crate::document) fn visible(c: char) -> char {
    if c.is_control() || is_hidden(c) {
        '\u{fffd}'
    } else {
        c
    }
}

/// Whether a terminal shows nothing of it, or obeys it, though it is no control character: blanks
/// without width, directions of text, line ends of Unicode, tags.
#[must_use]
pub const fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// As terminals show it; near enough to put a mark under it.
const fn width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f680}'..='\u{1f6ff}'
        | '\u{1f900}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// How many characters belong to what the text starts with: a quoted text with its quotes, or
/// what stands before the next sign of YAML.
fn extent(text: &str) -> usize {
    let mut rest = text.chars().peekable();
    let Some(first) = rest.next() else { return 1 };
    match first {
        '{' | '[' | '}' | ']' | ',' | ':' => 1,
        '"' | '\'' => {
            let mut escaped = false;
            let inside = rest
                .take_while(|c| {
                    let ends = *c == first && !escaped;
                    escaped = first == '"' && *c == '\\' && !escaped;
                    !ends
                })
                .count();
            inside.saturating_add(2)
        }
        '-' if rest.peek().is_none_or(|next| *next == ' ') => 1,
        _ => {
            let mut count = 1_usize;
            while let Some(c) = rest.next() {
                let ends = match c {
                    ',' | '}' | ']' | '{' | '[' | ' ' | '\t' => true,
                    ':' => rest.peek().is_none_or(|next| " \t,}]".contains(*next)),
                    _ => false,
                };
                if ends {
                    break;
                }
                count = count.saturating_add(1);
            }
            count
        }
    }
}
