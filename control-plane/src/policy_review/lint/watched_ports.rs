//! Ports that a monitoring system scrapes or probes, by callers that no policy names.
//!
//! What counts as one: a named port that is called `metrics`, `prometheus`, `probe`, `health`,
//! `healthz`, `livez`, `readyz`, or has one of these as a part between dashes; and the port of the
//! annotation `prometheus.io/port` where `prometheus.io/scrape` is `"true"`. A port that a rule of
//! ALLOW names has been thought of, and is not told of if somebody whom the rule means comes through:
//! a DENY rule or a STRICT port may undo it.

use std::{collections::BTreeMap, net::IpAddr, time::SystemTime};

use mesh_lite_proto::{
    authorization::{
        Caller, Decision, Facts, Pattern, Policy, PolicyAction, PolicySnapshot, Rule, Step, decide,
    },
    document::Place,
    identity::WorkloadId,
};

use super::{
    Documents, Findings, Oddity, ReviewedWorkload,
    plaintext::{SOMEWHERE, asks_for_identity},
};

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
/// No document can be about it: nobody has it.
const NOBODY: &str = "no-such-account";

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
            let naming = naming(&snapshot, port);
            let expected = expected(documents, &naming);
            if expected
                .iter()
                .any(|caller| caller.comes_through(&snapshot, port))
            {
                continue;
            }
            // who else is let through by a rule that names the port, nobody can say: only what
            // holds for all of them is told of
            let in_plaintext = expected.iter().any(|caller| caller.id.is_none());
            let told = |plaintext: bool, step| {
                naming.is_empty()
                    || (matches!(step, Step::DenyRule | Step::StrictPort)
                        && (in_plaintext || !plaintext))
            };
            judge(
                documents,
                workload,
                (&snapshot, &told),
                (port, &why),
                findings,
            );
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

/// Rules that allow somebody, and are about this very port.
fn naming(snapshot: &PolicySnapshot, port: u16) -> Vec<&Rule> {
    let allowing = |policy: &&Policy| policy.action == PolicyAction::Allow && !policy.dry_run;
    let policies = snapshot.policies.iter().map(|policy| &**policy);
    policies
        .filter(allowing)
        .flat_map(|policy| &policy.rules)
        .filter(|rule| rule.to.iter().any(|to| to.ports.contains(&port)))
        .collect()
}

/// Somebody whom a rule may mean.
struct Expected {
    id: Option<WorkloadId>,
    source: IpAddr,
    /// Only a rule of ALLOW shows that it is meant.
    by_rule: bool,
}

impl Expected {
    fn comes_through(&self, snapshot: &PolicySnapshot, port: u16) -> bool {
        let caller = self.id.as_ref();
        let facts = Facts {
            caller: caller.map_or(Caller::Plaintext, Caller::Authenticated),
            source: self.source,
            port,
        };
        let decision = decide(snapshot, &facts);
        decision.is_allowed() && (!self.by_rule || decision.step == Step::AllowRule)
    }
}

/// Whom the rules name, and every workload: of patterns only it tells who is meant.
fn expected(documents: &Documents, naming: &[&Rule]) -> Vec<Expected> {
    if naming.is_empty() {
        return Vec::new();
    }
    let own = &documents.settings().trust_domain;
    let workloads = documents.workloads().iter().filter(|one| one.meshed);
    let mut all: Vec<Expected> = workloads
        .filter_map(|one| {
            Some(Expected {
                id: Some(one.id.clone()),
                source: *one.addresses.first()?,
                by_rule: true,
            })
        })
        .collect();
    for rule in naming {
        if rule.from.is_empty() {
            all.push(Expected {
                id: None,
                source: SOMEWHERE,
                by_rule: false,
            });
        }
        for peer in &rule.from {
            let source = peer
                .ip_blocks
                .first()
                .map_or(SOMEWHERE, |block| block.addr());
            let principals = peer.principals.iter().filter_map(|pattern| match pattern {
                Pattern::Exact(id) => Some(id.clone()),
                _ => None,
            });
            let accounts = peer.service_accounts.iter();
            let accounts = accounts
                .filter_map(|account| WorkloadId::new(own, &account.namespace, &account.name).ok());
            let namespaces = peer
                .namespaces
                .iter()
                .filter_map(|namespace| match namespace {
                    Pattern::Exact(name) => WorkloadId::new(own, name, NOBODY).ok(),
                    _ => None,
                });
            let named = principals.chain(accounts).chain(namespaces);
            all.extend(named.map(|id| Expected {
                id: Some(id),
                source,
                by_rule: false,
            }));
            if !asks_for_identity(peer) {
                all.push(Expected {
                    id: None,
                    source,
                    by_rule: false,
                });
            }
        }
    }
    all
}

fn judge(
    documents: &Documents,
    workload: &ReviewedWorkload,
    (snapshot, told): (&PolicySnapshot, &dyn Fn(bool, Step) -> bool),
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
        let cut = cut && told(matches!(caller, Caller::Plaintext), decision.step);
        cut.then(|| cause(&decision))
    };
    let own = &documents.settings().trust_domain;
    let stranger = WorkloadId::new(own, "no-such-namespace", NOBODY).ok();
    let in_mesh = stranger.and_then(|id| denied(Caller::Authenticated(&id)));
    let (who, cause) = match (denied(Caller::Plaintext), in_mesh) {
        (Some(plaintext), Some(inside)) if plaintext == inside => ("nobody", plaintext),
        (Some(plaintext), Some(inside)) => (
            "nobody",
            format!("of plaintext, {plaintext}; of mesh callers that no rule names, {inside}"),
        ),
        (Some(plaintext), None) => ("nobody in plaintext", plaintext),
        (None, Some(inside)) => ("no caller of the mesh that no rule names", inside),
        (None, None) => return,
    };
    let problem = format!(
        "{who} can scrape or probe port {port} of {}, {why}: {cause}",
        workload.name
    );
    let help = format!(
        "allow whoever does by a rule with `ports: [\"{port}\"]`; if they come in plaintext, make \
         that port PERMISSIVE too (PeerAuthentication, portLevelMtls)"
    );
    let at = workload.ports_at.get(&port);
    findings.warn(
        Oddity::CutsWatchedPort,
        Place::new(&workload.file, *at.unwrap_or(&workload.name_at)),
        problem,
        help,
    );
}

/// Why whoever is named by nobody is denied. A decision names such a caller, and we made it up.
fn cause(decision: &Decision) -> String {
    let by = decision
        .policy
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    match decision.step {
        Step::StrictPort => "the port is STRICT, which refuses plaintext".to_owned(),
        Step::DenyRule => format!("{by} denies them"),
        Step::DefaultAction => format!("by default {by} denies them"),
        Step::MutualTlsMode => "STRICT denies whom no policy allows".to_owned(),
        Step::NoAllowRule | Step::AllowRule | Step::BrokenDocument => {
            "there are ALLOW policies for it, and none of their rules lets them in".to_owned()
        }
    }
}
