//! `mesh-lite identity`: whose certificate this is, until when, signed by what, renewed when, and
//! if not, why not.

use std::{net::SocketAddr, process::ExitCode};

use clap::ValueEnum;
use mesh_lite_proto::sidecar::ADMIN_PORT;
use mesh_lite_proxy::identity::report::{IdentityReport, Verdict};

use crate::sidecar_pages::{self, NoPage, PageName};

mod wording;

const EXAMPLES: &str = "\
Examples:
  mesh-lite identity                                the sidecar of this pod or machine
  mesh-lite identity --admin 127.0.0.1:15100        another one's admin address
  mesh-lite identity --output json | jq -r .certificate.spiffe_id

  In Kubernetes, from outside:
    kubectl -n shop port-forward pod/web-0 15000 & mesh-lite identity

  In a script:
    mesh-lite identity >/dev/null || echo \"the certificate needs somebody\"

Exit codes: 0 valid and renewed in time; 1 there is none, it has ended, or its renewal fails or is
overdue; 2 wrong usage, or no sidecar answers there.";

/// Nobody answered: a script must not take it for a bad certificate.
const NOT_REACHED: u8 = 2;

/// Say whose certificate a sidecar has, until when, signed by what, renewed when, and why not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The sidecar's admin address, which is on loopback.
    #[arg(long, env = "MESH_LITE_ADMIN", default_value_t = SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)), value_name = "ADDRESS")]
    admin: SocketAddr,
    /// text for people, json for programs (times in seconds since 1970).
    #[arg(
        long,
        env = "MESH_LITE_OUTPUT",
        value_enum,
        default_value_t = Output::Text,
        value_name = "FORM"
    )]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = match report_of(args.admin) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("mesh-lite: {error}");
            return Ok(ExitCode::from(NOT_REACHED));
        }
    };
    match args.output {
        Output::Text => print!("{}", wording::describe(&report)),
        Output::Json => println!("{}", wording::json(&report)?),
    }
    Ok(exit_code(&report))
}

/// # Errors
/// If nobody answers there, or what answers is not a sidecar of this version.
fn report_of(admin: SocketAddr) -> Result<IdentityReport, NoPage> {
    let page = sidecar_pages::get(admin, PageName::Identity)?;
    serde_json::from_slice(&page).map_err(|_| NoPage::NotASidecar { admin })
}

fn exit_code(report: &IdentityReport) -> ExitCode {
    match report.verdict {
        Verdict::Valid => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
