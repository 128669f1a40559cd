//! `mesh-lite policy`: what policy does, before it does it.

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) mod documents;
mod from_cluster;
mod lint;
mod plan;
mod replay;
pub(crate) mod review;
mod schema;
mod suggest;
mod test;

pub(crate) use documents::DocumentArgs;
pub(crate) use lint::count;

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy lint documents                 before anything else
  mesh-lite policy test documents                 the tests that policies carry
  mesh-lite policy plan --config-dir new          what would close, and open
  mesh-lite policy replay --config-dir new --records api-1.jsonl
  mesh-lite policy suggest --config-dir documents --records api-1.jsonl
  mesh-lite policy documents --to cluster         what a cluster has
  mesh-lite policy schema > mesh-lite.json        for an editor

Each tool's --help has more, and its exit codes.";

/// What policy does, before it does it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    /// Say everything that is wrong or odd with documents, each with file and line.
    Lint(lint::Args),
    /// Run the tests that policies carry.
    Test(test::Args),
    /// Say what documents would close and open among the connections of running sidecars.
    Plan(plan::Args),
    /// Judge recorded connections by other documents: which would flip, and by which rule.
    Replay(replay::Args),
    /// Write the least policy that lets recorded connections through.
    Suggest(suggest::Args),
    /// Print policy, pods and services of a cluster as documents.
    Documents(from_cluster::Args),
    /// Print the JSON Schema of documents, for editors.
    Schema,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.tool {
        Tool::Lint(args) => lint::run(args),
        Tool::Test(args) => test::run(args),
        Tool::Plan(args) => plan::run(args),
        Tool::Replay(args) => replay::run(args),
        Tool::Suggest(args) => suggest::run(args),
        Tool::Documents(args) => from_cluster::run(args),
        Tool::Schema => schema::run(),
    }
}
