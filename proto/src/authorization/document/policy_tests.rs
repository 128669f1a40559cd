//! The `tests` of an `AuthorizationPolicy`: what it must do, beside what it says.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use spiffe::TrustDomain;

use super::{
    super::{Caller, Facts, MutualTls, MutualTlsMode, Policy, PolicySnapshot, Verdict, decide},
    AuthorizationPolicy,
    fields::{Fields, Path},
};
use crate::{document::Node, identity::WorkloadId};

/// Each test judges every rule of the document: this bounds what loading one may cost.
const MAX_TESTS: usize = 100;
/// The address of a caller whose test states none: of TEST-NET-1, where nobody is.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// `from` of a caller without an identity. No principal is spelt like this.
const PLAINTEXT: &str = "plaintext";

/// Judges the callers of the tests by this document alone, as enforced and in a PERMISSIVE
/// scope: what no rule of it denies is allowed unless it is an ALLOW policy.
pub(super) fn run(
    spec: &Node,
    policy: &AuthorizationPolicy,
    own_trust_domain: &TrustDomain,
    fields: &mut Fields<'_>,
) {
    let Some(entry) = spec.entry("tests") else {
        return;
    };
    let path = Path::root("spec.tests");
    let items = fields.list(&entry.value, &path);
    if items.len() > MAX_TESTS {
        let problem = format!(
            "spec.tests has {} tests, {MAX_TESTS} are allowed",
            items.len()
        );
        fields.error(entry.at, problem, "keep the ones that matter");
        return;
    }
    let snapshot = alone(policy, own_trust_domain);
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        if let Some(test) = read(item, &path, fields) {
            test.run(&snapshot, item, &path, fields);
        }
    }
}

fn alone(policy: &AuthorizationPolicy, own_trust_domain: &TrustDomain) -> PolicySnapshot {
    let enforced = policy.policy.clone().map(|policy| Policy {
        dry_run: false,
        ..policy
    });
    PolicySnapshot {
        revision: 0,
        trust_domain: own_trust_domain.clone(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Permissive,
            ports: BTreeMap::new(),
        },
        default_action: policy.default_action.clone(),
        policies: enforced.into_iter().collect(),
        evictions: Vec::new(),
        broken: Vec::new(),
    }
}

struct PolicyTest {
    /// `None`: plaintext.
    from: Option<WorkloadId>,
    source_ip: IpAddr,
    port: u16,
    expect: Verdict,
}

fn read(item: &Node, path: &Path<'_>, fields: &mut Fields<'_>) -> Option<PolicyTest> {
    fields.map(item, path, &["from", "sourceIp", "port", "expect"]);
    let mut required = |key: &'static str| {
        let entry = item.entry(key);
        if entry.is_none() {
            let problem = format!("{path}.{key} is missing");
            fields.error(item.at, problem, "a test has from, port and expect");
        }
        entry
    };
    let (from, port, expect) = (required("from"), required("port"), required("expect"));
    let from = from.and_then(|entry| caller(&entry.value, &path.key("from"), fields));
    let source_ip = match item.entry("sourceIp") {
        Some(entry) => fields.parsed(&entry.value, &path.key("sourceIp")),
        None => Some(SOMEWHERE),
    };
    let port = port.and_then(|entry| fields.port(&entry.value, &path.key("port")));
    let expect = expect.and_then(|entry| {
        let path = path.key("expect");
        match fields.text(&entry.value, &path)? {
            "ALLOW" => Some(Verdict::Allow),
            "DENY" => Some(Verdict::Deny),
            other => {
                let problem = format!("unknown {path} {other:?}");
                fields.error(entry.value.at, problem, "use ALLOW or DENY");
                None
            }
        }
    });
    Some(PolicyTest {
        from: from?,
        source_ip: source_ip?,
        port: port?,
        expect: expect?,
    })
}

/// `Some(None)` is a caller without an identity.
fn caller(node: &Node, path: &Path<'_>, fields: &mut Fields<'_>) -> Option<Option<WorkloadId>> {
    let text = fields.text(node, path)?;
    if text == PLAINTEXT {
        return Some(None);
    }
    let principal = text.strip_prefix("spiffe://").unwrap_or(text);
    match format!("spiffe://{principal}").parse() {
        Ok(id) => Some(Some(id)),
        Err(error) => {
            let remedy = format!("write a principal without stars, or {PLAINTEXT}");
            fields.error(node.at, format!("{path}: {error}"), remedy);
            None
        }
    }
}

impl PolicyTest {
    fn run(
        &self,
        snapshot: &PolicySnapshot,
        item: &Node,
        path: &Path<'_>,
        fields: &mut Fields<'_>,
    ) {
        let caller = self
            .from
            .as_ref()
            .map_or(Caller::Plaintext, Caller::Authenticated);
        let decision = decide(
            snapshot,
            &Facts {
                caller,
                source: self.source_ip,
                port: self.port,
            },
        );
        if decision.verdict != self.expect {
            let problem = format!(
                "{path} failed: expected {}, got {}: {}",
                self.expect,
                decision.verdict,
                decision.reason()
            );
            fields.error(item.at, problem, "correct the rules or the test");
        }
    }
}
