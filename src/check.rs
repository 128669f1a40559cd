//! `mesh-lite check`: whether the mesh in a cluster works; with a namespace, what would break there.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context;
use clap::ValueEnum;
use mesh_lite_injector::{
    clock,
    cluster_check::{
        Finding, Severity,
        objects::{Objects, Question, read},
        of_mesh, of_namespace, switch_of,
    },
    mesh_settings::MeshSettings,
    namespace_facts::Switch,
};
use mesh_lite_proto::sidecar::DEFAULT_MESH_NAMESPACE;
use serde_json::{Value, json};

use crate::terminal::{self, Paint, harmless};

const EXAMPLES: &str = "\
Examples:
  mesh-lite check                        the mesh itself: installed, running, trusted, one version
  mesh-lite check -n shop                before the label: what would break in the namespace
  mesh-lite check -n shop --output json

The cluster is the one of KUBECONFIG, asked with your own rights; nothing is changed, no Secret is
read. What you may not read is said, and is no good answer. Warnings do not change the exit code.

Exit codes: 0 no problem; 1 a problem; 2 wrong usage, the API server can't be reached, or something
could not be read and nothing else was found wrong.";

/// Say whether the mesh in a cluster works, or what would break in a namespace.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What would break, or is broken, in this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Where the mesh itself runs.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE, value_name = "NAMESPACE")]
    mesh_namespace: String,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let question = match &args.namespace {
        Some(name) => Question::Namespace {
            name,
            mesh: &args.mesh_namespace,
        },
        None => Question::Mesh(&args.mesh_namespace),
    };
    let objects = match objects(question) {
        Ok(objects) => objects,
        Err(error) => return Ok(unreachable(&error)),
    };
    let mut settings = MeshSettings::with_image("mesh-lite").map_err(anyhow::Error::msg)?;
    settings.mesh_namespace.clone_from(&args.mesh_namespace);
    settings.control_plane = MeshSettings::control_plane_of(&args.mesh_namespace);
    let findings = match &args.namespace {
        Some(namespace) => of_namespace(&objects, &settings, namespace),
        None => of_mesh(&objects, &settings, clock::now()),
    };
    match args.output {
        Output::Json => terminal::print_line(&terminal::json(&as_json(&findings)))?,
        Output::Text => {
            let mut text = describe(&findings, Paint::for_stdout());
            if let Some(namespace) = &args.namespace {
                text.push_str(&label(switch_of(&objects, namespace), namespace));
            }
            terminal::print(&text)?;
        }
    }
    Ok(exit_code(&findings))
}

/// Reads of a cluster what the question needs.
///
/// # Errors
/// If there is no cluster to ask, or it does not answer, or does not know who asks.
pub(crate) fn objects(question: Question<'_>) -> anyhow::Result<Objects> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime can't be started")?;
    runtime.block_on(async {
        let client = kube::Client::try_default()
            .await
            .context("no cluster to ask: set KUBECONFIG, or run it in a pod")?;
        read(&client, question).await.context(
            "the API server can't be asked: see kubectl cluster-info, with the same KUBECONFIG",
        )
    })
}

/// Said as any error, with the exit code for what could not be looked at.
pub(crate) fn unreachable(error: &anyhow::Error) -> ExitCode {
    eprintln!("mesh-lite: {}", harmless(&format!("{error:#}")));
    ExitCode::from(2)
}

fn exit_code(findings: &[Finding]) -> ExitCode {
    let has = |severity| findings.iter().any(|finding| finding.severity == severity);
    if has(Severity::Problem) {
        ExitCode::from(1)
    } else if has(Severity::Unknown) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

fn describe(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = finding.severity.as_str();
        let word = match finding.severity {
            Severity::Problem => paint.bad(word),
            Severity::Unknown | Severity::Warning => paint.odd(word),
        };
        let _ = writeln!(text, "{word}  {}", paint.title(&harmless(&finding.subject)));
        for line in finding.what.lines() {
            let _ = writeln!(text, "  {}", harmless(line));
        }
        let _ = writeln!(text, "  → {}", harmless(&finding.next));
    }
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let counts = format!(
        "{} problems, {} unknown, {} warnings",
        count(Severity::Problem),
        count(Severity::Unknown),
        count(Severity::Warning)
    );
    let good = count(Severity::Problem) + count(Severity::Unknown) == 0;
    let counts = if good {
        paint.good(&counts)
    } else {
        paint.bad(&counts)
    };
    let _ = writeln!(text, "{counts}");
    text
}

/// The last line: without the label nothing that was said has happened yet.
fn label(switch: Option<Switch>, namespace: &str) -> String {
    let namespace = harmless(namespace);
    match switch {
        Some(Switch::Enabled) => {
            format!("namespace {namespace} is labelled: new pods get a sidecar\n")
        }
        Some(Switch::Disabled) => {
            format!("namespace {namespace} is labelled disabled: no pod gets a sidecar\n")
        }
        Some(Switch::Absent) => format!(
            "namespace {namespace} is not labelled: kubectl label namespace {namespace} mesh-lite.io/inject=enabled\n"
        ),
        None => format!("whether namespace {namespace} is labelled is not known\n"),
    }
}

fn as_json(findings: &[Finding]) -> Value {
    let of = |finding: &Finding| {
        json!({
            "severity": finding.severity.as_str(),
            "subject": finding.subject,
            "what": finding.what,
            "next": finding.next,
        })
    };
    json!({"findings": findings.iter().map(of).collect::<Value>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity) -> Finding {
        Finding {
            severity,
            subject: "Pod shop/\u{1b}[31m".to_owned(),
            what: "what\nelse".to_owned(),
            next: "next".to_owned(),
        }
    }

    #[test]
    fn nothing_of_the_cluster_steers_the_terminal_and_all_is_counted() {
        let findings = [Severity::Problem, Severity::Warning, Severity::Warning].map(finding);
        let text = describe(&findings, Paint::for_stdout());
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(
            text.ends_with("1 problems, 0 unknown, 2 warnings\n"),
            "{text}"
        );
    }

    #[test]
    fn the_last_line_says_whether_the_namespace_is_labelled() {
        let says = |switch, words: &str| {
            let line = label(switch, "shop");
            assert!(line.contains(words), "{line}");
        };
        says(Some(Switch::Enabled), "shop is labelled: new pods");
        says(Some(Switch::Disabled), "no pod gets a sidecar");
        says(
            Some(Switch::Absent),
            "not labelled: kubectl label namespace shop",
        );
        says(None, "not known");
    }

    #[test]
    fn a_problem_is_1_what_is_not_known_is_2_and_a_warning_is_good() {
        let code = |severities: &[Severity]| {
            let findings: Vec<Finding> = severities.iter().copied().map(finding).collect();
            format!("{:?}", exit_code(&findings))
        };
        let is = |number: u8| format!("{:?}", ExitCode::from(number));
        assert_eq!(code(&[]), is(0));
        assert_eq!(code(&[Severity::Warning]), is(0));
        assert_eq!(code(&[Severity::Unknown, Severity::Warning]), is(2));
        assert_eq!(code(&[Severity::Unknown, Severity::Problem]), is(1));
    }
}
