//! Reads fields of a tree, and collects what is wrong with them.

use std::{fmt, str::FromStr, sync::Arc};

use super::{super::pattern::parse_port, Selector};
use crate::document::{
    DocumentError, DocumentErrors, Entry, Node, Place, Position, Value, text_map,
};

/// The errors of one document so far.
pub(super) struct Fields<'a> {
    file: &'a Arc<str>,
    errors: Vec<DocumentError>,
    /// Set as soon as it was read without an error: a document that fails further down denies
    /// for these workloads only.
    pub(super) selector: Option<Selector>,
}

impl<'a> Fields<'a> {
    pub(super) const fn new(file: &'a Arc<str>) -> Self {
        Self {
            file,
            errors: Vec::new(),
            selector: None,
        }
    }

    pub(super) fn error(
        &mut self,
        at: Position,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(DocumentError::new(
            Place::new(self.file, at),
            problem,
            remedy,
        ));
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// What was read, if nothing was wrong.
    pub(super) fn finish<T>(mut self, spec: &Node, read: Option<T>) -> Result<T, DocumentErrors> {
        if read.is_none() && self.errors.is_empty() {
            self.error(
                spec.at,
                "spec says nothing",
                "see the README for an example",
            );
        }
        let read = DocumentErrors::check(read, self.errors)?;
        // `None` without an error was ruled out above
        read.ok_or_else(|| {
            let place = Place::new(self.file, spec.at);
            DocumentError::new(place, "spec says nothing", "see the README for an example").into()
        })
    }

    /// The entries of a map whose keys must be among `known`.
    pub(super) fn map<'n>(
        &mut self,
        node: &'n Node,
        path: &Path<'_>,
        known: &[&str],
    ) -> &'n [Entry] {
        let Value::Map(entries) = &node.value else {
            let problem = format!("{path} is a map, found {}", node.value.what());
            self.error(node.at, problem, format!("it has {}", known.join(", ")));
            return &[];
        };
        for entry in entries
            .iter()
            .filter(|entry| !known.contains(&entry.key.as_str()))
        {
            let (problem, remedy) = match layer_7(&entry.key) {
                Some(remedy) => (
                    format!(
                        "{path}.{} is a layer 7 field, and mesh-lite decides on connections",
                        entry.key
                    ),
                    remedy.to_owned(),
                ),
                None => (
                    format!("unknown field {path}.{}", entry.key.escape_debug()),
                    format!("{path} has {}", known.join(", ")),
                ),
            };
            self.error(entry.at, problem, remedy);
        }
        entries
    }

    /// The entries of a map whose keys are values themselves; there must be one.
    pub(super) fn open_map<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [Entry] {
        match &node.value {
            Value::Map(entries) if !entries.is_empty() => entries,
            Value::Map(_) | Value::Null => {
                let remedy = "state a value or leave the field out";
                self.error(node.at, format!("{path} is empty"), remedy);
                &[]
            }
            other => {
                let problem = format!("{path} is a map, found {}", other.what());
                self.error(node.at, problem, "write it as {a: b}");
                &[]
            }
        }
    }

    /// The items of a list, which must not be empty: whether that would mean everybody or nobody
    /// is nothing to guess.
    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> &'n [Node] {
        match &node.value {
            Value::List(items) if !items.is_empty() => items,
            Value::List(_) | Value::Null => {
                let remedy = "state a value or leave the field out";
                self.error(node.at, format!("{path} is empty"), remedy);
                &[]
            }
            other => {
                let problem = format!("{path} is a list, found {}", other.what());
                self.error(node.at, problem, "write it as [a, b]");
                &[]
            }
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &Path<'_>) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            other => {
                let problem = format!("{path} is a text, found {}", other.what());
                self.error(
                    node.at,
                    problem,
                    "write a text; put it in quotes if it looks like a number",
                );
                None
            }
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, path: &Path<'_>) -> Option<bool> {
        match &node.value {
            Value::Bool(value) => Some(*value),
            other => {
                let problem = format!("{path} is true or false, found {}", other.what());
                self.error(node.at, problem, "write true or false");
                None
            }
        }
    }

    /// A text that is a `T`.
    pub(super) fn parsed<T>(&mut self, node: &Node, path: &Path<'_>) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        match self.text(node, path)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(node.at, format!("{path}: {error}"), "correct the value");
                None
            }
        }
    }

    /// A port, in quotes as Istio has it or without.
    pub(super) fn port(&mut self, node: &Node, path: &Path<'_>) -> Option<u16> {
        let text = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            other => {
                let problem = format!("{path} is a port, found {}", other.what());
                self.error(node.at, problem, "write a number from 1 to 65535");
                return None;
            }
        };
        match parse_port(&text) {
            Ok(port) => Some(port),
            Err(error) => {
                self.error(node.at, format!("{path}: {error}"), "correct the port");
                None
            }
        }
    }

    /// `selector: {matchLabels: ...}`; none is everybody.
    pub(super) fn read_selector(&mut self, spec: &Node) -> Selector {
        let before = self.errors.len();
        let selector = match spec.entry("selector") {
            None => Selector::default(),
            Some(entry) => {
                let path = Path::root("spec.selector");
                self.map(&entry.value, &path, &["matchLabels"]);
                match entry.value.entry("matchLabels") {
                    None => Selector::default(),
                    Some(labels) => Selector(text_map(
                        &labels.value,
                        "spec.selector.matchLabels",
                        &mut |at, problem, remedy| {
                            self.error(at, problem, remedy);
                        },
                    )),
                }
            }
        };
        if self.errors.len() == before {
            self.selector = Some(selector.clone());
        }
        selector
    }
}

/// Fields of Istio that look into requests, and what to do instead.
fn layer_7(field: &str) -> Option<&'static str> {
    match field {
        "requestPrincipals" | "notRequestPrincipals" => {
            Some("remove it; tokens of end users are the application's to judge")
        }
        "remoteIpBlocks" | "notRemoteIpBlocks" => {
            Some("remove it; ipBlocks are about the address that connects")
        }
        "hosts" | "notHosts" | "methods" | "notMethods" | "paths" | "notPaths" => {
            Some("remove it, or decide on requests in the application")
        }
        "when" => Some("remove it; principals, namespaces, ipBlocks and ports go into from and to"),
        "provider" => Some("remove it; external authorizers judge requests"),
        "targetRef" | "targetRefs" => {
            Some("use selector; gateways and waypoints have no part here")
        }
        _ => None,
    }
}

/// Where a field is, as messages show it: `spec.rules[0].from`.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    above: Option<&'a Self>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(super) const fn root(name: &'a str) -> Self {
        Self {
            above: None,
            step: Step::Key(name),
        }
    }

    pub(super) const fn key(&'a self, key: &'a str) -> Self {
        Self {
            above: Some(self),
            step: Step::Key(key),
        }
    }

    pub(super) const fn index(&'a self, index: usize) -> Self {
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
            Step::Key(key) => write!(f, ".{}", key.escape_debug()),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}
