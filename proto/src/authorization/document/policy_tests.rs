//! The `tests` of an `AuthorizationPolicy`: what it must do, beside what it says.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use spiffe::TrustDomain;

use super::{
    super::{
        Caller, Decision, Facts, MutualTls, MutualTlsMode, Policy, PolicySnapshot, Verdict, decide,
    },
    AuthorizationPolicy,
};
use crate::{
    document::{
        Node, Place, RefusalClass, Value,
        fields::{Fields, Path},
    },
    identity::WorkloadId,
};

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
    let example = "{from: cluster.local/ns/shop/sa/web, port: 8080, expect: ALLOW}";
    let items = fields.list_of(&entry.value, &path, example);
    if items.len() > MAX_TESTS {
        let problem = format!(
            "spec.tests has {} tests, {MAX_TESTS} are allowed",
            items.len()
        );
        let remedy = "keep the ones that matter";
        fields.error(RefusalClass::TooManyEntries, entry.at, problem, remedy);
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

/// A test, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    pub place: Place,
    /// `None`: plaintext.
    pub from: Option<WorkloadId>,
    pub source_ip: IpAddr,
    pub port: u16,
    pub expected: Verdict,
    pub decision: Decision,
}

impl TestOutcome {
    #[must_use]
    pub fn passed(&self) -> bool {
        self.decision.verdict == self.expected
    }
}

/// The outcome of each test that can be read.
pub(super) fn outcomes(
    spec: &Node,
    policy: &AuthorizationPolicy,
    own_trust_domain: &TrustDomain,
    file: &Arc<str>,
) -> Vec<TestOutcome> {
    let Some(Value::List(items)) = spec.entry("tests").map(|entry| &entry.value.value) else {
        return Vec::new();
    };
    let path = Path::root("spec.tests");
    // what is wrong with a test is reported where the document is loaded
    let mut fields = Fields::new(file);
    let snapshot = alone(policy, own_trust_domain);
    let mut outcomes = Vec::new();
    for (index, item) in items.iter().take(MAX_TESTS).enumerate() {
        if let Some(test) = read(item, &path.index(index), &mut fields) {
            outcomes.push(TestOutcome {
                place: Place::new(file, item.at),
                decision: test.judge(&snapshot),
                from: test.from,
                source_ip: test.source_ip,
                port: test.port,
                expected: test.expect,
            });
        }
    }
    outcomes
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
    let mut required =
        |key: &'static str| fields.required(item, path, key, "a test has from, port and expect");
    let (from, port, expect) = (required("from"), required("port"), required("expect"));
    let from = from.and_then(|entry| caller(&entry.value, &path.key("from"), fields));
    let source_ip = match item.entry("sourceIp") {
        Some(entry) => fields.address(&entry.value, &path.key("sourceIp")),
        None => Some(SOMEWHERE),
    };
    let port = port.and_then(|entry| fields.port(&entry.value, &path.key("port")));
    let expect = expect.and_then(|entry| {
        let words = [("ALLOW", Verdict::Allow), ("DENY", Verdict::Deny)];
        fields.one_of(&entry.value, &path.key("expect"), &words)
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
    if let (true, Some((namespace, name))) = (principal == text, short_name(text)) {
        let problem = format!("{path}: {text:?} is no whole principal");
        let remedy = format!(
            "write it as cluster.local/ns/{namespace}/sa/{name}; if it is meant as it stands, \
             write spiffe://{text}"
        );
        fields.error(RefusalClass::BadPrincipal, node.at, problem, remedy);
        return None;
    }
    match format!("spiffe://{principal}").parse() {
        Ok(id) => Some(Some(id)),
        Err(error) => {
            let remedy = format!("write a principal without stars, or {PLAINTEXT}");
            let class = RefusalClass::BadPrincipal;
            fields.error(class, node.at, format!("{path}: {error}"), remedy);
            None
        }
    }
}

/// `namespace/name`, as workloads and service accounts are written elsewhere: taken for an identity
/// it would be one of a trust domain that is called like the namespace, whom no rule names.
fn short_name(text: &str) -> Option<(&str, &str)> {
    let (namespace, name) = text.split_once('/')?;
    let is_part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed)
    };
    (is_part(namespace) && is_part(name)).then_some((namespace, name))
}

impl PolicyTest {
    fn judge(&self, snapshot: &PolicySnapshot) -> Decision {
        let caller = self
            .from
            .as_ref()
            .map_or(Caller::Plaintext, Caller::Authenticated);
        decide(
            snapshot,
            &Facts {
                caller,
                source: self.source_ip,
                port: self.port,
            },
        )
    }

    fn run(
        &self,
        snapshot: &PolicySnapshot,
        item: &Node,
        path: &Path<'_>,
        fields: &mut Fields<'_>,
    ) {
        let decision = self.judge(snapshot);
        if decision.verdict != self.expect {
            let problem = format!(
                "{path} failed: expected {}, got {}: {}",
                self.expect,
                decision.verdict,
                decision.reason()
            );
            let class = RefusalClass::TestsFailed;
            fields.error(class, item.at, problem, "correct the rules or the test");
        }
    }
}
