//! Reads fields of a tree, and collects everything that is wrong with them.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc};

use super::{
    DocumentError, DocumentErrors, Entry, Node, Place, Position, RefusalClass, Value,
    errors::Collected, layer_7, misplaced_field, nearest_name,
};

/// The errors of one document so far.
#[derive(Debug)]
pub struct Fields<'a> {
    file: &'a Arc<str>,
    errors: Collected,
}

impl<'a> Fields<'a> {
    #[must_use]
    pub fn new(file: &'a Arc<str>) -> Self {
        Self {
            file,
            errors: Collected::default(),
        }
    }

    pub fn error(
        &mut self,
        class: RefusalClass,
        at: Position,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let place = Place::new(self.file, at);
        self.errors
            .push(DocumentError::new(class, place, problem, remedy));
    }

    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.errors.count() == 0
    }

    /// How many errors there are so far.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.errors.count()
    }

    /// What was read, if nothing was wrong.
    ///
    /// # Errors
    /// Everything that was wrong. A `None` is an error too.
    pub fn finish<T>(mut self, spec: &Node, read: Option<T>) -> Result<T, DocumentErrors> {
        match read {
            Some(read) => self.errors.into_errors().map_or(Ok(read), Err),
            None => {
                if self.is_clean() {
                    let remedy = "see the README for an example";
                    let class = RefusalClass::MissingField;
                    self.error(class, spec.at, "spec says nothing", remedy);
                }
                Err(self.into_errors(spec.at))
            }
        }
    }

    /// All errors; one about the place if there are none.
    #[must_use]
    pub(crate) fn into_errors(self, at: Position) -> DocumentErrors {
        let file = self.file;
        self.errors.into_errors().unwrap_or_else(|| {
            let place = Place::new(file, at);
            let remedy = "state apiVersion, kind and metadata.name";
            let class = RefusalClass::MissingField;
            DocumentError::new(class, place, "the document can't be read", remedy).into()
        })
    }

    pub(crate) fn add(&mut self, error: DocumentError) {
        self.errors.push(error);
    }

    /// The entries of a map whose keys must be among `known`.
    pub fn map<'n>(&mut self, node: &'n Node, path: &Path<'_>, known: &[&str]) -> &'n [Entry] {
        let Value::Map(entries) = &node.value else {
            let problem = format!("{path} is a map, found {}", node.value.what());
            let remedy = format!("it has {}", known.join(", "));
            self.error(RefusalClass::WrongType, node.at, problem, remedy);
            return &[];
        };
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
        {
            // to find out what was meant costs more than anything else here
            if self.errors.only_count(entry.at) {
                continue;
            }
            if let Some(remedy) = layer_7::remedy(entry) {
                let key = &entry.key;
                let (class, problem) = if layer_7::is_of_connections(entry) {
                    let instead = "conditions on connections are fields of from and to here";
                    let problem = format!("{path}.{key} is a field of Istio's: {instead}");
                    (RefusalClass::UnknownField, problem)
                } else {
                    let problem = "is a layer 7 field, and mesh-lite decides on connections";
                    (RefusalClass::Layer7Field, format!("{path}.{key} {problem}"))
                };
                self.error(class, entry.at, problem, remedy);
            } else {
                let problem = format!("unknown field {path}.{}", entry.key.escape_debug());
                let has = format!("{path} has {}", known.join(", "));
                let remedy = match misplaced_field::belongs(&entry.key) {
                    Some(belongs) => format!("{belongs}; {has}"),
                    None => nearest_name::remedy(&entry.key, known, &has),
                };
                self.error(RefusalClass::UnknownField, entry.at, problem, remedy);
            }
        }
        entries
    }

    /// An entry that has to be there. If it is there under a misspelt name, that was said already.
    pub fn required<'n>(
        &mut self,
        node: &'n Node,
        path: &Path<'_>,
        key: &str,
        remedy: &str,
    ) -> Option<&'n Entry> {
        let entry = node.entry(key);
        if let (None, Value::Map(others)) = (entry, &node.value)
            && !others
                .iter()
                .any(|other| nearest_name::nearest(&other.key, &[key]).is_some())
        {
            let problem = format!("{path}.{key} is missing");
            self.error(RefusalClass::MissingField, node.at, problem, remedy);
        }
        entry
    }

    /// The entries of a map whose keys are values themselves; there must be one.
    pub fn open_map<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => entries,
            Value::Map(_) | Value::Null => {
                let (class, remedy) = (
                    RefusalClass::EmptyEntry,
                    "state a value or leave the field out",
                );
                self.error(class, node.at, format!("{path} is empty"), remedy);
                &[]
            }
            other => {
                let problem = format!("{path} is a map, found {}", other.what());
                let class = RefusalClass::WrongType;
                self.error(class, node.at, problem, "write it as {a: b}");
                &[]
            }
        }
    }

    /// The items of a list, which must not be empty: whether that would mean everybody or nobody
    /// is nothing to guess.
    pub fn list<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [Node] {
        self.list_of(node, path, "a, b")
    }

    /// The same, of items that look like this.
    pub fn list_of<'n>(&mut self, node: &'n Node, path: &Path<'_>, example: &str) -> &'n [Node] {
        match &node.value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) | Value::Null => {
                let (class, remedy) = (
                    RefusalClass::EmptyList,
                    "state a value or leave the field out",
                );
                self.error(class, node.at, format!("{path} is empty"), remedy);
                &[]
            }
            other => {
                let problem = format!("{path} is a list, found {}", other.what());
                let remedy = format!("write it as [{example}]");
                self.error(RefusalClass::WrongType, node.at, problem, remedy);
                &[]
            }
        }
    }

    pub fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                let problem = format!("{path} is a text, found {}", other.what());
                let remedy = "write a text; put it in quotes if it looks like a number";
                self.error(RefusalClass::WrongType, node.at, problem, remedy);
                None
            }
        }
    }

    pub fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                let problem = format!("{path} is true or false, found {}", other.what());
                let class = RefusalClass::WrongType;
                self.error(
                    class,
                    node.at,
                    problem,
                    "write true or false, without quotes",
                );
                None
            }
        }
    }

    /// One of some words.
    pub fn one_of<T: Copy>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(node, path)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let use_one = match names.as_slice() {
                [first @ .., last] if !first.is_empty() => {
                    format!("use {} or {last}", first.join(", "))
                }
                _ => format!("use {}", names.join(", ")),
            };
            let problem = format!("unknown {path} {text:?}");
            let remedy = nearest_name::remedy(text, &names, &use_one);
            self.error(RefusalClass::UnknownValue, node.at, problem, remedy);
        }
        found.map(|(_, value)| *value)
    }

    /// A text that is a `T`.
    pub fn parsed<T>(
        &mut self,
        node: &Node,
        path: &Path<'_>,
        class: RefusalClass,
        remedy: &str,
    ) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        match self.text(node, path)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(class, node.at, format!("{path}: {error}"), remedy);
                None
            }
        }
    }

    /// One address.
    pub fn address(&mut self, node: &Node, path: &Path<'_>) -> Option<IpAddr> {
        let text = self.text(node, path)?;
        let address = text.parse().ok();
        if address.is_none() {
            let problem = format!("{path}: {text:?} is no address");
            let remedy = "write one address, as 10.0.0.1 or fd00::1";
            self.error(RefusalClass::BadAddress, node.at, problem, remedy);
        }
        address
    }

    /// A port, in quotes as Istio has it or without.
    pub fn port(&mut self, node: &Node, path: &Path<'_>) -> Option<u16> {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Large => {
                let problem = format!("{path}: so large a number is no port");
                self.error(RefusalClass::BadPort, node.at, problem, PORTS);
                return None;
            }
            other => {
                let problem = format!("{path} is a port, found {}", other.what());
                self.error(RefusalClass::WrongType, node.at, problem, PORTS);
                return None;
            }
        };
        let port = parse_port(&text);
        if port.is_none() {
            let remedy = match text.contains('-') {
                true => "list the ports of a range one by one",
                false => PORTS,
            };
            let problem = format!("{path}: {text:?} is no port");
            self.error(RefusalClass::BadPort, node.at, problem, remedy);
        }
        port
    }

    /// A map of texts, such as labels; `null` is none. Whatever is no text is reported and left
    /// out.
    pub fn text_map(&mut self, node: &Node, path: &Path<'_>) -> BTreeMap<String, String> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Null => &[],
            other => {
                let problem = format!("{path} is a map of texts, found {}", other.what());
                self.error(RefusalClass::WrongType, node.at, problem, "write {a: b}");
                &[]
            }
        };
        let mut texts = BTreeMap::new();
        for entry in entries {
            match &entry.value.value {
                Value::Text(text) => {
                    texts.insert(entry.key.clone(), text.clone());
                }
                other => {
                    let path = path.key(&entry.key);
                    let problem = format!("{path} is a text, found {}", other.what());
                    let class = RefusalClass::WrongType;
                    self.error(class, entry.value.at, problem, "put it in quotes");
                }
            }
        }
        texts
    }
}

const PORTS: &str = "write a number from 1 to 65535";

/// A number from 1 to 65535, in digits.
#[must_use]
pub fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// A key of a document is shown up to here: what stands below a long one would repeat it with each
/// mistake.
const MAX_KEY: usize = 100;

/// Where a field is, as messages show it: `spec.rules[0].from`.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    above: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    #[must_use]
    pub const fn root(name: &'a str) -> Self {
        Self {
            above: None,
            step: Step::Key(name),
        }
    }

    #[must_use]
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self {
            above: Some(self),
            step: Step::Key(key),
        }
    }

    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        Self {
            above: Some(self),
            step: Step::Index(index),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Key(key) if self.above.is_none() => f.write_str(key),
            // keys may come from the document: none of them may look like another line of a log
            Step::Key(key) => match key.char_indices().nth(MAX_KEY) {
                Some((end, _)) => {
                    let start = key.get(..end).unwrap_or_default();
                    write!(f, ".{}…", start.escape_debug())
                }
                None => write!(f, ".{}", key.escape_debug()),
            },
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}
