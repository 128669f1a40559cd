//! `mesh-lite policy schema`: what documents may say, for editors.

use std::process::ExitCode;

use super::review::unless_unreadable;
use crate::terminal;

/// JSON Schema, draft 2020-12, of all kinds of documents.
const SCHEMA: &str = include_str!("../../deploy/schema/mesh-lite.io-v1.json");

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    unless_unreadable(|| {
        terminal::print(SCHEMA)?;
        Ok(ExitCode::SUCCESS)
    })
}
