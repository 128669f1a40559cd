//! What a sidecar says it did.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::eventually::eventually;

#[derive(Debug, Clone)]
pub struct AccessLog {
    pub(crate) path: PathBuf,
}

impl AccessLog {
    /// The file need not be there yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every whole line so far; none if there is no file yet.
    pub fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
            })
            .collect()
    }

    /// Waits for a line of which all `fields` say what is given.
    pub fn wait_for(&self, fields: &[(&str, &str)]) -> Value {
        eventually(
            &format!("{} has a line with {fields:?}", self.path.display()),
            || {
                let lines = self.lines();
                lines
                    .iter()
                    .find(|line| matches(line, fields))
                    .cloned()
                    .ok_or(lines)
            },
        )
    }

    /// How many lines say all that is given.
    pub fn count(&self, fields: &[(&str, &str)]) -> usize {
        self.lines()
            .iter()
            .filter(|line| matches(line, fields))
            .count()
    }

    /// Whether the text occurs in any line.
    pub fn mentions(&self, text: &str) -> bool {
        self.lines()
            .iter()
            .any(|line| line.to_string().contains(text))
    }
}

fn matches(line: &Value, fields: &[(&str, &str)]) -> bool {
    fields
        .iter()
        .all(|(name, wanted)| line[*name].as_str() == Some(*wanted))
}
