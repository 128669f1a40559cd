//! `mesh-lite injector`: the mutating webhook that adds the sidecar to pods.

use std::{
    net::{Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use mesh_lite_control_plane::lifetime::Lifetime;
use mesh_lite_injector::{
    clock,
    webhook::{self, DRAIN, Pace, Settings, run as serve},
};
use mesh_lite_proto::sidecar::{CONTROL_PLANE_METRICS_PORT, WEBHOOK_PORT};
use tokio::signal::unix::{SignalKind, signal};

use crate::mesh_settings::MeshArgs;

const EXAMPLES: &str = "\
Examples:
  mesh-lite injector --image mesh-lite:0.1.0        in a pod, as `mesh-lite install` has it
  KUBECONFIG=admin.kubeconfig mesh-lite injector --image mesh-lite:0.1.0 \\
    --listen 127.0.0.1:15017 --admin-listen 127.0.0.1:15014

It needs a MutatingWebhookConfiguration named mesh-lite-injector, in which it keeps caBundle; its
own certificate is in the Secret mesh-lite-injector-serving, which all replicas share. What is
missing: http://127.0.0.1:15014/readyz

Exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start, 2 wrong usage.";

/// The mutating webhook: adds the sidecar to pods, by the label of their namespace.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    mesh: MeshArgs,
    /// The webhook, TLS 1.3. `[::]` is IPv4 too, and IPv4 only where there is no IPv6.
    #[arg(long, env = "MESH_LITE_LISTEN", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, WEBHOOK_PORT)), value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Health, readiness and metrics, plain HTTP, reads only.
    #[arg(long, env = "MESH_LITE_ADMIN_LISTEN", default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, CONTROL_PLANE_METRICS_PORT)), value_name = "ADDRESS")]
    admin_listen: SocketAddr,
    /// How long it goes on answering after SIGTERM, until nobody calls this replica any more.
    #[arg(long, env = "MESH_LITE_DRAIN_DELAY", default_value_t = DRAIN.into(), value_name = "TIME")]
    drain_delay: Lifetime,
}

impl Args {
    fn settings(self) -> anyhow::Result<Settings> {
        Ok(Settings {
            listen: self.listen,
            admin_listen: self.admin_listen,
            mesh: self.mesh.settings()?,
            drain: self.drain_delay.duration(),
            pace: Pace::default(),
        })
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::logging::start();
    let settings = args.settings()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
        let ended = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let client = webhook::client().await?;
        // the log says where it listens
        serve(settings, client, clock::now, ended, |_| {}).await?;
        Ok(ExitCode::SUCCESS)
    });
    // watches that wait for the API server are not waited for
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}
