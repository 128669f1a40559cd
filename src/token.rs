//! `mesh-lite token`: join tokens for workloads.

use std::{path::PathBuf, process::ExitCode};

use mesh_lite_control_plane::{
    WorkloadName, clock,
    lifetime::Lifetime,
    root_commands::{TOKEN_LIFETIME, create_stream_token, create_token},
};

const EXAMPLES: &str = "\
Examples:
  mesh-lite token create shop/web --data-dir state > web.token
  mesh-lite proxy --join-token-file web.token ...
  mesh-lite token create shop/web --data-dir state --reusable --ttl 1h > envoy.token

The token is printed once, to standard output alone. Whoever has it first becomes the workload, and
whoever has a reusable one is the workload until it expires: keep it out of arguments and shell
history, hand it over as a file.";

/// Make a join token for a workload.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print a token that one workload can redeem once, or, with --reusable, show again and again.
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
    /// How long it is good for.
    #[arg(long, env = "MESH_LITE_TOKEN_TTL", default_value_t = TOKEN_LIFETIME.into(), value_name = "TIME")]
    ttl: Lifetime,
    /// For SDS clients without a certificate request (Envoy, straight at the control plane): the
    /// token opens streams any number of times until it expires, and signs nothing. Bundles come
    /// with it; keys only if the control plane runs with --allow-remote-keys.
    #[arg(long, env = "MESH_LITE_TOKEN_REUSABLE")]
    reusable: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Action::Create(create) = args.action;
    let (make, good): (fn(&_, &_, _, _) -> _, _) = if create.reusable {
        (create_stream_token, "Opens SDS streams")
    } else {
        (create_token, "Good once")
    };
    let token = make(
        &create.data_dir,
        &create.workload,
        create.ttl.duration(),
        clock::now(),
    )?;
    println!("{}", token.as_str());
    eprintln!("{good}, for {}, within {}.", create.workload, create.ttl);
    Ok(ExitCode::SUCCESS)
}
