//! Ports that a monitoring system scrapes or probes, by callers that no policy names.
//!
//! What counts as one: a named port that is called `metrics`, `prometheus`, `probe`, `health`,
//! `healthz`, `livez`, `readyz`, or has one of these as a part between dashes; and the port of the
//! annotation `prometheus.io/port` where `prometheus.io/scrape` is `"true"`. A port that a rule of
//! ALLOW names has been thought of, and is not told of.

use std::{collections::BTreeMap, time::SystemTime};

use mesh_lite_proto::{
    authorization::{Caller, Facts, PolicyAction, PolicySnapshot, Step, decide},
    document::{Place, Position},
    identity::WorkloadId,
};

use super::{Documents, Findings, Oddity, ReviewedWorkload, plaintext::SOMEWHERE};

const NAMES: [&str; 9] = [
    "metrics",
    "prometheus",
    "prom",
    "probe",
    "probes",
    "health",
    "healthz",
    "livez",
    "readyz",
];
const SCRAPE: &str = "prometheus.io/scrape";
const SCRAPE_PORT: &str = "prometheus.io/port";

pub(super) fn look(documents: &Documents, now: SystemTime, findings: &mut Findings) {
    for workload in documents
        .workloads()
        .iter()
        .filter(|workload| workload.meshed)
    {
        let watched = watched(workload);
        if watched.is_empty() {
            continue;
        }
        let snapshot = documents.snapshot_for(workload, now);
        for (port, why) in watched {
            if !is_named(&snapshot, port) {
                judge(documents, workload, &snapshot, (port, &why), findings);
            }
        }
    }
}

/// Each port once, with what makes it one.
fn watched(workload: &ReviewedWorkload) -> BTreeMap<u16, String> {
    let mut watched = BTreeMap::new();
    for (name, port) in &workload.ports {
        if name.split('-').any(|part| NAMES.contains(&part)) {
            watched
                .entry(*port)
                .or_insert_with(|| format!("called {name}"));
        }
    }
    let annotation = |name: &str| workload.annotations.get(name).map(String::as_str);
    let scraped = annotation(SCRAPE) == Some("true");
    let port = annotation(SCRAPE_PORT).and_then(|port| port.parse().ok());
    if let Some(port) = port.filter(|_| scraped) {
        watched
            .entry(port)
            .or_insert_with(|| format!("of the annotation {SCRAPE_PORT}"));
    }
    watched
}

/// Whether a rule that allows somebody is about this very port.
fn is_named(snapshot: &PolicySnapshot, port: u16) -> bool {
    let mut allowing = snapshot
        .policies
        .iter()
        .filter(|policy| policy.action == PolicyAction::Allow && !policy.dry_run);
    allowing.any(|policy| {
        let mut operations = policy.rules.iter().flat_map(|rule| &rule.to);
        operations.any(|operation| operation.ports.contains(&port))
    })
}

fn judge(
    documents: &Documents,
    workload: &ReviewedWorkload,
    snapshot: &PolicySnapshot,
    (port, why): (u16, &str),
    findings: &mut Findings,
) {
    let denied = |caller: Caller<'_>| {
        let facts = Facts {
            caller,
            source: SOMEWHERE,
            port,
        };
        let decision = decide(snapshot, &facts);
        // what denies until it is repaired is an error of its own
        let cut = !decision.is_allowed() && decision.step != Step::BrokenDocument;
        cut.then(|| decision.reason())
    };
    let own = &documents.settings().trust_domain;
    // no document can be about it: nobody has it
    let stranger = WorkloadId::new(own, "no-such-namespace", "no-such-account").ok();
    let in_mesh = stranger.and_then(|id| denied(Caller::Authenticated(&id)));
    let (who, reason) = match (denied(Caller::Plaintext), in_mesh) {
        (Some(reason), Some(_)) => (
            "outside of the mesh, in plaintext, or inside that no rule names",
            reason,
        ),
        (Some(reason), None) => ("outside of the mesh, in plaintext", reason),
        (None, Some(reason)) => ("inside of the mesh that no rule names", reason),
        (None, None) => return,
    };
    let name = &workload.name;
    let problem =
        format!("port {port} of {name}, {why}, is cut from every scraper or probe {who}: {reason}");
    let help = format!(
        "allow it by a rule with `ports: [\"{port}\"]`; for callers in plaintext make that port \
         PERMISSIVE too (PeerAuthentication, portLevelMtls)"
    );
    let at = Position {
        line: workload.line,
        column: 1,
    };
    findings.warn(
        Oddity::CutsWatchedPort,
        Place::new(&workload.file, at),
        problem,
        help,
    );
}
