use super::{
    super::{
        ReviewSettings,
        made_up::{PERMISSIVE, WORKLOADS, documents, noon, settings},
    },
    *,
};
use crate::policy_index::ShippedDefaults;
use mesh_lite_proto::document::Dialect;

mod generated;
mod ports_and_plaintext;

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
fn a_rule_that_another_one_makes_unnecessary_is_named_with_it() {
    let wide = of_api(
        "wide",
        "ALLOW",
        "  - from:\n    - source: {namespaces: [shop]}",
    );
    let narrow = of_api("narrow", "ALLOW", &principals("web"));
    let found = only(&[WORKLOADS, &wide, &narrow], Oddity::ShadowedRule);
    assert!(
        found.problem.contains("shop/wide rules[0]"),
        "{}",
        found.problem
    );
    // of two that are alike, the second
    let twice = [principals("web"), principals("web")].join("\n");
    let found = only(
        &[WORKLOADS, &of_api("p", "ALLOW", &twice)],
        Oddity::ShadowedRule,
    );
    assert!(
        found
            .problem
            .starts_with("rules[1] changes nothing: shop/p rules[0]"),
        "{}",
        found.problem
    );
}

#[test]
fn a_rule_is_not_shadowed_by_one_of_another_scope_or_that_is_not_enforced() {
    let narrow = of_api("narrow", "ALLOW", &principals("web"));
    let of_guest = of_api(
        "wide",
        "ALLOW",
        "  - from:\n    - source: {namespaces: [shop]}",
    )
    .replace("app: api", "app: guest");
    let dry = policy(
        "dry",
        "  dryRun: true\n  rules:\n  - from:\n    - source: {namespaces: [shop]}",
    );
    let elsewhere = of_guest
        .replace("namespace: shop", "namespace: pay")
        .replace("app: guest", "app: api");
    for other in [&of_guest, &dry, &elsewhere] {
        none(&[WORKLOADS, &narrow, other], Oddity::ShadowedRule);
    }
    // the mesh's namespace is for all
    let mesh = elsewhere.replace("namespace: pay", "namespace: mesh-lite-system");
    only(&[WORKLOADS, &narrow, &mesh], Oddity::ShadowedRule);
    // what is for the whole namespace is not shadowed by what is for one workload of it
    let all = policy("all", &format!("  rules:\n{}", principals("web")));
    let one = of_api(
        "one",
        "ALLOW",
        "  - from:\n    - source: {namespaces: [shop]}",
    );
    none(&[WORKLOADS, &all, &one], Oddity::ShadowedRule);
}

#[test]
fn a_document_of_istio_s_root_namespace_is_not_shadowed_by_one_that_is_for_that_namespace_only() {
    let in_root = |text: &str| text.replace("namespace: shop", "namespace: istio-system");
    let narrow = in_root(&policy(
        "narrow",
        &format!("  rules:\n{}", principals("web")),
    ));
    let wide = in_root(&policy(
        "wide",
        "  rules:\n  - from:\n    - source: {namespaces: [shop]}",
    ));
    let shadowed = |narrow: &str, wide: &str| {
        let settings = ReviewSettings {
            dialect: Dialect::with_istio("istio-system"),
            ..settings(ShippedDefaults::STRICT)
        };
        let files = [("p.yaml".to_owned(), [narrow, wide].concat().into_bytes())];
        let documents = Documents::of(&files.into(), &settings);
        assert_eq!(documents.errors(), []);
        let findings = documents.findings(noon());
        findings
            .iter()
            .any(|finding| finding.oddity == Oddity::ShadowedRule)
    };
    let istios = |text: &str| text.replace("mesh-lite.io/v1", "security.istio.io/v1");
    assert!(
        !shadowed(&istios(&narrow), &wide),
        "it is for all namespaces"
    );
    assert!(shadowed(&narrow, &istios(&wide)));
    assert!(shadowed(&narrow, &wide));
}

#[test]
fn an_allow_rule_that_a_deny_rule_undoes_is_named_with_it_and_not_the_other_way_round() {
    let deny = of_api(
        "deny",
        "DENY",
        "  - from:\n    - source: {namespaces: [shop]}",
    );
    let allow = of_api("allow", "ALLOW", &principals("web"));
    let found = only(&[WORKLOADS, PERMISSIVE, &allow, &deny], Oddity::DeniedRule);
    assert!(
        found.problem.contains("allows nobody: shop/deny rules[0]"),
        "{}",
        found.problem
    );
    let allow_all = of_api(
        "allow",
        "ALLOW",
        "  - from:\n    - source: {namespaces: [shop]}",
    );
    let deny_one = of_api("deny", "DENY", &principals("web"));
    none(&[WORKLOADS, &allow_all, &deny_one], Oddity::DeniedRule);
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
fn whom_no_document_knows_is_named_with_who_was_meant() {
    for (source, problem, help) in [
        (
            "principals: [cluster.local/ns/shop/sa/wbe]",
            "no Workload document has the identity cluster.local/ns/shop/sa/wbe",
            "did you mean shop/web?",
        ),
        (
            "serviceAccounts: [shop/guets]",
            "no Workload document has the identity cluster.local/ns/shop/sa/guets",
            "did you mean shop/guest?",
        ),
        (
            "namespaces: [shopp]",
            "no Workload document is in the namespace shopp",
            "did you mean shop?",
        ),
        // it is outside of the mesh, and proves nothing
        (
            "serviceAccounts: [shop/legacy]",
            "no Workload document has the identity cluster.local/ns/shop/sa/legacy",
            "correct the name, or add the workload",
        ),
    ] {
        let policy = of_api(
            "p",
            "ALLOW",
            &format!("  - from:\n    - source: {{{source}}}"),
        );
        let found = only(&[WORKLOADS, &policy], Oddity::UnknownIdentity);
        assert_eq!((&*found.problem, &*found.help), (problem, help));
        // without a Workload document, nothing is known of anybody
        none(&[&policy], Oddity::UnknownIdentity);
    }
}

#[test]
fn strangers_of_other_trust_domains_and_patterns_are_not_called_unknown() {
    for source in [
        "principals: [other.org/ns/shop/sa/wbe]",
        "principals: [cluster.local/ns/shop/sa/x*]",
        "serviceAccounts: [pay/x], trustDomains: [other.org]",
        "namespaces: [x], trustDomains: [other.org]",
        "notPrincipals: [cluster.local/ns/shop/sa/wbe]",
    ] {
        let policy = of_api(
            "p",
            "ALLOW",
            &format!("  - from:\n    - source: {{{source}}}"),
        );
        none(&[WORKLOADS, &policy], Oddity::UnknownIdentity);
    }
}

#[test]
fn whom_nobody_can_prove_to_be_is_named_with_the_right_spelling() {
    for (source, problem, help) in [
        (
            "principals: [shop/web]",
            "nobody has the identity shop/web",
            "did you mean cluster.local/ns/shop/sa/web?",
        ),
        (
            "notPrincipals: [shop/web]",
            "nobody has the identity shop/web",
            "did you mean cluster.local/ns/shop/sa/web?",
        ),
        (
            "principals: [other.org/ns/shop/sa/web]",
            "no caller of another trust domain, as other.org,",
            "if it is of this mesh, write cluster.local/ns/shop/sa/web",
        ),
        (
            "principals: [cluster.local/shop/web]",
            "mesh-lite issues none of its form",
            "write cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
        ),
        (
            "namespaces: [shop], trustDomains: [other.org]",
            "no caller of another trust domain, as other.org,",
            "write cluster.local, the trust domain of this mesh",
        ),
    ] {
        let rule = format!("  - from:\n    - source: {{{source}}}");
        for action in ["ALLOW", "DENY"] {
            let policy = of_api("p", action, &rule);
            for texts in [&[&*policy][..], &[WORKLOADS, &policy]] {
                let found = only(texts, Oddity::UnprovableIdentity);
                assert_eq!(found.severity, Severity::Warning);
                assert!(found.problem.contains(problem), "{}", found.problem);
                assert_eq!(found.help, help);
                none(texts, Oddity::UnknownIdentity);
            }
        }
    }
    for source in [
        "principals: [cluster.local/ns/shop/sa/web, \"*\", \"shop/*\"]",
        "namespaces: [shop], trustDomains: [cluster.local]",
    ] {
        let rule = format!("  - from:\n    - source: {{{source}}}");
        none(&[&of_api("p", "ALLOW", &rule)], Oddity::UnprovableIdentity);
    }
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
fn a_policy_of_no_namespace_is_told_where_it_is() {
    let nowhere = of_api("p", "ALLOW", &principals("web")).replace(", namespace: shop", "");
    let found = only(&[WORKLOADS, &nowhere], Oddity::SelectsNothing);
    assert!(
        found.help.contains("without one is in `default`"),
        "{}",
        found.help
    );
}

#[test]
fn a_selector_that_selects_nobody_is_pointed_at_with_the_label_that_was_meant() {
    let wrong = of_api("p", "ALLOW", &principals("web")).replace("app: api", "app: apl");
    let found = only(&[WORKLOADS, &wrong], Oddity::SelectsNothing);
    assert_eq!(found.help, "did you mean app: api?");
    let above = u32::try_from(WORKLOADS.lines().count()).unwrap();
    assert_eq!((found.place.at.line, found.place.at.column), (above + 5, 3));
    none(&[&wrong], Oddity::SelectsNothing);
    let elsewhere = PERMISSIVE.replace("namespace: shop", "namespace: shpo");
    let found = only(&[WORKLOADS, &elsewhere], Oddity::SelectsNothing);
    assert!(
        found
            .problem
            .contains("no Workload document is in the namespace shpo"),
        "{}",
        found.problem
    );
    assert_eq!(found.help, "did you mean shop?");
    let mesh = PERMISSIVE.replace("namespace: shop", "namespace: mesh-lite-system");
    none(&[WORKLOADS, &mesh], Oddity::SelectsNothing);
}

#[test]
fn nobody_is_called_unknown_while_documents_of_workloads_are_wrong() {
    let stranger = of_api("p", "ALLOW", &principals("stranger")).replace("app: api", "app: x");
    assert_eq!(documents(&[WORKLOADS, &stranger]).findings(noon()).len(), 2);
    let twice = [WORKLOADS, WORKLOADS].concat();
    let unreadable = "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: [x\n---\n";
    for wrong in [
        &*twice,
        unreadable,
        &WORKLOADS.replace("10.0.0.10", "10.0.0.300"),
    ] {
        let documents = documents(&[WORKLOADS, wrong, &stranger]);
        assert!(!documents.errors().is_empty());
        let findings = documents.findings(noon());
        let said: Vec<_> = findings.iter().map(|it| (it.oddity, it.severity)).collect();
        assert_eq!(said, [(Oddity::NotChecked, Severity::Note)], "{wrong}");
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

#[test]
fn defaults_of_one_scope_contradict_each_other_and_those_of_two_do_not() {
    let default = |name: &str, action: &str| policy(name, &format!("  defaultAction: {action}"));
    let of_label = |name: &str, label: &str| {
        policy(
            name,
            &format!("  selector: {{matchLabels: {{{label}}}}}\n  defaultAction: ALLOW"),
        )
    };
    let (a, b) = (default("a", "ALLOW"), default("b", "DENY"));
    let found = only(&[&a, &b], Oddity::SeveralDefaults);
    assert_eq!(found.severity, Severity::Warning);
    assert!(found.problem.contains("shop/a"), "{}", found.problem);
    let both_deny = [default("a", "DENY"), b.clone()];
    assert_eq!(
        only(&[&both_deny[0], &both_deny[1]], Oddity::SeveralDefaults).severity,
        Severity::Note
    );
    let mesh = a.replace("namespace: shop", "namespace: mesh-lite-system");
    none(&[&mesh, &b], Oddity::SeveralDefaults);
    none(&[&a, &of_label("c", "app: api")], Oddity::SeveralDefaults);
    none(
        &[
            WORKLOADS,
            &of_label("c", "app: api"),
            &of_label("d", "app: web"),
        ],
        Oddity::SeveralDefaults,
    );
    let labelled = WORKLOADS.replace("labels: {app: api}", "labels: {app: api, tier: back}");
    only(
        &[
            &labelled,
            &of_label("c", "app: api"),
            &of_label("d", "tier: back"),
        ],
        Oddity::SeveralDefaults,
    );
}

#[test]
fn a_principal_that_begins_with_a_star_reaches_other_trust_domains() {
    let from = |source: &str, action| {
        of_api(
            "p",
            action,
            &format!("  - from:\n    - source: {{{source}}}"),
        )
    };
    let found = only(
        &[&from(
            "principals: [\"cluster.local/*\", \"*/sa/web\"]",
            "ALLOW",
        )],
        Oddity::ForeignTrustDomains,
    );
    assert_eq!(found.severity, Severity::Warning);
    assert!(
        found.help.contains("trustDomains: [cluster.local]"),
        "{}",
        found.help
    );
    assert_eq!(found.place.at.column, 48, "the value itself");
    let any = only(
        &[&from("principals: [\"*\"]", "ALLOW")],
        Oddity::ForeignTrustDomains,
    );
    assert_eq!(
        any.severity,
        Severity::Note,
        "it is how Istio's documents say: any identity"
    );
    for (source, action) in [
        ("principals: [\"cluster.local/ns/*\"]", "ALLOW"),
        (
            "principals: [\"*/sa/web\"], trustDomains: [cluster.local]",
            "ALLOW",
        ),
        ("principals: [\"*/sa/web\"]", "DENY"),
        ("namespaces: [\"*\"]", "ALLOW"),
    ] {
        none(&[&from(source, action)], Oddity::ForeignTrustDomains);
    }
}

#[test]
fn thousands_of_rules_are_compared_up_to_a_bound_and_it_is_said() {
    let rules: Vec<String> = (0..2_100)
        .map(|number| format!("  - to: [{{operation: {{ports: [{}]}}}}]", number + 1))
        .collect();
    let many = of_api("many", "ALLOW", &rules.join("\n"));
    let found = only(&[&many], Oddity::NotCompared);
    assert!(found.problem.contains("2100 rules"), "{}", found.problem);
}
