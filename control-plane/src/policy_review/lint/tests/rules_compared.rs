//! Rules that others make unnecessary, or undo.

use mesh_lite_proto::document::Dialect;

use super::*;
use crate::{
    policy_index::ShippedDefaults,
    policy_review::{ReviewSettings, tests::made_up::settings},
};

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
fn thousands_of_rules_are_compared_up_to_a_bound_and_it_is_said() {
    let rules: Vec<String> = (0..2_100)
        .map(|number| format!("  - to: [{{operation: {{ports: [{}]}}}}]", number + 1))
        .collect();
    let many = of_api("many", "ALLOW", &rules.join("\n"));
    let found = only(&[&many], Oddity::NotCompared);
    assert!(found.problem.contains("2100 rules"), "{}", found.problem);
}
