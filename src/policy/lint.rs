//! `mesh-lite policy lint`: everything that is wrong or odd with documents.

use std::process::ExitCode;

use mesh_lite_control_plane::policy_review::{Documents, Finding};
use mesh_lite_proto::document::{
    DocumentError, Place,
    snippet::{Severity, Snippet},
};
use mesh_lite_proxy::clock;
use serde_json::{Value, json};

use super::review::{AloneArgs, Answer, Output};
use crate::terminal::Paint;

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy lint documents             .yaml and .yml of a directory
  mesh-lite policy lint shop.yaml pay.yaml    documents that are read together
  mesh-lite policy lint documents --output json | jq -r '.findings[].class'

Errors come first: such a document is not loaded. Warnings and notes are about
documents that load and probably do something else than is meant, or nothing:
  shadowed-rule          another rule makes this one unnecessary
  denied-rule            a DENY rule makes this ALLOW rule useless
  matches-nobody         fields of one entry contradict each other
  unknown-identity       named, and no Workload document has it (if any are)
  unprovable-identity    of a form that mesh-lite does not issue, or of
                         another trust domain
  selects-nothing        a selector whose labels no Workload document has, or a
                         namespace without one
  not-mesh-wide          in istio-system, where it is for that namespace alone:
                         what is for the whole mesh is in mesh-lite-system
  not-checked            because a Workload document is wrong, names can't be
                         looked up
  matches-everybody      a rule without from and to, or without from beside
                         others that have it
  allows-nobody          an ALLOW policy without rules
  no-rules               a policy of DENY or AUDIT without rules
  not-enforced           a dry run, or AUDIT
  several-defaults       two defaultActions of one scope, which mean DENY
  disable-is-permissive  DISABLE, which means PERMISSIVE
  foreign-trust-domains  a principal that begins with a star
  permissive-for-nobody  PERMISSIVE, where no rule lets plaintext through
  misses-plaintext       a DENY rule by identity, where plaintext is let
                         through
  service-port           of a Service with another targetPort: policy is about
                         the port that the workload is dialled at
  cuts-watched-port      a port for scrapers or probes that policy cuts
  not-compared           too many rules to compare each with each
What is said of rules is so for every caller. Silence says nothing.

A port is watched if a Workload names it metrics, prometheus, prom, probe,
probes, health, healthz, livez or readyz, or with such a part (http-metrics),
and if prometheus.io/port says so where prometheus.io/scrape is \"true\". One
that an ALLOW rule names is not told of if those whom it means come through.

Exit codes: 0 nothing, or notes only; 1 errors or warnings; 2 wrong usage, a
path that can't be read, or a directory without .yaml and .yml files. It is the
same if the reader of the output goes away (lint ... | head).";

/// Each is shown with its line to people up to here; `--output json` has all.
const MAX_SHOWN: usize = 200;

/// Say everything that is wrong or odd with documents, each with file and line.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    alone: AloneArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.alone.answer(lint)
}

fn lint(documents: &Documents, output: Output) -> Answer {
    let findings = documents.findings(clock::now());
    let counts = Counts::of(documents, &findings);
    let good = counts.errors == 0 && counts.warnings == 0;
    output.answer(
        good,
        || as_json(documents, &findings),
        || text(documents, &findings, Paint::for_stdout()),
    )
}

struct Counts {
    errors: usize,
    warnings: usize,
    notes: usize,
}

impl Counts {
    fn of(documents: &Documents, findings: &[Finding]) -> Self {
        let of = |severity| {
            let these = findings
                .iter()
                .filter(|finding| finding.severity == severity);
            these.count()
        };
        Self {
            errors: documents.errors().len(),
            warnings: of(Severity::Warning),
            notes: of(Severity::Note),
        }
    }
}

fn text(documents: &Documents, findings: &[Finding], paint: Paint) -> String {
    let mut text = errors_in_words(documents, documents.errors(), paint);
    let room = MAX_SHOWN.saturating_sub(documents.errors().len());
    for finding in findings.iter().take(room) {
        let snippet = Snippet {
            severity: finding.severity,
            class: finding.oddity.as_str(),
            problem: &finding.problem,
            place: &finding.place,
            help: &finding.help,
        };
        text.push_str(&snippet.render(documents.text(&finding.place.file), paint.colours()));
        text.push('\n');
    }
    text.push_str(&left_out(findings.len().saturating_sub(room), "finding"));
    let Counts {
        errors,
        warnings,
        notes,
    } = Counts::of(documents, findings);
    let files = count(documents.files().count(), "file");
    let (errors, warnings, notes) = (
        count(errors, "error"),
        count(warnings, "warning"),
        count(notes, "note"),
    );
    text.push_str(&format!("{files}: {errors}, {warnings}, {notes}\n"));
    text
}

/// Each with its line, and a line between two.
pub(super) fn errors_in_words<'a>(
    documents: &Documents,
    errors: impl IntoIterator<Item = &'a DocumentError>,
    paint: Paint,
) -> String {
    let mut text = String::new();
    let mut errors = errors.into_iter();
    for error in errors.by_ref().take(MAX_SHOWN) {
        let snippet = Snippet::from(error);
        text.push_str(&snippet.render(documents.text(&error.place.file), paint.colours()));
        text.push('\n');
    }
    text.push_str(&left_out(errors.count(), "error"));
    text
}

fn left_out(number: usize, what: &str) -> String {
    match number {
        0 => String::new(),
        more => {
            let more = count(more, &format!("more {what}"));
            format!("and {more}: see --output json\n\n")
        }
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn as_json(documents: &Documents, findings: &[Finding]) -> Value {
    let findings = findings.iter().map(|finding| {
        finding_as_json(
            severity(finding.severity),
            finding.oddity.as_str(),
            &finding.place,
            (&finding.problem, &finding.help),
        )
    });
    let all: Vec<Value> = errors_as_json(documents.errors())
        .into_iter()
        .chain(findings)
        .collect();
    json!({"findings": all})
}

pub(super) fn errors_as_json<'a>(
    errors: impl IntoIterator<Item = &'a DocumentError>,
) -> Vec<Value> {
    let errors = errors.into_iter().map(|error| {
        let class = error.class.as_str();
        finding_as_json(
            "error",
            class,
            &error.place,
            (&error.problem, &error.remedy),
        )
    });
    errors.collect()
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn finding_as_json(
    severity: &str,
    class: &str,
    place: &Place,
    (problem, help): (&str, &str),
) -> Value {
    json!({
        "severity": severity,
        "class": class,
        "file": &*place.file,
        "line": place.at.line,
        "column": place.at.column,
        "problem": problem,
        "help": help,
    })
}
