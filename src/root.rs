//! `mesh-lite root`: makes the root of a mesh, signs its issuing CAs, or takes over one that
//! another PKI signed.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use mesh_lite_control_plane::{
    clock,
    lifetime::Lifetime,
    root_commands::{
        Import, MeshInCluster, NewRoot, Places, ROOT_LIFETIME, Renewal, RootMode, When,
        import_authority, init_cluster_root, init_root, renew_cluster_root, renew_root,
        renewal_is_due, root_trust_domain,
    },
};
use mesh_lite_proto::{
    identity::parse_trust_domain,
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};
use spiffe::TrustDomain;

mod report;

const EXAMPLES: &str = "\
Examples:
  mesh-lite root init --data-dir state --trust-domain example.org
  mesh-lite root init --data-dir state --root-dir /secure/mesh-root --root-mode offline
  mesh-lite root renew --data-dir state             sign the next issuing CA now
  mesh-lite root renew --data-dir state --if-due    the same, for a daily timer
  mesh-lite root import --data-dir state --chain ca.pem --key ca.key --roots roots.pem

Root modes:
  kept     The root's key lies where a daily timer may read it and the control plane may not;
           the timer signs the next issuing CA at half of its life (30d, at most 90d). A timer
           that runs as root leaves files to the user who owns the data directory.
  offline  The root's key is out of reach until a person brings it. An issuing CA lives a year
           (at most 366d). The control plane's log, /readyz and the metric
           mesh_lite_control_plane_time_to_breakage_seconds speak of its end 60 days before.
The mode is kept in the data directory, beside the issuing CA.

In a cluster, with --kubernetes, the keys lie in the mesh's namespace:
  Secret mesh-lite-root             root.pem, which only the service account mesh-lite-root reads
  Secret mesh-lite-issuing-ca       issuing-ca.pem and root-mode
  ConfigMap mesh-lite-trust-bundle  trust-bundle.pem
`mesh-lite install` has a Job and a CronJob for it:
  mesh-lite root init --kubernetes                  makes what is missing, replaces nothing
  mesh-lite root renew --kubernetes                 signs at half life, repairs the trust bundle
With a root that no cluster ever sees, a person runs, once and then before each end:
  mesh-lite root init --kubernetes --root-mode offline --root-dir /secure/mesh-root
  mesh-lite root renew --kubernetes --root-dir /secure/mesh-root
With an issuing CA of another PKI (`root import` checks it), and without any rights of ours:
  kubectl -n mesh-lite-system create secret generic mesh-lite-issuing-ca \\
    --from-file=issuing-ca.pem=state/issuing/issuing-ca.pem --from-literal=root-mode=offline
  kubectl -n mesh-lite-system create configmap mesh-lite-trust-bundle \\
    --from-file=trust-bundle.pem=state/trust-bundle.pem
With cert-manager: a Certificate with isCA: true and secretName: mesh-lite-issuing-ca; then `root
init --kubernetes` only puts its ca.crt into the trust bundle.

Exit codes: 0 done, or nothing to do; 1 it could not be done; 2 wrong usage.";

/// Make the root of the mesh, sign the next issuing CA, or import one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a root key, its certificate, the first issuing CA and the trust bundle. On a mesh
    /// that has a root: the next root, in another --root-dir.
    Init(Init),
    /// Sign the next issuing CA with the root; a running control plane takes it over.
    Renew(Renew),
    /// Take over an issuing CA that another PKI signed, with its intermediates.
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
struct Directories {
    /// The control plane's data directory.
    #[arg(
        long,
        env = "MESH_LITE_DATA_DIR",
        required_unless_present = "kubernetes",
        value_name = "DIR"
    )]
    data_dir: Option<PathBuf>,
    /// Where the root's key lies, if not in `root` under the data directory (with --kubernetes: in
    /// its Secret). The control plane never reads it.
    #[arg(long, env = "MESH_LITE_ROOT_DIR", value_name = "DIR")]
    root_dir: Option<PathBuf>,
    /// Who brings the root when an issuing CA is to be signed: a timer (kept) or a person
    /// (offline). Kept in a new mesh; else what it was before.
    #[arg(long, env = "MESH_LITE_ROOT_MODE", value_parser = root_mode(), value_name = "MODE")]
    root_mode: Option<RootMode>,
    /// How long the issuing CA lives, at least twice as long as leaves. 30d in root mode kept,
    /// 365d in offline.
    #[arg(long, env = "MESH_LITE_ISSUING_LIFETIME", value_name = "TIME")]
    issuing_lifetime: Option<Lifetime>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    kubernetes: Kubernetes,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "In a cluster")]
struct Kubernetes {
    /// Keep the keys in Secrets of the cluster, not in a data directory. KUBECONFIG says which, or
    /// the pod that this runs in.
    #[arg(long, env = "MESH_LITE_KUBERNETES", conflicts_with = "data_dir")]
    kubernetes: bool,
    /// Where the Secrets lie.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE)]
    mesh_namespace: String,
}

#[derive(Debug, clap::Args)]
struct Init {
    #[command(flatten)]
    directories: Directories,
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    #[arg(long, env = "MESH_LITE_ROOT_LIFETIME", default_value_t = ROOT_LIFETIME.into(), value_name = "TIME")]
    root_lifetime: Lifetime,
}

#[derive(Debug, clap::Args)]
struct Renew {
    #[command(flatten)]
    directories: Directories,
    /// Only if the issuing CA is past half of its life. With --kubernetes that is always so.
    #[arg(long)]
    if_due: bool,
    /// Sign now, also with --kubernetes.
    #[arg(long, conflicts_with = "if_due")]
    force: bool,
    /// With --kubernetes: the mesh that the keys must be of.
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// The control plane's data directory.
    #[arg(long, env = "MESH_LITE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    /// PEM: the issuing CA, then the CA that signed it, and so on up to the root.
    #[arg(long, value_name = "FILE")]
    chain: PathBuf,
    /// The issuing CA's key, PEM, PKCS#8, not encrypted.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// PEM: roots to add to the trust bundle. Needed if its root is not there yet.
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

fn root_mode() -> impl TypedValueParser<Value = RootMode> {
    PossibleValuesParser::new(["kept", "offline"]).try_map(|word| word.parse::<RootMode>())
}

impl Directories {
    /// Not asked for with --kubernetes, where there is no data directory.
    fn places(&self) -> Places {
        Places {
            data_dir: self.data_dir.clone().unwrap_or_default(),
            root_dir: self.root_dir.clone(),
        }
    }

    async fn cluster(&self) -> anyhow::Result<MeshInCluster> {
        let namespace = self.kubernetes.mesh_namespace.clone();
        Ok(MeshInCluster::connect(namespace, self.root_dir.clone()).await?)
    }

    fn issuing_lifetime(&self) -> Option<std::time::Duration> {
        self.issuing_lifetime.map(Lifetime::duration)
    }
}

impl Init {
    fn run(self) -> anyhow::Result<()> {
        let init = self;
        let new = NewRoot {
            trust_domain: init.trust_domain,
            root_lifetime: init.root_lifetime.duration(),
            mode: init.directories.root_mode,
            issuing_lifetime: init.directories.issuing_lifetime(),
        };
        if init.directories.kubernetes.kubernetes {
            let report = block_on(async {
                let cluster = init.directories.cluster().await?;
                Ok(init_cluster_root(&cluster, &new, clock::now()).await?)
            })?;
            report::print_cluster(&report, init.directories.json);
            return Ok(());
        }
        let places = init.directories.places();
        let report = init_root(&places, &new, clock::now())?;
        report::print_root(&report, &places, init.directories.json);
        Ok(())
    }
}

impl Renew {
    fn run(self) -> anyhow::Result<()> {
        let renew = self;
        let terms = Renewal {
            mode: renew.directories.root_mode,
            issuing_lifetime: renew.directories.issuing_lifetime(),
        };
        if renew.directories.kubernetes.kubernetes {
            // a person who brings the root wants it to sign
            let by_a_person = renew.directories.root_dir.is_some() && !renew.if_due;
            let when = if renew.force || by_a_person {
                When::Now
            } else {
                When::Due
            };
            let report = block_on(async {
                let cluster = renew.directories.cluster().await?;
                let now = clock::now();
                Ok(renew_cluster_root(&cluster, terms, when, &renew.trust_domain, now).await?)
            })?;
            report::print_cluster(&report, renew.directories.json);
            return Ok(());
        }
        let places = renew.directories.places();
        let trust_domain = root_trust_domain(&places)?;
        if renew.if_due && !renewal_is_due(&places, &trust_domain, clock::now())? {
            eprintln!("The issuing CA is not past half of its life: nothing to do.");
            return Ok(());
        }
        let report = renew_root(&places, terms, clock::now())?;
        report::print_root(&report, &places, renew.directories.json);
        Ok(())
    }
}

/// One thread is enough for a few requests.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    runtime.block_on(work)
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Init(init) => init.run()?,
        Action::Renew(renew) => renew.run()?,
        Action::Import(args) => {
            let import = Import {
                data_dir: args.data_dir,
                trust_domain: args.trust_domain,
                chain: args.chain,
                key: args.key,
                roots: args.roots,
            };
            let report = import_authority(&import, clock::now())?;
            report::print_import(&report, args.json);
        }
    }
    Ok(ExitCode::SUCCESS)
}
