//! `mesh-lite redirect`: capture this network namespace, prove it, leave a record.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use ipnet::IpNet;
use mesh_lite_proto::sidecar::SIDECAR_UID;
use mesh_lite_proxy::capture::apply::Backend;
use mesh_lite_proxy::capture::install::install;
use mesh_lite_proxy::capture::rules::{Exclusions, RuleSet};

const EXAMPLES: &str = "\
Examples:
  mesh-lite redirect --state-dir /var/lib/mesh-lite
  mesh-lite redirect --state-dir /var/lib/mesh-lite --skip-outbound-ports 5432 \\
    --skip-subnets 169.254.169.254/32
  ip netns exec shop mesh-lite redirect --backend iptables --state-dir /var/lib/mesh-lite

Exit codes: 0 captured and proved, 1 not captured or not proved, 2 wrong usage.";

/// Capture this network namespace: its TCP connections go through the sidecar from now on.
///
/// Needs NET_ADMIN. Run it before the applications start: connections from before are reset.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Kernel interface to use: auto (nft where installed, else iptables), nft, iptables,
    /// iptables-legacy (which needs NET_RAW as well).
    #[arg(long, env = "MESH_LITE_BACKEND", default_value = "auto", value_parser = backend)]
    backend: Choice,
    /// User whose connections are not captured: the sidecar's.
    #[arg(long, env = "MESH_LITE_PROXY_UID", default_value_t = SIDECAR_UID)]
    proxy_uid: u32,
    /// Ports of this pod that the network reaches without the sidecar, separated by commas.
    #[arg(
        long,
        env = "MESH_LITE_SKIP_INBOUND_PORTS",
        value_delimiter = ',',
        value_name = "PORTS"
    )]
    skip_inbound_ports: Vec<u16>,
    /// Ports that applications reach without the sidecar, separated by commas.
    #[arg(
        long,
        env = "MESH_LITE_SKIP_OUTBOUND_PORTS",
        value_delimiter = ',',
        value_name = "PORTS"
    )]
    skip_outbound_ports: Vec<u16>,
    /// Destinations that applications reach without the sidecar, separated by commas.
    #[arg(
        long,
        env = "MESH_LITE_SKIP_SUBNETS",
        value_delimiter = ',',
        value_name = "CIDRS"
    )]
    skip_subnets: Vec<IpNet>,
    /// Directory for the record that the sidecar demands before it serves.
    #[arg(long, env = "MESH_LITE_STATE_DIR", value_name = "DIR")]
    state_dir: PathBuf,
}

/// `None` is auto.
#[derive(Debug, Clone, Copy)]
struct Choice(Option<Backend>);

fn backend(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice(None)),
        name => name
            .parse()
            .map(|backend| Choice(Some(backend)))
            .map_err(|error| {
                let unknown: mesh_lite_proxy::capture::apply::UnknownBackend = error;
                format!("{unknown}, or auto")
            }),
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let exclusions = Exclusions {
        inbound_ports: args.skip_inbound_ports,
        outbound_ports: args.skip_outbound_ports,
        subnets: args.skip_subnets,
    };
    let rules = RuleSet::new(args.proxy_uid, &exclusions)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let installed = runtime.block_on(install(&rules, args.backend.0, &args.state_dir))?;
    let record = &installed.record;
    println!(
        "captured by {} ({}), user {} exempt; IPv4 {}, IPv6 {}; {}; record: {}",
        record.backend,
        if installed.replaced {
            "earlier rules replaced"
        } else {
            "new"
        },
        record.proxy_uid,
        record.ipv4,
        record.ipv6,
        if installed.flushed {
            "tracked connections forgotten"
        } else {
            "live connections kept"
        },
        installed.path.display(),
    );
    Ok(ExitCode::SUCCESS)
}
