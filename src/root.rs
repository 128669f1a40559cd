//! `mesh-lite root`: makes the root of a mesh, signs its issuing CAs, or takes over one that
//! another PKI signed.

use std::{path::PathBuf, process::ExitCode};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use mesh_lite_control_plane::{
    clock,
    lifetime::Lifetime,
    root_commands::{
        Import, NewRoot, Places, ROOT_LIFETIME, Renewal, RootMode, import_authority, init_root,
        renew_root, renewal_is_due, root_trust_domain,
    },
};
use mesh_lite_proto::{identity::parse_trust_domain, sidecar::DEFAULT_TRUST_DOMAIN};
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
The mode is kept in the data directory, beside the issuing CA.";

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
    #[arg(long, env = "MESH_LITE_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Where the root's key lies, if not in `root` under the data directory. The control plane
    /// never reads it.
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
    /// Only if the issuing CA is past half of its life.
    #[arg(long)]
    if_due: bool,
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
    fn places(&self) -> Places {
        Places {
            data_dir: self.data_dir.clone(),
            root_dir: self.root_dir.clone(),
        }
    }

    fn issuing_lifetime(&self) -> Option<std::time::Duration> {
        self.issuing_lifetime.map(Lifetime::duration)
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Init(init) => {
            let new = NewRoot {
                trust_domain: init.trust_domain,
                root_lifetime: init.root_lifetime.duration(),
                mode: init.directories.root_mode,
                issuing_lifetime: init.directories.issuing_lifetime(),
            };
            let places = init.directories.places();
            let report = init_root(&places, &new, clock::now())?;
            report::print_root(&report, &places, init.directories.json);
        }
        Action::Renew(renew) => {
            let places = renew.directories.places();
            let trust_domain = root_trust_domain(&places)?;
            if renew.if_due && !renewal_is_due(&places, &trust_domain, clock::now())? {
                eprintln!("The issuing CA is not past half of its life: nothing to do.");
                return Ok(ExitCode::SUCCESS);
            }
            let terms = Renewal {
                mode: renew.directories.root_mode,
                issuing_lifetime: renew.directories.issuing_lifetime(),
            };
            let report = renew_root(&places, terms, clock::now())?;
            report::print_root(&report, &places, renew.directories.json);
        }
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
