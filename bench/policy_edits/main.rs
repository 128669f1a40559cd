//! What an edit of policy does to many live connections, and how soon: a real control plane, two
//! sidecars of web that hold all connections but one, guest's that holds the one, two of api.
//!
//!     cargo bench --bench policy_edits
//!     cargo bench --bench policy_edits -- --connections 1000 --rounds 3 --json figures.json

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

mod application;
mod crowd;
mod edits;
#[path = "../streams/figures.rs"]
mod figures;
#[path = "../streams/process.rs"]
mod process;
mod rounds;
mod sidecars;
mod timeline;

use figures::Figures;

#[derive(Debug, Parser)]
#[command(about, long_about = None)]
struct Settings {
    /// Live connections, one of which is guest's.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..))]
    connections: u32,
    /// Edits of each kind.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Edits that cut every connection, which are then opened again.
    #[arg(long, default_value_t = 3)]
    rounds_of_all: u32,
    /// Policies of other workloads, with which the edits are made again.
    #[arg(long, default_value_t = 10_000)]
    policies: usize,
    /// Writes the figures to this file as well, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Be the application that is called by so many.
    #[arg(long, hide = true, exclusive = true)]
    serve: Option<usize>,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    if let Some(connections) = settings.serve {
        return application::serve(connections).await;
    }
    let mut figures = Figures::default();
    rounds::measure(&settings, &mut figures).await?;
    println!("{figures}");
    if let Some(path) = &settings.json {
        std::fs::write(path, figures.to_json())
            .with_context(|| format!("the figures can't be written to {}", path.display()))?;
    }
    Ok(())
}
