//! Manifests as `kubectl` reads them: YAML 1.1's truth values and octal numbers, merge keys,
//! several documents; or JSON, one value after the other.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::{
    Location, MessageFormatter, Options, Spanned, UserMessageFormatter,
    options::{DuplicateKeyPolicy, MergeKeyPolicy},
};

use super::{
    File, MAX_FILE,
    tree::{Fields, Tree},
    writing::Style,
};

/// Lists, maps and scalars of one file: manifests have some twenty bytes for each.
const MAX_NODES: usize = 2_000_000;
/// An object of Kubernetes with a schema in it has 30 levels. The parser recurses.
const MAX_DEPTH: usize = 100;
const MAX_DOCUMENTS: usize = 10_000;
/// Aliases repeat what was written once; they must not multiply it.
const MAX_ALIASES: usize = 10_000;
const MAX_REPEATED: usize = 200_000;

/// One document of a file.
pub(super) struct Document {
    pub(super) root: Tree,
    pub(super) line: u64,
}

/// A file that can't be read as manifests. Fit for a terminal.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {problem}; correct it, or take it out of what is given to this command")]
pub struct ReadError {
    file: String,
    line: u64,
    problem: String,
}

/// Empty documents are none.
pub(super) fn read(file: &File<'_>) -> Result<(Vec<Document>, Style), ReadError> {
    if file.text.len() > MAX_FILE {
        return Err(ReadError {
            file: visible(file.name),
            line: 1,
            problem: format!("longer than {MAX_FILE} bytes"),
        });
    }
    if file.text.trim_start().starts_with(['{', '['])
        && let Some(documents) = json(file.text)
    {
        return Ok((documents, Style::Json));
    }
    let error = |error: serde_saphyr::Error| {
        let error = error.without_snippet();
        ReadError {
            file: visible(file.name),
            line: error.location().map_or(1, |at| line(&at)),
            problem: visible(&UserMessageFormatter.format_message(error)),
        }
    };
    let documents: Vec<Located> =
        serde_saphyr::from_multiple_with_options(file.text, options()).map_err(error)?;
    let documents = documents.into_iter().map(|located| Document {
        line: line(&located.0.referenced),
        root: located.into_tree(),
    });
    Ok((documents.collect(), Style::Yaml))
}

fn visible(text: &str) -> String {
    text.escape_debug().to_string()
}

fn line(at: &Location) -> u64 {
    at.line().max(1)
}

/// `None`: it is no JSON, and may still be YAML.
fn json(text: &str) -> Option<Vec<Document>> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Plain>();
    let mut documents = Vec::new();
    loop {
        let before = text.get(values.byte_offset()..)?;
        let blank = before.len().checked_sub(before.trim_start().len())?;
        let begins = values.byte_offset().checked_add(blank)?;
        let Some(value) = values.next() else {
            return Some(documents);
        };
        let root = value.ok()?.0;
        let lines = text.get(..begins)?.bytes().filter(|byte| *byte == b'\n');
        documents.push(Document {
            line: u64::try_from(lines.count()).ok()?.saturating_add(1),
            root,
        });
        if documents.len() > MAX_DOCUMENTS {
            return None;
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: 4 * MAX_DEPTH,
            max_documents: MAX_DOCUMENTS,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_merge_keys: MAX_ALIASES,
            max_recorded_anchor_events: MAX_REPEATED,
            max_recorded_anchor_bytes: MAX_FILE,
            max_total_scalar_bytes: MAX_FILE,
            max_total_comment_bytes: MAX_FILE,
            max_inclusion_depth: 0,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPEATED,
            max_replay_stack_depth: MAX_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Merge,
        // as kubectl: `readOnly: yes` is true, `defaultMode: 0400` is 256
        strict_booleans: false,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

/// A value of YAML and where it stands.
struct Located(Spanned<Parsed<Self>>);

/// A value of JSON.
struct Plain(Tree);

enum Parsed<C> {
    Scalar(Value),
    List(Vec<C>),
    Map(Vec<(String, C)>),
}

impl<C> Parsed<C> {
    /// Recursion is bounded by the parsers' depth.
    fn into_tree(self, line: u64, tree: fn(C) -> Tree) -> Tree {
        match self {
            Self::Scalar(value) => Tree::Scalar(value),
            Self::List(items) => Tree::List(items.into_iter().map(tree).collect()),
            Self::Map(entries) => {
                let entries = entries.into_iter().map(|(key, value)| (key, tree(value)));
                Tree::Map(Fields {
                    line,
                    entries: entries.collect(),
                })
            }
        }
    }
}

impl Located {
    fn into_tree(self) -> Tree {
        let line = line(&self.0.referenced);
        self.0.value.into_tree(line, Self::into_tree)
    }
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parsed = Parsed::<Self>::deserialize(deserializer)?;
        Ok(Self(parsed.into_tree(0, |plain| plain.0)))
    }
}

impl<'de, C: Deserialize<'de>> Deserialize<'de> for Parsed<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue(PhantomData))
    }
}

struct AnyValue<C>(PhantomData<C>);

impl<'de, C: Deserialize<'de>> Visitor<'de> for AnyValue<C> {
    type Value = Parsed<C>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed<C>, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::from(value)))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Parsed<C>, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("no number in JSON"))?;
        Ok(Parsed::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed<C>, E> {
        Ok(Parsed::Scalar(Value::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Parsed<C>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Parsed::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Parsed<C>, A::Error> {
        let mut entries: Vec<(String, C)> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                let twice = format!("the key {key:?} stands twice in one map");
                return Err(serde::de::Error::custom(twice));
            }
            entries.push((key, access.next_value()?));
        }
        Ok(Parsed::Map(entries))
    }
}
