//! `mesh-lite control-plane`: attest workloads, issue their certificates, serve directory and
//! policy.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
};

use anyhow::Context;
use clap::ValueEnum;
use ipnet::IpNet;
use mesh_lite_control_plane::{
    lifetime::Lifetime,
    outbound_rules::OutboundRules,
    run as serve,
    settings::{DocumentSource, LEAF_LIFETIME, Settings},
};
use mesh_lite_proto::{
    identity::parse_trust_domain,
    sidecar::{
        CONTROL_PLANE_METRICS_PORT, CONTROL_PLANE_PORT, DEFAULT_MESH_NAMESPACE,
        DEFAULT_TRUST_DOMAIN,
    },
    workload_directory::{OutboundPolicy, OutboundUnmeshed},
};
use spiffe::TrustDomain;
use tokio::signal::unix::{SignalKind, signal};

use crate::policy::documents::Shipped;

const EXAMPLES: &str = "\
Examples:
  mesh-lite root init --data-dir state
  mesh-lite control-plane --data-dir state --config-dir documents
  mesh-lite control-plane --data-dir state --config-dir documents --leaf-lifetime 1h \\
    --mesh-cidrs 10.0.0.0/8,fd00::/8 --outbound-unmeshed refuse --outbound-unmeshed legacy=allow
  mesh-lite control-plane --kubernetes --data-dir /var/run/mesh-lite/authority

The configuration directory holds .yaml files with documents of the kinds Workload, Service,
AuthorizationPolicy, PeerAuthentication and Eviction; changes take effect within a second.
What is wrong with them: http://127.0.0.1:15014/readyz

With --kubernetes it reads Pods, Services, EndpointSlices, Nodes, ServiceCIDRs, Namespaces and the
custom resources AuthorizationPolicy, PeerAuthentication and Eviction. It is ready, and opens its
gRPC port, once it has read all of them; if the API server goes away later it serves what it knows.
The annotation config.mesh-lite.io/outbound-unmeshed of a Namespace, refuse or allow, counts before
--outbound-unmeshed.

Exit codes: 0 ended by SIGTERM or SIGINT, 1 could not start or go on, 2 wrong usage.";

/// Attest workloads, issue their certificates, serve directory and policy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Issuing CA, trust bundle and join tokens; made by `mesh-lite root init`.
    #[arg(long, env = "MESH_LITE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Documents of workloads, services and policy, watched for change.
    #[arg(
        long,
        env = "MESH_LITE_CONFIG_DIR",
        value_name = "DIR",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes"
    )]
    config_dir: Option<PathBuf>,
    /// Take pods, services and policy from the API server of the cluster, instead of files. Pods
    /// are attested by their service-account tokens; --data-dir is only read.
    #[arg(long, env = "MESH_LITE_KUBERNETES")]
    kubernetes: bool,
    /// How to reach the API server. Without it: KUBECONFIG, or as a pod of the cluster.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// What holds where no policy says anything.
    #[arg(long, env = "MESH_LITE_SHIPPED", value_enum, default_value_t = Shipped::Strict)]
    shipped: Shipped,
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    /// Namespace of the mesh's own workloads; policy in it is for the whole mesh, and only in it
    /// may a document evict workloads of other namespaces.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE)]
    mesh_namespace: String,
    /// Take Istio's documents as they are (security.istio.io/v1 and v1beta1, what there is of layer
    /// 4); those in this namespace, Istio's root namespace, are for the whole mesh.
    #[arg(long, env = "MESH_LITE_ISTIO_ROOT_NAMESPACE", value_name = "NAMESPACE")]
    istio_root_namespace: Option<String>,
    /// gRPC for sidecars, TLS 1.3.
    #[arg(long, env = "MESH_LITE_LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, CONTROL_PLANE_PORT)), value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Metrics, health and readiness, plain HTTP, reads only.
    #[arg(long, env = "MESH_LITE_ADMIN_LISTEN", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, CONTROL_PLANE_METRICS_PORT)), value_name = "ADDRESS")]
    admin_listen: SocketAddr,
    /// How long workloads' certificates live. Below 5m only for tests, never below 10s.
    #[arg(long, env = "MESH_LITE_LEAF_LIFETIME", default_value_t = LEAF_LIFETIME.into(), value_name = "TIME")]
    leaf_lifetime: Lifetime,
    /// Addresses inside the mesh: no others may be claimed by Workload and Service documents
    /// outside the mesh namespace. Private ranges, if none are named.
    #[arg(
        long,
        env = "MESH_LITE_MESH_CIDRS",
        value_delimiter = ',',
        value_name = "CIDRS"
    )]
    mesh_cidrs: Vec<IpNet>,
    /// Exceptions: addresses that count as outside.
    #[arg(
        long,
        env = "MESH_LITE_EXTERNAL_CIDRS",
        value_delimiter = ',',
        value_name = "CIDRS"
    )]
    external_cidrs: Vec<IpNet>,
    /// Plaintext from sidecars to workloads without one: `refuse` or `allow`, and
    /// `NAMESPACE=allow` or `NAMESPACE=refuse` for callers of one namespace.
    #[arg(
        long,
        env = "MESH_LITE_OUTBOUND_UNMESHED",
        value_delimiter = ',',
        default_value = "refuse",
        value_name = "RULES"
    )]
    outbound_unmeshed: Vec<UnmeshedRule>,
    /// Plaintext from sidecars to the outside.
    #[arg(long, env = "MESH_LITE_OUTBOUND_POLICY", value_enum, default_value_t = Policy::AllowAny)]
    outbound_policy: Policy,
    /// Make keys here for SDS clients that bring no certificate request (plain Envoy without a
    /// sidecar), and send them over TLS. Without it they get bundles only.
    #[arg(long, env = "MESH_LITE_ALLOW_REMOTE_KEYS")]
    allow_remote_keys: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Policy {
    /// It passes, counted.
    AllowAny,
    /// Only to names that the directory knows.
    RegistryOnly,
}

/// `refuse`, `allow`, `NAMESPACE=refuse` or `NAMESPACE=allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct UnmeshedRule {
    namespace: Option<String>,
    rule: OutboundUnmeshed,
}

impl FromStr for UnmeshedRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, rule) = match text.split_once('=') {
            Some((namespace, rule)) => (Some(namespace.to_owned()), rule),
            None => (None, text),
        };
        let rule = match rule {
            "refuse" => OutboundUnmeshed::Refuse,
            "allow" => OutboundUnmeshed::Allow,
            _ => return Err("write refuse, allow, NAMESPACE=refuse or NAMESPACE=allow".to_owned()),
        };
        Ok(Self { namespace, rule })
    }
}

impl Args {
    fn settings(self) -> anyhow::Result<Settings> {
        let mut unmeshed = None;
        let mut unmeshed_by_namespace = BTreeMap::new();
        for UnmeshedRule { namespace, rule } in self.outbound_unmeshed {
            let said_before = match namespace {
                None => unmeshed.replace(rule),
                Some(namespace) => unmeshed_by_namespace.insert(namespace, rule),
            };
            if said_before.is_some_and(|before| before != rule) {
                anyhow::bail!(
                    "--outbound-unmeshed says both refuse and allow of the same namespace"
                );
            }
        }
        Ok(Settings {
            data_dir: self.data_dir,
            documents: match self.config_dir {
                Some(directory) => DocumentSource::Directory(directory),
                None => DocumentSource::Kubernetes {
                    kubeconfig: self.kubeconfig,
                },
            },
            shipped: self.shipped.defaults(),
            trust_domain: self.trust_domain,
            mesh_namespace: self.mesh_namespace,
            istio_root_namespace: self.istio_root_namespace,
            listen: self.listen,
            admin_listen: self.admin_listen,
            leaf_lifetime: self.leaf_lifetime.duration(),
            outbound: OutboundRules {
                mesh_cidrs: self.mesh_cidrs,
                external_cidrs: self.external_cidrs,
                policy: match self.outbound_policy {
                    Policy::AllowAny => OutboundPolicy::AllowAny,
                    Policy::RegistryOnly => OutboundPolicy::RegistryOnly,
                },
                unmeshed: unmeshed.unwrap_or_default(),
                unmeshed_by_namespace,
            },
            allow_remote_keys: self.allow_remote_keys,
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
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be handled")?;
        let ended = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // the log says where it listens
        serve(settings, ended, |_| {}).await?;
        Ok(ExitCode::SUCCESS)
    })
}
