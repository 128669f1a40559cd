//! For whom policies are: nobody, or those of whom another one states a default.

use super::*;

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
