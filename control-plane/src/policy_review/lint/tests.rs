use super::{
    super::tests::made_up::{PERMISSIVE, WORKLOADS, documents, noon},
    *,
};

mod generated;
mod identities;
mod ports_and_plaintext;
mod rules_compared;
mod scopes;

/// An `AuthorizationPolicy` in `shop`, whose spec is indented by two.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}\n---\n"
    )
}

/// One for api.
fn of_api(name: &str, action: &str, rules: &str) -> String {
    let selector = "selector: {matchLabels: {app: api}}";
    policy(
        name,
        &format!("  {selector}\n  action: {action}\n  rules:\n{rules}"),
    )
}

fn principals(account: &str) -> String {
    format!("  - from:\n    - source: {{principals: [cluster.local/ns/shop/sa/{account}]}}")
}

fn found(texts: &[&str]) -> Vec<Finding> {
    let documents = documents(texts);
    assert_eq!(documents.errors(), [], "the documents load");
    documents.findings(noon())
}

/// What is found, as `oddity line`, notes among it.
fn oddities(texts: &[&str]) -> Vec<String> {
    let findings = found(texts);
    findings
        .iter()
        .map(|finding| {
            format!(
                "{} {}:{}",
                finding.oddity, finding.place.file, finding.place.at.line
            )
        })
        .collect()
}

fn only(texts: &[&str], oddity: Oddity) -> Finding {
    let findings = found(texts);
    let of_it: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.oddity == oddity)
        .collect();
    match of_it[..] {
        [only] => only.clone(),
        _ => panic!("{oddity}: {findings:#?}"),
    }
}

fn none(texts: &[&str], oddity: Oddity) {
    let findings = found(texts);
    assert!(
        findings.iter().all(|finding| finding.oddity != oddity),
        "{findings:#?}"
    );
}

#[test]
fn documents_that_say_what_they_mean_are_not_odd() {
    let policy = of_api("p", "ALLOW", &principals("web"));
    assert_eq!(oddities(&[WORKLOADS, &policy]), [""; 0]);
    assert_eq!(oddities(&[WORKLOADS]), [""; 0]);
    assert_eq!(oddities(&[]), [""; 0]);
}

#[test]
fn fields_that_contradict_each_other_are_pointed_at() {
    for (rules, words, column) in [
        (
            "  - to:\n    - operation: {ports: [80], notPorts: [80, 81]}",
            "rules[0].to[0].operation.ports asks for what its notPorts never lets be",
            19,
        ),
        (
            "  - from:\n    - source: {ipBlocks: [10.1.0.0/16], notIpBlocks: [10.0.0.0/8]}",
            "source.ipBlocks asks for what its notIpBlocks never lets be",
            16,
        ),
        (
            "  - from:\n    - source: {principals: [cluster.local/ns/shop/sa/web], namespaces: [pay]}",
            "source.principals asks for what its namespaces never lets be",
            16,
        ),
    ] {
        let found = only(&[&of_api("p", "DENY", rules)], Oddity::MatchesNobody);
        assert!(found.problem.contains(words), "{}", found.problem);
        assert!(
            found.problem.starts_with("the rule matches nobody"),
            "{}",
            found.problem
        );
        assert_eq!(
            (found.place.at.line, found.place.at.column),
            (9, column),
            "{rules}"
        );
    }
    let beside = "  - from:\n    - source: {namespaces: [shop], notNamespaces: [shop]}\n    - source: {namespaces: [shop]}";
    let found = only(&[&of_api("p", "DENY", beside)], Oddity::MatchesNobody);
    assert!(
        found.problem.starts_with("this entry matches nobody"),
        "{}",
        found.problem
    );
}

#[test]
fn a_rule_without_from_beside_others_that_have_it_lets_everybody_in() {
    let typo = format!(
        "{}\n  - to:\n    - operation: {{ports: [8080]}}",
        principals("web")
    );
    let found = only(
        &[WORKLOADS, &of_api("p", "ALLOW", &typo)],
        Oddity::MatchesEverybody,
    );
    assert_eq!(found.severity, Severity::Warning);
    let words = "rules[1] has no from, and others of this policy have: it lets every caller in on port 8080";
    assert!(found.problem.starts_with(words), "{}", found.problem);
    assert!(found.help.contains("without the dash"), "{}", found.help);
    let meant = typo.replace("  - to:", "    to:");
    let alone = "  - to:\n    - operation: {ports: [8080]}";
    for (action, rules) in [("ALLOW", &*meant), ("ALLOW", alone), ("DENY", &typo)] {
        none(
            &[WORKLOADS, &of_api("p", action, rules)],
            Oddity::MatchesEverybody,
        );
    }
}

#[test]
fn policies_of_everybody_and_of_nobody_are_told_of() {
    for (spec, oddity, severity) in [
        ("  rules: [{}]", Oddity::MatchesEverybody, Severity::Warning),
        (
            "  action: DENY\n  rules: [{}]",
            Oddity::MatchesEverybody,
            Severity::Note,
        ),
        ("  rules: []", Oddity::AllowsNobody, Severity::Note),
        ("  action: ALLOW", Oddity::AllowsNobody, Severity::Note),
        (
            "  action: DENY\n  rules: []",
            Oddity::NoRules,
            Severity::Warning,
        ),
        (
            "  dryRun: true\n  rules: [{to: [{operation: {ports: [80]}}]}]",
            Oddity::NotEnforced,
            Severity::Note,
        ),
        (
            "  action: AUDIT\n  rules: [{}]",
            Oddity::NotEnforced,
            Severity::Note,
        ),
    ] {
        assert_eq!(
            only(&[&policy("p", spec)], oddity).severity,
            severity,
            "{spec}"
        );
    }
    let dry = |action: &str| {
        let spec = format!(
            "  action: {action}\n  dryRun: true\n  rules: [{{to: [{{operation: {{ports: [80]}}}}]}}]"
        );
        only(&[&policy("p", &spec)], Oddity::NotEnforced).problem
    };
    // as sidecars record it
    for (action, words) in [
        (
            "ALLOW",
            "whom it would let in is recorded as would_allow, whom it would cut as would_deny",
        ),
        ("DENY", "whom it would deny is recorded as would_deny"),
        ("AUDIT", "decides nothing"),
    ] {
        let told = dry(action);
        assert!(told.contains(words), "{action}: {told}");
    }
    none(
        &[&policy("p", "  defaultAction: DENY")],
        Oddity::AllowsNobody,
    );
}

#[test]
fn an_empty_spec_is_told_to_allow_nobody() {
    let empty = policy("p", "").replace("spec:\n", "spec: {}\n");
    assert_eq!(only(&[&empty], Oddity::AllowsNobody).place.at.line, 4);
}

#[test]
fn disable_is_pointed_at_where_it_is_written() {
    for (spec, line) in [
        ("{mtls: {mode: DISABLE}}", 4),
        (
            "\n  selector: {matchLabels: {app: api}}\n  portLevelMtls:\n    80: {mode: STRICT}\n    81: {mode: DISABLE}",
            8,
        ),
    ] {
        let document = format!(
            "apiVersion: mesh-lite.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
        );
        let found = only(&[&document], Oddity::DisableIsPermissive);
        assert_eq!(found.place.at.line, line);
    }
    none(&[PERMISSIVE], Oddity::DisableIsPermissive);
}
