//! `mesh-lite token`: join tokens for workloads.

use std::{path::PathBuf, process::ExitCode};

use mesh_lite_control_plane::{
    WorkloadName, clock,
    lifetime::Lifetime,
    root_commands::{TOKEN_LIFETIME, create_token},
};

const EXAMPLES: &str = "\
Examples:
  mesh-lite token create shop/web --data-dir state > web.token
  mesh-lite proxy --join-token-file web.token ...

The token is printed once, to standard output alone. Whoever has it first becomes the workload:
keep it out of arguments and shell history, hand it over as a file.";

/// Make a join token for a workload.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print a token that one workload can redeem once.
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The Workload document that the token stands for.
    #[arg(value_name = "NAMESPACE/NAME")]
    workload: WorkloadName,
    /// The control plane's data directory.
    #[arg(long, env = "MESH_LITE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// How long it can be redeemed.
    #[arg(long, env = "MESH_LITE_TOKEN_TTL", default_value_t = TOKEN_LIFETIME.into(), value_name = "TIME")]
    ttl: Lifetime,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Action::Create(create) = args.action;
    let token = create_token(
        &create.data_dir,
        &create.workload,
        create.ttl.duration(),
        clock::now(),
    )?;
    println!("{}", token.as_str());
    eprintln!("Good once, for {}, within {}.", create.workload, create.ttl);
    Ok(ExitCode::SUCCESS)
}
