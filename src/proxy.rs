//! `mesh-lite proxy`: the sidecar.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use mesh_lite_proto::{
    app_probes::AppProbes,
    identity::parse_trust_domain,
    sidecar::{
        ADMIN_PORT, DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN, HEALTH_PORT,
        INBOUND_PLAINTEXT_PORT, METRICS_PORT, OUTBOUND_PORT, TUNNEL_PORT,
    },
    workload_directory::ServiceName,
};
use mesh_lite_proxy::{
    access_log::Target,
    app_probes::NodeAddresses,
    control::ControlConfig,
    drain::Patience,
    identity::token_file::TokenFile,
    limits::{max_connections, raise_open_files},
    memory_limit,
    metrics::MetricsPrefix,
    outbound::Upstream,
    sidecar::{self, Addresses, Capture, Listen, SidecarConfig, Signals},
    workload_socket::WorkloadSocketConfig,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  In a pod, after `mesh-lite redirect --state-dir /state`:
    mesh-lite proxy --control-plane mesh-lite:15012 --trust-bundle /trust/bundle.pem \\
      --join-token-file /token --data-dir /state --capture-state-dir /state

  Without capture: the application dials localhost:8081 for the api of namespace shop, and
  itself listens on localhost:8080:
    mesh-lite proxy --control-plane 10.0.0.1:15012 --trust-bundle bundle.pem \\
      --join-token-file token --data-dir state --capture explicit \\
      --upstreams 8081=shop/api:8080 --inbound-ports 8080

Exit codes: 0 drained and ended, 1 could not start, 2 wrong usage.";

/// Run the sidecar of one workload until SIGTERM, then drain.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The control plane, host:port.
    #[arg(long, env = "MESH_LITE_CONTROL_PLANE", value_name = "HOST:PORT")]
    control_plane: String,
    /// Roots of the trust domain, PEM.
    #[arg(long, env = "MESH_LITE_TRUST_BUNDLE", value_name = "FILE")]
    trust_bundle: PathBuf,
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: spiffe::TrustDomain,
    /// Namespace of the mesh's own workloads: the control plane must prove that it is of it.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE)]
    mesh_namespace: String,
    /// Proves who this workload is, once; read anew until there is a certificate.
    #[arg(long, env = "MESH_LITE_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// In a pod instead: its projected service-account token, for the audience mesh-lite. Read anew
    /// for each certificate and each stream.
    #[arg(
        long,
        env = "MESH_LITE_SERVICE_ACCOUNT_TOKEN_FILE",
        conflicts_with = "join_token_file",
        value_name = "FILE"
    )]
    service_account_token_file: Option<PathBuf>,
    /// For key, certificate, policy and directory, so that a restart needs nobody.
    #[arg(long, env = "MESH_LITE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Spreads renewals over a mesh. The data directory's path if not set.
    #[arg(long, env = "MESH_LITE_POD_UID", value_name = "UID")]
    pod_uid: Option<String>,
    /// How the application's connections get here.
    #[arg(long, env = "MESH_LITE_CAPTURE", value_enum, default_value_t = CaptureKind::Transparent)]
    capture: CaptureKind,
    /// Where `redirect` left its record. The data directory if not set.
    #[arg(long, env = "MESH_LITE_CAPTURE_STATE_DIR", value_name = "DIR")]
    capture_state_dir: Option<PathBuf>,
    /// Keep tls.key, tls.crt and ca.crt here for the application: a key and certificate of their
    /// own, with the names of the services that this workload is behind.
    #[arg(long, env = "MESH_LITE_FILES_DIR", value_name = "DIR")]
    files_dir: Option<PathBuf>,
    /// Explicit capture: [ADDRESS:]PORT=NAMESPACE/SERVICE:PORT, separated by commas.
    #[arg(
        long,
        env = "MESH_LITE_UPSTREAMS",
        value_delimiter = ',',
        value_name = "UPSTREAMS"
    )]
    upstreams: Vec<NamedUpstream>,
    /// Explicit capture: ports of the application on 127.0.0.1 that others may reach.
    #[arg(
        long,
        env = "MESH_LITE_INBOUND_PORTS",
        value_delimiter = ',',
        value_name = "PORTS"
    )]
    inbound_ports: Vec<u16>,
    /// off, stdout, or a file: a JSON line when a connection opens and one when it closes.
    #[arg(
        long,
        env = "MESH_LITE_ACCESS_LOG",
        default_value = "stdout",
        value_name = "TARGET"
    )]
    access_log: Target,
    /// First part of every metric's name; istio makes existing dashboards work.
    #[arg(long, env = "MESH_LITE_METRICS_PREFIX", default_value = "mesh_lite")]
    metrics_prefix: MetricsPrefix,
    /// Threads of the data path. As many as the process may use CPUs if not set.
    #[arg(long, env = "MESH_LITE_WORKERS", value_name = "N")]
    workers: Option<std::num::NonZeroUsize>,
    /// From SIGTERM to the first refusal, in seconds: others must hear of it first.
    #[arg(
        long,
        env = "MESH_LITE_DRAIN_DELAY",
        default_value_t = 5,
        value_name = "SECONDS"
    )]
    drain_delay: u64,
    /// From SIGTERM to the end of connections that are still open, in seconds.
    #[arg(
        long,
        env = "MESH_LITE_SHUTDOWN_GRACE_PERIOD",
        default_value_t = 25,
        value_name = "SECONDS"
    )]
    shutdown_grace_period: u64,
    /// The application's probes that the kubelet asks this sidecar for: a table in JSON, as the
    /// injector writes it.
    #[arg(
        long,
        env = "MESH_LITE_PROBES",
        hide_env_values = true,
        default_value = "",
        value_name = "JSON"
    )]
    probes: AppProbes,
    /// Of the node that this pod is on, with commas: from there the kubelet asks for the
    /// application's hooks (preStop, postStart).
    #[arg(
        long,
        env = "MESH_LITE_NODE_ADDRESSES",
        default_value = "",
        value_name = "ADDRESSES"
    )]
    node_addresses: NodeAddresses,
    // last: what follows a flattened group is shown under its heading
    #[command(flatten)]
    listeners: Listeners,
    #[command(flatten)]
    workload_socket: WorkloadSocketArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Certificates for other programs of this workload")]
struct WorkloadSocketArgs {
    /// Unix socket on which Envoy and other SDS clients (over gRPC, with `authority: localhost`)
    /// get this workload's key, certificate and trust bundle. None if not set.
    #[arg(
        long = "workload-socket",
        id = "workload_socket",
        env = "MESH_LITE_WORKLOAD_SOCKET",
        value_parser = socket_path,
        value_name = "PATH"
    )]
    path: Option<PathBuf>,
    /// Users that may, beside the sidecar's own and root.
    #[arg(
        long = "workload-socket-uids",
        id = "workload_socket_uids",
        env = "MESH_LITE_WORKLOAD_SOCKET_UIDS",
        value_delimiter = ',',
        requires = "workload_socket",
        value_name = "UIDS"
    )]
    users: Vec<u32>,
}

/// An address instead of a path would not be a Unix socket, where alone a key may be handed out.
fn socket_path(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') && !text.ends_with('/') {
        return Ok(text.into());
    }
    Err(format!(
        "{text:?} is not the absolute path of a Unix socket, as in /var/run/mesh-lite/socket: a key is never \
         handed out over TCP"
    ))
}

impl WorkloadSocketArgs {
    fn into_config(self) -> Option<WorkloadSocketConfig> {
        let users = self.users;
        self.path.map(|path| WorkloadSocketConfig { path, users })
    }
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Addresses to listen on")]
struct Listeners {
    /// Other sidecars. Every address, port 15008, if not set.
    #[arg(
        long,
        env = "MESH_LITE_TUNNEL_LISTEN",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    tunnel_listen: Vec<SocketAddr>,
    /// Captured outbound connections. Loopback, port 15001, if not set.
    #[arg(
        long,
        env = "MESH_LITE_OUTBOUND_LISTEN",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    outbound_listen: Vec<SocketAddr>,
    /// Captured inbound plaintext. Every address, port 15006, if not set.
    #[arg(
        long,
        env = "MESH_LITE_INBOUND_LISTEN",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    inbound_listen: Vec<SocketAddr>,
    /// What only people with a shell here may read: must be on loopback.
    #[arg(long, env = "MESH_LITE_ADMIN_LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)), value_name = "ADDRESS")]
    admin_listen: SocketAddr,
    /// Prometheus. Every address, port 15020, if not set.
    #[arg(
        long,
        env = "MESH_LITE_METRICS_LISTEN",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    metrics_listen: Vec<SocketAddr>,
    /// Probes. Every address, port 15021, if not set.
    #[arg(
        long,
        env = "MESH_LITE_HEALTH_LISTEN",
        value_delimiter = ',',
        value_name = "ADDRESSES"
    )]
    health_listen: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CaptureKind {
    /// The kernel redirects the application's connections: it need not know of the mesh.
    Transparent,
    /// The application dials local ports and listens on loopback: no privileges needed.
    Explicit,
}

#[derive(Debug, Clone)]
struct NamedUpstream {
    listen: SocketAddr,
    upstream: Upstream,
}

impl FromStr for NamedUpstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is not [ADDRESS:]PORT=NAMESPACE/SERVICE:PORT, as in 8081=shop/api:8080"
            )
        };
        let (listen, target) = text.split_once('=').ok_or_else(wrong)?;
        let listen = match listen.parse::<u16>() {
            Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Err(_) => listen.parse().map_err(|_| wrong())?,
        };
        if !listen.ip().is_loopback() {
            return Err(format!(
                "{listen} is not on loopback: others could use this workload's identity"
            ));
        }
        let (service, port) = target.rsplit_once(':').ok_or_else(wrong)?;
        let (namespace, name) = service.split_once('/').ok_or_else(wrong)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?;
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(wrong());
        }
        let service = ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        Ok(Self {
            listen,
            upstream: Upstream { service, port },
        })
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    crate::logging::start();
    let config = args.into_config()?;
    sidecar::run(config, Terminations::listen).context("the sidecar could not run")?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn into_config(self) -> anyhow::Result<SidecarConfig> {
        if self.capture == CaptureKind::Transparent
            && !(self.upstreams.is_empty() && self.inbound_ports.is_empty())
        {
            anyhow::bail!("--upstreams and --inbound-ports belong to --capture explicit");
        }
        let workers = match self.workers {
            Some(workers) => workers,
            None => available_parallelism().context("can't tell how many CPUs there are")?,
        };
        let capture = match self.capture {
            CaptureKind::Transparent => Capture::Transparent {
                state_dir: self
                    .capture_state_dir
                    .unwrap_or_else(|| self.data_dir.clone()),
            },
            CaptureKind::Explicit => Capture::Explicit {
                upstreams: self
                    .upstreams
                    .into_iter()
                    .map(|named| (named.listen, named.upstream))
                    .collect(),
                inbound_ports: self.inbound_ports,
            },
        };
        Ok(SidecarConfig {
            control: ControlConfig {
                pod_uid: self
                    .pod_uid
                    .unwrap_or_else(|| self.data_dir.display().to_string()),
                control_plane: self.control_plane,
                trust_bundle: self.trust_bundle,
                trust_domain: self.trust_domain,
                mesh_namespace: self.mesh_namespace,
                token_file: self
                    .service_account_token_file
                    .map(TokenFile::ServiceAccount)
                    .or_else(|| self.join_token_file.map(TokenFile::Join)),
                data_dir: self.data_dir,
                files_dir: self.files_dir,
            },
            capture,
            app_probes: self.probes,
            node_addresses: self.node_addresses,
            addresses: self.listeners.into_addresses(),
            workload_socket: self.workload_socket.into_config(),
            access_log: self.access_log,
            metrics_prefix: self.metrics_prefix,
            workers: workers.get(),
            max_connections: max_connections(memory_limit::read(), raise_open_files()),
            patience: Patience {
                delay: Duration::from_secs(self.drain_delay),
                grace: Duration::from_secs(self.shutdown_grace_period),
            },
        })
    }
}

impl Listeners {
    fn into_addresses(self) -> Addresses {
        let or = |addresses: Vec<SocketAddr>, default: Listen| {
            if addresses.is_empty() {
                default
            } else {
                Listen::At(addresses)
            }
        };
        Addresses {
            tunnel: or(self.tunnel_listen, Listen::Everywhere(TUNNEL_PORT)),
            outbound: or(self.outbound_listen, Listen::Loopback(OUTBOUND_PORT)),
            inbound_plaintext: or(
                self.inbound_listen,
                Listen::Everywhere(INBOUND_PLAINTEXT_PORT),
            ),
            admin: self.admin_listen,
            metrics: or(self.metrics_listen, Listen::Everywhere(METRICS_PORT)),
            health: or(self.health_listen, Listen::Everywhere(HEALTH_PORT)),
        }
    }
}

/// SIGTERM and SIGINT.
struct Terminations {
    terminate: Signal,
    interrupt: Signal,
}

impl Terminations {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl Signals for Terminations {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_named_by_port_and_service() {
        let named: NamedUpstream = "8081=shop/api:8080".parse().unwrap();
        assert_eq!(named.listen, "127.0.0.1:8081".parse().unwrap());
        assert_eq!(
            (named.upstream.service.to_string(), named.upstream.port),
            ("shop/api".to_owned(), 8080)
        );
        assert_eq!(
            "[::1]:8081=shop/api:80"
                .parse::<NamedUpstream>()
                .unwrap()
                .listen,
            "[::1]:8081".parse().unwrap()
        );
    }

    /// SDS-S25
    #[test]
    fn a_workload_socket_is_a_path_and_never_an_address() {
        assert_eq!(socket_path("/run/a/socket"), Ok("/run/a/socket".into()));
        for text in [
            "",
            "127.0.0.1:15030",
            "tcp://0.0.0.0:1",
            "unix:///run/a",
            "run/a",
            "/run/",
        ] {
            let refused = socket_path(text).unwrap_err();
            assert!(refused.contains("never handed out over TCP"), "{refused}");
        }
    }

    #[test]
    fn an_upstream_that_is_not_one_is_refused_in_words() {
        for text in [
            "",
            "8081",
            "8081=",
            "8081=shop:80",
            "8081=shop/api",
            "8081=shop/api:0",
            "8081=shop/api:99999",
            "x=shop/api:80",
            "8081=/api:80",
            "8081=shop/:80",
            "8081=shop/a/b:80",
            "0.0.0.0:8081=shop/api:80",
            "10.0.0.1:8081=shop/api:80",
        ] {
            assert!(text.parse::<NamedUpstream>().is_err(), "{text}");
        }
    }
}
