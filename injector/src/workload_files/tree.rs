//! A document as it was written: JSON's values, with the keys in the order of their author.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Null, a truth value, a number or a text.
    Scalar(Value),
    List(Vec<Self>),
    Map(Fields),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Fields {
    /// Where it begins, counted from 1.
    pub(super) line: u64,
    /// Keys are unique.
    pub(super) entries: Vec<(String, Tree)>,
}

impl Fields {
    pub(super) fn get(&self, key: &str) -> Option<&Tree> {
        let mut entries = self.entries.iter();
        entries.find(|(name, _)| name == key).map(|(_, tree)| tree)
    }

    fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        let mut entries = self.entries.iter_mut();
        entries.find(|(name, _)| name == key).map(|(_, tree)| tree)
    }
}

impl Tree {
    /// `value`, in the order of what it was made from; what is new comes after.
    pub(super) fn of(value: &Value, like: Option<&Self>) -> Self {
        match value {
            Value::Object(object) => Self::Map(Fields {
                line: like.map_or(0, Self::line),
                entries: ordered(object, like),
            }),
            Value::Array(items) => {
                let like = match like {
                    Some(Self::List(items)) => items.as_slice(),
                    _ => &[],
                };
                let same_length = like.len() == items.len();
                let items = items.iter().enumerate().map(|(index, item)| {
                    let before = like
                        .iter()
                        .find(|tree| is_same_entry(item, tree))
                        .or_else(|| like.get(index).filter(|_| same_length));
                    Self::of(item, before)
                });
                Self::List(items.collect())
            }
            scalar => Self::Scalar(scalar.clone()),
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Self::Map(fields) => {
                let entries = fields.entries.iter();
                let object: Map<String, Value> = entries
                    .map(|(key, tree)| (key.clone(), tree.to_value()))
                    .collect();
                Value::Object(object)
            }
        }
    }

    pub(super) fn line(&self) -> u64 {
        match self {
            Self::Map(fields) => fields.line,
            Self::Scalar(_) | Self::List(_) => 0,
        }
    }

    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(fields) => fields.get(key),
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    pub(super) fn field_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Map(fields) => fields.get_mut(key),
            Self::Scalar(_) | Self::List(_) => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match self.field(key)? {
            Self::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

fn ordered(object: &Map<String, Value>, like: Option<&Tree>) -> Vec<(String, Tree)> {
    let known = match like {
        Some(Tree::Map(fields)) => fields.entries.as_slice(),
        _ => &[],
    };
    let kept = known
        .iter()
        .filter_map(|(key, before)| Some((key.clone(), Tree::of(object.get(key)?, Some(before)))));
    let mut entries: Vec<(String, Tree)> = kept.collect();
    let is_new = |key: &&String| known.iter().all(|(name, _)| name != *key);
    // of what is new, its name first: so people write it
    let (names, others): (Vec<&String>, Vec<&String>) =
        object.keys().filter(is_new).partition(|key| *key == "name");
    for key in names.into_iter().chain(others) {
        let value = object.get(key).unwrap_or(&Value::Null);
        entries.push((key.clone(), Tree::of(value, None)));
    }
    entries
}

/// Lists of Kubernetes have their entries by name.
fn is_same_entry(item: &Value, tree: &Tree) -> bool {
    let name = item.get("name").and_then(Value::as_str);
    name.is_some() && name == tree.text("name")
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Scalar(value) => value.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
            Self::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.entries.len()))?;
                for (key, value) in &fields.entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}
