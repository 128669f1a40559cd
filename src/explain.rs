//! `mesh-lite explain`: why a connection was allowed or denied, or would be.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use mesh_lite_control_plane::WorkloadName;
use mesh_lite_proto::{authorization::PolicySnapshot, decision_record::ConnectionId};
use mesh_lite_proxy::clock;
use serde_json::{Value, json};

use self::{
    caller::CallerName,
    judged::{Call, Judged},
    present::Present,
    question::Question,
    read_documents::ReadDocuments,
    recorded::{RecordedCall, Verdict},
};
use crate::{
    policy::{DocumentArgs, review::unless_unreadable},
    recordings::{NamedRecording, RecordingArgs},
    sidecar_pages::{self, PageName},
    terminal::{self, Paint},
};

mod caller;
mod json;
mod judged;
mod present;
mod question;
mod read_documents;
mod recorded;
mod recorded_wording;
mod refusal;
mod wording;

const EXAMPLES: &str = "\
Examples of a connection that was made, by its conn_id in an access log:
  mesh-lite explain 0692060890000003               asks this pod's sidecar
  mesh-lite explain 0692060890000003 --admin 127.0.0.1:15100
  mesh-lite explain 0692060890000003 --records access.log
  mesh-lite explain 0692060890000003 --records access.log \\
      --config-dir documents           what these documents would say of it now
  mesh-lite explain 0692060890000003 --records web.log --records api.log
                                       its caller's side, and the other one

  In Kubernetes, from outside:
    kubectl -n shop port-forward pod/api-0 15000 &
    mesh-lite explain 0692060890000003
    kubectl -n shop logs api-0 -c proxy > api.log
    mesh-lite explain 0692060890000003 --records api.log

Examples of a call that nobody has made yet:
  mesh-lite explain --from shop/web --to shop/api --port 8080 \\
      --config-dir documents
  mesh-lite explain --from cluster.local/ns/shop/sa/guest --to shop/api \\
      --port 8080 --admin 127.0.0.1:15000
  mesh-lite explain --from plaintext --from-address 10.0.0.7 --to shop/api \\
      --port 8080 --config-dir documents

PORT is the one dialled in the pod: of a service, its targetPort.

Exit codes: 0 it was or would be allowed; 1 denied, refused, or allowed first and
cut when policy changed; 2 there is no answer: wrong usage, an unknown connection or workload, documents or a sidecar
that can't be read.";

/// Say why a connection was allowed or denied, or would be.
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    group = clap::ArgGroup::new("asked").args(["connection", "from"]).required(true)
)]
pub(crate) struct Args {
    /// Of the connection, as the access log of either end names it.
    #[arg(value_name = "CONN_ID")]
    connection: Option<ConnectionId>,
    /// Who would call: NAMESPACE/NAME of a workload, a principal, or plaintext.
    #[arg(long, value_name = "CALLER", requires_all = ["to", "port"])]
    from: Option<CallerName>,
    /// From where. The address in the workload's document, if policy asks for one and none is
    /// named.
    #[arg(long, value_name = "ADDRESS", requires = "from")]
    from_address: Option<IpAddr>,
    /// The workload that would be called.
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "from")]
    to: Option<WorkloadName>,
    /// Its port, as it is dialled in the pod.
    #[arg(long, value_parser = port, requires = "from")]
    port: Option<u16>,
    /// Answer by the documents in this directory or file, as a control plane would read them;
    /// may be repeated.
    #[arg(
        long,
        env = "MESH_LITE_CONFIG_DIR",
        value_delimiter = ',',
        value_name = "PATH"
    )]
    config_dir: Vec<PathBuf>,
    #[command(flatten)]
    recordings: RecordingArgs,
    #[command(flatten)]
    documents: DocumentArgs,
    /// text for people, json for programs.
    #[arg(
        long,
        help_heading = "Output",
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

/// One call, judged.
#[derive(Debug)]
struct Explanation {
    call: Call,
    judged: Judged,
    basis: Basis,
    /// The other shipped default would give another verdict, and nobody said which one holds.
    rests_on_shipped: bool,
    /// The port that is asked for is this service's, whose workloads are dialled at that port.
    service_port: Option<(String, u16)>,
}

/// What it was judged by.
#[derive(Debug)]
struct Basis {
    /// In words.
    what: String,
    documents: Option<Arc<ReadDocuments>>,
}

impl Basis {
    /// A reason as a sidecar has it.
    fn as_sidecars_say(&self, reason: &str) -> String {
        match &self.documents {
            Some(read) => read.as_sidecars_say(reason),
            None => reason.to_owned(),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let answered = match (&args.connection, &args.from, &args.to, args.port) {
        (Some(id), ..) => args.of_connection(*id),
        (None, Some(from), Some(to), Some(port)) => args.of_question(&Question {
            from,
            from_address: args.from_address,
            to,
            port,
        }),
        _ => Err(anyhow::anyhow!(
            "name a connection, or --from, --to and --port"
        )),
    };
    unless_unreadable(|| answered)
}

impl Args {
    fn of_question(&self, question: &Question<'_>) -> anyhow::Result<ExitCode> {
        let now = clock::now();
        let explanation = if self.config_dir.is_empty() {
            let (snapshot, what) = self.one_sidecar(question.to)?;
            question.by_sidecar(&snapshot, what, now)?
        } else {
            question.by_documents(&self.documents()?, now)?
        };
        self.print(
            || wording::describe(&explanation, Paint::for_stdout()),
            || vec![json::explanation(&explanation)],
        )?;
        Ok(exit_code(explanation.judged.is_allowed()))
    }

    fn documents(&self) -> anyhow::Result<Arc<ReadDocuments>> {
        let read = ReadDocuments::read(&self.config_dir, &self.documents)?;
        Ok(Arc::new(read))
    }

    /// What the one sidecar that is named enforces. It must be the workload's that is asked for:
    /// another one's policy is no answer.
    fn one_sidecar(&self, to: &WorkloadName) -> anyhow::Result<(PolicySnapshot, String)> {
        let sidecars = self.recordings.sidecars();
        let [admin] = sidecars[..] else {
            bail!("--from is answered by --config-dir, or by one sidecar (--admin)");
        };
        let recordings = self.recordings.read()?;
        let says = recordings
            .iter()
            .find_map(|named| named.recording.workload.as_deref());
        match says {
            Some(workload) => ensure!(
                *workload == *to.to_string(),
                "the sidecar at {admin} is of {workload}, not of {to}; name {to}'s with --admin, or ask by --config-dir"
            ),
            None => bail!(
                "the sidecar at {admin} does not say of which workload it is: ask by --config-dir"
            ),
        }
        snapshot_of(admin)
    }

    fn of_connection(&self, id: ConnectionId) -> anyhow::Result<ExitCode> {
        let recordings = self.recordings.read_for(Some(id))?;
        let documents = match self.config_dir.is_empty() {
            true => None,
            false => Some(self.documents()?),
        };
        let present = Present {
            documents,
            recordings: &recordings,
            now: clock::now(),
        };
        let found = recorded::find(id, &present);
        if found.is_empty() {
            bail!("{}", unknown(id, &recordings));
        }
        let text = || {
            let paint = Paint::for_stdout();
            let texts: Vec<String> = found.iter().map(|call| call.describe(paint)).collect();
            let several = recorded::of_several(id, &found);
            let several = several.map_or_else(String::new, |words| format!("{words}\n\n"));
            format!("{several}{}", texts.join("\n"))
        };
        self.print(text, || found.iter().map(json::recorded).collect())?;
        let allowed = |call: &RecordedCall| call.verdict() == Verdict::Allowed;
        Ok(exit_code(found.iter().all(allowed)))
    }

    fn print(
        &self,
        text: impl FnOnce() -> String,
        answers: impl FnOnce() -> Vec<Value>,
    ) -> anyhow::Result<()> {
        match self.output {
            Output::Text => terminal::print(&text()),
            Output::Json => terminal::print_line(&terminal::json(&json!({"answers": answers()}))),
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port != 0);
    number.ok_or_else(|| {
        "a port is a number from 1 to 65535; the Workload document says which one a name stands for"
            .to_owned()
    })
}

fn exit_code(allowed: bool) -> ExitCode {
    if allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn snapshot_of(admin: SocketAddr) -> anyhow::Result<(PolicySnapshot, String)> {
    let page = sidecar_pages::get(admin, PageName::PolicySnapshot)?;
    let snapshot = PolicySnapshot::from_json(&page)
        .with_context(|| format!("the policy of the sidecar at {admin} can't be read"))?;
    let what = format!(
        "the policy that the sidecar at {admin} enforces, revision {}",
        snapshot.revision
    );
    Ok((snapshot, what))
}

fn unknown(id: ConnectionId, recordings: &[NamedRecording]) -> String {
    let mut text = format!("no record of the connection {id}");
    for named in recordings {
        text.push_str(&format!(
            "\n  {}",
            terminal::harmless(&recorded::reach(&named.name, &named.recording))
        ));
    }
    text.push_str(
        "\nA running sidecar keeps the ids of the latest 16 connections of each kind; its access log \
         has all of them: pass it by --records. An id is known to its own side, and as its caller's \
         claim to the access log of the other one.",
    );
    text
}

/// The explanation of a connection as a person reads it, for whoever has its sidecar at hand.
///
/// # Errors
/// If the sidecar can't be asked, or has no record of it.
pub(crate) fn told_by_sidecar(
    id: ConnectionId,
    admin: SocketAddr,
    paint: Paint,
    now: SystemTime,
) -> anyhow::Result<String> {
    let named = crate::recordings::of_sidecar(admin)?;
    let present = Present {
        documents: None,
        recordings: std::slice::from_ref(&named),
        now,
    };
    let found = recorded::find(id, &present);
    let call = found
        .first()
        .with_context(|| format!("the sidecar at {admin} has no record of {id}"))?;
    Ok(call.describe(paint))
}
