//! `mesh-lite policy schema`: what documents may say, for editors.

use std::process::ExitCode;

/// JSON Schema, draft 2020-12, of all kinds of documents.
const SCHEMA: &str = include_str!("../../deploy/schema/mesh-lite.io-v1.json");

pub(crate) fn run() -> ExitCode {
    print!("{SCHEMA}");
    ExitCode::SUCCESS
}
