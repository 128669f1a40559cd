//! What a control plane costs, and how fast the mesh follows it: one real control plane on this
//! machine, thousands of callers with certificates of their own, and live connections that are
//! cut.
//!
//!     cargo bench --bench streams
//!     cargo bench --bench streams -- --streams 500 --parts bundle,issuance --json figures.json

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

mod bundle;
mod caller;
mod control_plane;
mod cuts;
mod figures;
mod issuance;
mod process;

use caller::Site;
use control_plane::ControlPlane;
use figures::Figures;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Connections, streams, and a change of the trust bundle that reaches all of them.
    Bundle,
    /// Renewals on the open connections.
    Issuance,
    /// Live connections cut by an eviction and by a policy.
    Cuts,
}

#[derive(Debug, Parser)]
#[command(about, long_about = None)]
struct Settings {
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_values = ["bundle", "issuance", "cuts"])]
    parts: Vec<Part>,
    /// SDS streams, each on a connection of its own.
    #[arg(long, default_value_t = 5000)]
    streams: usize,
    /// Identities that the streams' callers share evenly, as replicas do.
    #[arg(long, default_value_t = 1000)]
    identities: usize,
    /// Certificates that are renewed; each identity renews in turn, and may do so five times.
    #[arg(long, default_value_t = 2000)]
    renewals: usize,
    /// Changes of the trust bundle; cuts of each kind.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Live connections of the identity that is cut; as many of another are not to be touched.
    #[arg(long, default_value_t = 200)]
    connections: usize,
    /// Writes the figures to this file as well, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let mut figures = Figures::default();
    if settings
        .parts
        .iter()
        .any(|part| matches!(part, Part::Bundle | Part::Issuance))
    {
        control_plane(&settings, &mut figures).await?;
    }
    if settings.parts.contains(&Part::Cuts) {
        cuts::measure(&mut figures, settings.connections, settings.rounds).await?;
    }
    println!("{figures}");
    if let Some(path) = &settings.json {
        std::fs::write(path, figures.to_json())
            .with_context(|| format!("the figures can't be written to {}", path.display()))?;
    }
    Ok(())
}

async fn control_plane(settings: &Settings, figures: &mut Figures) -> anyhow::Result<()> {
    process::raise_open_files(settings.streams)?;
    let identities = settings.identities.min(settings.streams);
    let control_plane = ControlPlane::start(identities, settings.rounds)?;
    let site = Site::of(control_plane.mesh())?;
    let callers = issuance::first(&control_plane, &site, identities, figures).await?;
    let mut streams =
        bundle::open(&control_plane, &site, &callers, settings.streams, figures).await?;
    if settings.parts.contains(&Part::Bundle) {
        bundle::change(&control_plane, &mut streams, settings.rounds, figures).await?;
    }
    if settings.parts.contains(&Part::Issuance) {
        let channels = streams.channels();
        issuance::renew(
            &control_plane,
            &callers,
            channels,
            settings.renewals,
            figures,
        )
        .await?;
    }
    Ok(())
}
