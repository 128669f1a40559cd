//! `mesh-lite policy test`: runs the tests that policies carry.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
};

use mesh_lite_control_plane::policy_review::{Documents, PolicyTests};
use mesh_lite_proto::{
    authorization::document::TestOutcome,
    document::{DocumentError, RefusalClass},
};
use serde_json::{Value, json};

use super::{
    lint::{count, errors_as_json, errors_in_words},
    review::{AloneArgs, Answer, Output},
};
use crate::terminal::{Paint, harmless};

const EXAMPLES: &str = "\
Examples:
  mesh-lite policy test documents
  mesh-lite policy test shop.yaml --output json

A policy carries its tests beside its rules:
  spec:
    rules: ...
    tests:
    - {from: cluster.local/ns/shop/sa/web, port: 8080, expect: ALLOW}
    - {from: plaintext, sourceIp: 10.0.0.7, port: 8080, expect: DENY}
They ask this policy alone, as enforced, in a PERMISSIVE scope: what no rule of
it denies is allowed unless it is an ALLOW policy. A policy whose tests fail is
not loaded by a control plane.

Exit codes: 0 all of them pass, or there are none; 1 one fails, or a document
can't be loaded; 2 wrong usage, a path that can't be read, or a directory
without .yaml and .yml files.";

/// Stands for every address where a test names none: of TEST-NET-1, where nobody is.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Run the tests that policies carry.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    alone: AloneArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    args.alone.answer(test)
}

fn test(documents: &Documents, output: Output) -> Answer {
    let report = Report {
        tests: documents.tests(),
        errors: other_errors(documents),
        documents,
    };
    // whatever is wrong with a document, failing tests among it, keeps it from being loaded
    let good = report.failed() == 0 && documents.errors().is_empty();
    output.answer(good, || report.json(), || report.text(Paint::for_stdout()))
}

/// Failed tests are told of as what they are, however many.
fn other_errors(documents: &Documents) -> Vec<&DocumentError> {
    const OF_TESTS: [RefusalClass; 2] = [RefusalClass::TestsFailed, RefusalClass::TooManyErrors];
    let errors = documents.errors().iter();
    errors
        .filter(|error| !OF_TESTS.contains(&error.class))
        .collect()
}

struct Report<'a> {
    documents: &'a Documents,
    tests: Vec<PolicyTests>,
    errors: Vec<&'a DocumentError>,
}

impl Report<'_> {
    fn outcomes(&self) -> impl Iterator<Item = &TestOutcome> {
        self.tests.iter().flat_map(|tests| &tests.outcomes)
    }

    fn failed(&self) -> usize {
        self.outcomes().filter(|outcome| !outcome.passed()).count()
    }

    fn text(&self, paint: Paint) -> String {
        let mut text = errors_in_words(self.documents, self.errors.iter().copied(), paint);
        for tests in &self.tests {
            let title = format!("{} ({}:{})", tests.policy, tests.file, tests.line);
            text.push_str(&format!("{}\n", paint.title(&harmless(&title))));
            for (index, outcome) in tests.outcomes.iter().enumerate() {
                text.push_str(&line(index, outcome, paint));
            }
            if tests.outcomes.iter().any(|outcome| !outcome.passed()) {
                let words = paint.bad("a control plane does not load it while a test fails");
                text.push_str(&format!("  {words}\n"));
            }
            text.push('\n');
        }
        let (all, failed) = (self.outcomes().count(), self.failed());
        if all == 0 && !self.errors.is_empty() {
            text.push_str("no test was run");
        } else if all == 0 {
            text.push_str("no policy carries tests");
        } else {
            let passed = all.saturating_sub(failed);
            text.push_str(&format!(
                "{}: {passed} passed, {failed} failed",
                count(all, "test")
            ));
        }
        if !self.errors.is_empty() {
            let errors = count(self.errors.len(), "error");
            text.push_str(&format!(
                "; {errors} in documents: what can't be read is not tested"
            ));
        }
        text.push('\n');
        text
    }

    fn json(&self) -> Value {
        let tests = self.tests.iter().flat_map(|tests| {
            let outcomes = tests.outcomes.iter().enumerate();
            outcomes.map(|(index, outcome)| as_json(tests, index, outcome))
        });
        json!({
            "tests": tests.collect::<Vec<_>>(),
            "passed": self.outcomes().count().saturating_sub(self.failed()),
            "failed": self.failed(),
            "errors": errors_as_json(self.errors.iter().copied()),
        })
    }
}

fn caller(outcome: &TestOutcome) -> &str {
    outcome
        .from
        .as_ref()
        .map_or("plaintext", |id| id.principal())
}

fn line(index: usize, outcome: &TestOutcome, paint: Paint) -> String {
    let from = match outcome.source_ip {
        ANYWHERE => String::new(),
        address => format!(" from {address}"),
    };
    let question = harmless(&format!(
        "tests[{index}]  {}{from} -> port {}",
        caller(outcome),
        outcome.port
    ));
    let (expected, got) = (outcome.expected, outcome.decision.verdict);
    if outcome.passed() {
        return format!("  {}      {question}: {expected}\n", paint.good("ok"));
    }
    let place = harmless(&outcome.place.to_string());
    let reason = harmless(&outcome.decision.reason());
    format!(
        "  {}  {question}: expected {expected}, got {got}\n          {place}\n          {reason}\n",
        paint.bad("FAILED")
    )
}

fn as_json(tests: &PolicyTests, index: usize, outcome: &TestOutcome) -> Value {
    json!({
        "policy": format!("{}/{}", tests.policy.namespace, tests.policy.name),
        "test": index,
        "file": &*tests.file,
        "line": outcome.place.at.line,
        "column": outcome.place.at.column,
        "from": caller(outcome),
        "source_ip": outcome.source_ip,
        "port": outcome.port,
        "expected": outcome.expected.to_string(),
        "got": outcome.decision.verdict.to_string(),
        "passed": outcome.passed(),
        "reason": outcome.decision.reason(),
    })
}
