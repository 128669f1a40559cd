//! `mesh-lite root`: makes the root of a mesh and signs its issuing CAs.

use std::{path::PathBuf, process::ExitCode};

use mesh_lite_control_plane::{
    clock,
    lifetime::Lifetime,
    root_commands::{
        ISSUING_LIFETIME, NewRoot, Places, ROOT_LIFETIME, RootReport, init_root, renew_root,
        renewal_is_due, root_trust_domain,
    },
};
use mesh_lite_proto::{identity::parse_trust_domain, sidecar::DEFAULT_TRUST_DOMAIN};
use serde_json::json;
use spiffe::TrustDomain;

const EXAMPLES: &str = "\
Examples:
  mesh-lite root init --data-dir state --trust-domain example.org
  mesh-lite root init --data-dir state --root-dir /secure/mesh-root
  mesh-lite root renew --data-dir state             sign the next issuing CA now
  mesh-lite root renew --data-dir state --if-due    the same, for a daily timer";

/// Make the root of the mesh, or sign the next issuing CA.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a root key, its certificate, the first issuing CA and the trust bundle.
    Init(Init),
    /// Sign the next issuing CA with the root; a running control plane takes it over.
    Renew(Renew),
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
    /// How long the issuing CA lives: at least twice as long as leaves.
    #[arg(long, env = "MESH_LITE_ISSUING_LIFETIME", default_value_t = ISSUING_LIFETIME.into(), value_name = "TIME")]
    issuing_lifetime: Lifetime,
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

impl Directories {
    fn places(&self) -> Places {
        Places {
            data_dir: self.data_dir.clone(),
            root_dir: self.root_dir.clone(),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Init(init) => {
            let new = NewRoot {
                trust_domain: init.trust_domain,
                root_lifetime: init.root_lifetime.duration(),
                issuing_lifetime: init.directories.issuing_lifetime.duration(),
            };
            let report = init_root(&init.directories.places(), &new, clock::now())?;
            print(&report, init.directories.json);
        }
        Action::Renew(renew) => {
            let places = renew.directories.places();
            let trust_domain = root_trust_domain(&places)?;
            if renew.if_due && !renewal_is_due(&places, &trust_domain, clock::now())? {
                eprintln!("The issuing CA is not past half of its life: nothing to do.");
                return Ok(ExitCode::SUCCESS);
            }
            let lifetime = renew.directories.issuing_lifetime.duration();
            let report = renew_root(&places, lifetime, clock::now())?;
            print(&report, renew.directories.json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(report: &RootReport, as_json: bool) {
    let root_until = clock::readable(report.root_until);
    let issuing_until = clock::readable(report.issuing_until);
    if as_json {
        let text = json!({
            "trustDomain": report.trust_domain.to_string(),
            "root": { "directory": report.root, "until": root_until },
            "issuingCa": {
                "file": report.issuing_authority,
                "keyId": report.issuing_key_id,
                "until": issuing_until,
            },
            "trustBundle": report.trust_bundle,
        });
        println!("{text}");
        return;
    }
    println!("trust domain   {}", report.trust_domain);
    println!(
        "root           {} until {root_until}",
        report.root.display()
    );
    println!(
        "issuing CA     {} until {issuing_until}",
        report.issuing_authority.display()
    );
    println!("               key id {}", report.issuing_key_id);
    println!(
        "trust bundle   {} (give it to sidecars)",
        report.trust_bundle.display()
    );
}
