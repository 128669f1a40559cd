use super::*;
use crate::{
    authorization::{Caller, Facts, MutualTls, PolicyAction, PolicySnapshot, Step, decide},
    document::split,
};

mod refusals;

fn trust_domain() -> TrustDomain {
    "cluster.local".parse().unwrap()
}

fn document(kind: &str, spec: &str) -> RawDocument {
    let header = format!("apiVersion: mesh-lite.io/v1\nkind: {kind}\n");
    let metadata = "metadata: {name: p, namespace: shop}\n";
    let indented = spec.trim_end().replace('\n', "\n  ");
    let text = format!("{header}{metadata}spec:\n  {indented}\n");
    let mut documents = split("p.yaml", text.as_bytes());
    assert_eq!(documents.unreadable, [], "{text}");
    documents.readable.remove(0)
}

fn policy(spec: &str) -> AuthorizationPolicy {
    match load(&document("AuthorizationPolicy", spec), &trust_domain()) {
        Ok(Loaded::AuthorizationPolicy(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn peer_authentication(spec: &str) -> PeerAuthentication {
    match load(&document("PeerAuthentication", spec), &trust_domain()) {
        Ok(Loaded::PeerAuthentication(document)) => document,
        other => panic!("{other:?}"),
    }
}

fn unloadable(kind: &str, spec: &str) -> Unloadable {
    match load(&document(kind, spec), &trust_domain()) {
        Err(unloadable) => unloadable,
        Ok(loaded) => panic!("{spec} was loaded as {loaded:?}"),
    }
}

/// The step at which a policy alone, in a PERMISSIVE scope, judges a caller to port 8080.
fn step(document: &AuthorizationPolicy, caller: &str) -> Step {
    let id = caller.parse().unwrap();
    let snapshot = PolicySnapshot {
        revision: 0,
        trust_domain: trust_domain(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Permissive,
            ports: BTreeMap::new(),
        },
        default_action: document.default_action.clone(),
        policies: document.policy.iter().cloned().collect(),
        evictions: Vec::new(),
        broken: Vec::new(),
    };
    let source = "10.0.0.9".parse().unwrap();
    decide(
        &snapshot,
        &Facts {
            caller: Caller::Authenticated(&id),
            source,
            port: 8080,
        },
    )
    .step
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const GUEST: &str = "spiffe://cluster.local/ns/shop/sa/guest";

const EXAMPLE: &str = r#"
selector: {matchLabels: {app: api}}
action: ALLOW
dryRun: false
rules:
- from:
  - source: {principals: ["cluster.local/ns/shop/sa/web"], notIpBlocks: ["10.9.0.0/16"]}
  to:
  - operation: {ports: ["8080"]}
tests:
- {from: cluster.local/ns/shop/sa/web,   port: 8080, expect: ALLOW}
- {from: cluster.local/ns/shop/sa/guest, port: 8080, expect: DENY}
- {from: spiffe://cluster.local/ns/shop/sa/web, port: 8080, sourceIp: 10.9.1.1, expect: DENY}
- {from: plaintext, port: 8080, expect: DENY}
"#;

#[test]
fn loads_the_example_of_the_design_with_its_lines() {
    let document = policy(EXAMPLE.trim_start());
    let loaded = document.policy.as_ref().unwrap();
    assert_eq!(loaded.source.to_string(), "shop/p (p.yaml:1)");
    assert_eq!(
        (loaded.action, loaded.dry_run),
        (PolicyAction::Allow, false)
    );
    let rule = &loaded.rules[0];
    assert_eq!((rule.line, rule.from[0].line, rule.to[0].line), (9, 10, 12));
    assert!(
        document
            .selector
            .selects(&BTreeMap::from([("app".to_owned(), "api".to_owned())]))
    );
    assert!(
        !document
            .selector
            .selects(&BTreeMap::from([("app".to_owned(), "web".to_owned())]))
    );
    assert!(!document.selector.selects(&BTreeMap::new()));
    assert_eq!(step(&document, WEB), Step::AllowRule);
    assert_eq!(step(&document, GUEST), Step::NoAllowRule);
}

/// SPIFFE-I9, SPIFFE-I10
#[test]
fn a_principal_may_be_as_long_as_a_spiffe_id_and_its_case_counts() {
    let around = "spiffe://cluster.local/ns/shop/sa/".len();
    let longest = format!(
        "spiffe://cluster.local/ns/shop/sa/{}",
        "w".repeat(2048 - around)
    );
    let document = policy(&format!(
        "rules:\n- from:\n  - source: {{principals: [{longest}]}}"
    ));
    assert_eq!(step(&document, &longest), Step::AllowRule);
    let shorter = longest.strip_suffix('w').unwrap();
    assert_eq!(step(&document, shorter), Step::NoAllowRule);
    let other_case = format!("{shorter}W");
    assert_eq!(step(&document, &other_case), Step::NoAllowRule);
}

#[test]
fn every_field_is_read_into_its_own_place() {
    let document = policy(
        r#"rules:
- from:
  - source:
      principals: ["*"]
      notPrincipals: [spiffe://cluster.local/ns/a/sa/b]
      serviceAccounts: [web, pay/api]
      notServiceAccounts: [pay/web]
      namespaces: [a*]
      notNamespaces: ["*b"]
      trustDomains: [cluster.local]
      notTrustDomains: [other.org]
      ipBlocks: [10.0.0.0/8, fd00::1]
      notIpBlocks: [10.1.2.3/16]
  to:
  - operation: {ports: [80, "81"], notPorts: [82]}"#,
    );
    let rule = document.policy.unwrap().rules.remove(0);
    let peer = rule.from[0].clone();
    let shown = |values: &[&dyn std::fmt::Display]| {
        values
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        shown(&[&peer.principals[0], &peer.not_principals[0]]),
        format!("* {}", "spiffe://cluster.local/ns/a/sa/b")
    );
    assert_eq!(
        shown(&[&peer.service_accounts[0], &peer.service_accounts[1]]),
        "shop/web pay/api"
    );
    assert_eq!(shown(&[&peer.not_service_accounts[0]]), "pay/web");
    assert_eq!(
        shown(&[&peer.namespaces[0], &peer.not_namespaces[0]]),
        "a* *b"
    );
    assert_eq!(
        shown(&[&peer.trust_domains[0], &peer.not_trust_domains[0]]),
        "cluster.local other.org"
    );
    assert_eq!(
        shown(&[&peer.ip_blocks[0], &peer.ip_blocks[1]]),
        "10.0.0.0/8 fd00::1/128"
    );
    assert_eq!(shown(&[&peer.not_ip_blocks[0]]), "10.1.0.0/16");
    assert_eq!(
        (rule.to[0].ports.clone(), rule.to[0].not_ports.clone()),
        (vec![80, 81], vec![82])
    );
}

#[test]
fn nothing_and_a_rule_of_nothing_mean_what_istio_says() {
    for (spec, expected) in [
        ("{}", Step::NoAllowRule),
        ("{action: ALLOW}", Step::NoAllowRule),
        ("{rules: []}", Step::NoAllowRule),
        ("{rules: [{}]}", Step::AllowRule),
        ("{action: DENY}", Step::MutualTlsMode),
        ("{action: DENY, rules: [{}]}", Step::DenyRule),
        ("{action: AUDIT, rules: [{}]}", Step::MutualTlsMode),
    ] {
        assert_eq!(step(&policy(spec), WEB), expected, "{spec}");
    }
}

#[test]
fn a_default_action_alone_is_no_policy_that_allows_nobody() {
    let document = policy("{defaultAction: ALLOW}");
    assert_eq!(document.policy, None);
    assert_eq!(step(&document, WEB), Step::DefaultAction);
    let document = policy("defaultAction: DENY\nselector: {matchLabels: {app: api}}");
    assert_eq!(document.policy, None);
    assert_eq!(document.default_action.unwrap().1.line, 5);
}

#[test]
fn a_default_action_beside_rules_or_an_action_is_both() {
    for (spec, expected) in [
        ("{defaultAction: ALLOW, rules: []}", Step::NoAllowRule),
        ("{defaultAction: ALLOW, action: ALLOW}", Step::NoAllowRule),
        ("{defaultAction: ALLOW, action: DENY}", Step::DefaultAction),
        ("{defaultAction: DENY, rules: [{}]}", Step::AllowRule),
    ] {
        assert_eq!(step(&policy(spec), WEB), expected, "{spec}");
    }
}

#[test]
fn no_selector_is_the_whole_namespace() {
    for spec in ["{}", "{selector: {}}", "{selector: {matchLabels: {}}}"] {
        assert!(policy(spec).selector.is_everybody(), "{spec}");
    }
}

#[test]
fn tests_judge_the_policy_as_enforced_even_if_it_is_a_dry_run() {
    let spec = "dryRun: true\naction: DENY\nrules: [{}]\ntests: [{from: a.b/ns/c/sa/d, port: 1, expect: DENY}]";
    assert!(policy(spec).policy.unwrap().dry_run);
}

#[test]
fn a_policy_that_fails_its_own_tests_is_not_loaded() {
    let spec = EXAMPLE.trim_start().replace(
        "sa/guest, port: 8080, expect: DENY",
        "sa/guest, port: 8080, expect: ALLOW",
    );
    let failed = unloadable("AuthorizationPolicy", &spec);
    assert!(failed.tests_failed);
    assert!(failed.selector.is_some());
    assert_eq!(
        failed.errors.to_string(),
        "p.yaml:15:5: spec.tests[1] failed: expected ALLOW, got DENY: no ALLOW rule matches; \
         nearest is shop/p (p.yaml:9): rules[0].from[0].source.principals wants \
         cluster.local/ns/shop/sa/web, not cluster.local/ns/shop/sa/guest; \
         correct the rules or the test"
    );
}

#[test]
fn peer_authentication_reads_istios_modes() {
    for (spec, mode, says_disable) in [
        ("{}", None, false),
        ("{mtls: {}}", None, false),
        ("{mtls: {mode: UNSET}}", None, false),
        ("{mtls: {mode: STRICT}}", Some(MutualTlsMode::Strict), false),
        (
            "{mtls: {mode: PERMISSIVE}}",
            Some(MutualTlsMode::Permissive),
            false,
        ),
        (
            "{mtls: {mode: DISABLE}}",
            Some(MutualTlsMode::Permissive),
            true,
        ),
    ] {
        let document = peer_authentication(spec);
        assert_eq!(
            (document.mode, document.says_disable),
            (mode, says_disable),
            "{spec}"
        );
    }
    let document = peer_authentication(
        "selector: {matchLabels: {app: api}}\nportLevelMtls: {8080: {mode: PERMISSIVE}, \"9090\": {mode: STRICT}, 1: {mode: UNSET}}",
    );
    let expected = [
        (8080, MutualTlsMode::Permissive),
        (9090, MutualTlsMode::Strict),
    ];
    assert_eq!(document.ports, expected.into());
}

#[test]
fn an_eviction_names_an_identity_or_a_certificate() {
    for (spec, subject, until) in [
        (format!("{{spiffeId: \"{WEB}\"}}"), WEB.to_owned(), None),
        (
            "{serial: 0A0b, until: 2030-01-01T00:00:00Z}".to_owned(),
            "serial 0a0b".to_owned(),
            Some(1_893_456_000),
        ),
        (
            "{serial: \"10\", until: \"2030-01-01T01:00:00.5+01:00\"}".to_owned(),
            "serial 10".to_owned(),
            Some(1_893_456_001),
        ),
    ] {
        let Ok(Loaded::Eviction(eviction)) = load(&document("Eviction", &spec), &trust_domain())
        else {
            panic!("{spec}")
        };
        assert_eq!(eviction.subject.to_string(), subject);
        let until_of = |until: std::time::SystemTime| {
            until
                .duration_since(std::time::SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        assert_eq!(eviction.until.map(until_of), until, "{spec}");
    }
}
