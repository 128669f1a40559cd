//! For whom policies are: nobody, or those of whom another one states a default.

use std::collections::BTreeMap;

use mesh_lite_proto::document::Dialect;

use super::{
    super::super::{ReviewSettings, tests::made_up::settings},
    *,
};
use crate::policy_index::ShippedDefaults;

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
fn what_istio_has_for_the_whole_mesh_is_told_to_be_for_one_namespace() {
    let at_istios_root = |text: &str| text.replace("namespace: shop", "namespace: istio-system");
    let strict = at_istios_root(&PERMISSIVE.replace("PERMISSIVE", "STRICT"));
    let deny_all = at_istios_root(&policy("deny-all", "")).replace("spec:\n", "spec: {}\n");
    let in_it = WORKLOADS.replace("namespace: shop", "namespace: istio-system");
    for text in [&strict, &deny_all] {
        // without workloads, with workloads elsewhere, and with some of that very namespace
        for beside in ["", WORKLOADS, &in_it] {
            let found = only(&[beside, text], Oddity::NotMeshWide);
            assert_eq!(found.severity, Severity::Warning);
            let problem = "for workloads of the namespace istio-system alone";
            assert!(found.problem.contains(problem), "{}", found.problem);
            let help = "move it to the namespace mesh-lite-system; or, of files, leave apiVersion";
            assert!(found.help.starts_with(help), "{}", found.help);
            let above = u32::try_from(beside.lines().count()).unwrap();
            assert_eq!(found.place.at.line, above + 3);
            none(&[beside, text], Oddity::SelectsNothing);
        }
    }
}

#[test]
fn what_is_for_the_whole_mesh_is_not_told_to_be_for_one_namespace() {
    let at_root = |text: &str| text.replace("namespace: shop", "namespace: istio-system");
    let ours = at_root(PERMISSIVE);
    let istios = ours.replace("mesh-lite.io/v1", "security.istio.io/v1");
    let mut taking = settings(ShippedDefaults::STRICT);
    taking.dialect = Dialect::with_istio("istio-system");
    let mut own = settings(ShippedDefaults::STRICT);
    own.mesh_namespace = "istio-system".to_owned();
    let told = |text: &str, settings: &ReviewSettings| {
        let files = BTreeMap::from([("p.yaml".to_owned(), text.as_bytes().to_vec())]);
        let documents = Documents::of(&files, settings);
        assert_eq!(documents.errors(), []);
        let findings = documents.findings(noon());
        findings.iter().any(|one| one.oddity == Oddity::NotMeshWide)
    };
    assert!(!told(&istios, &taking));
    assert!(!told(&ours, &own));
    assert!(!told(PERMISSIVE, &taking), "of another namespace");
    // the setting is about Istio's documents alone
    assert!(told(&ours, &taking));
}

#[test]
fn a_namespace_without_workloads_is_told_where_policy_for_the_whole_mesh_is() {
    let nobodys = PERMISSIVE.replace("namespace: shop", "namespace: somewhere-else");
    let found = only(&[WORKLOADS, &nobodys], Oddity::SelectsNothing);
    assert!(
        found
            .help
            .ends_with("for the whole mesh is in mesh-lite-system"),
        "{}",
        found.help
    );
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
