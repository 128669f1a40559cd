//! What is refused, and in which words.

use super::*;

mod fields;
mod other_kinds;
mod values;

fn errors(kind: &str, spec: &str) -> String {
    unloadable(kind, spec).errors.to_string()
}

fn policy_errors(spec: &str) -> String {
    errors("AuthorizationPolicy", spec)
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let unloadable = unloadable(
        "AuthorizationPolicy",
        "actoin: DENY\nrules:\n- from: []\n  to: [{operation: {ports: [0]}}]\ndryRun: 7",
    );
    assert_eq!(unloadable.errors.count(), 4, "{}", unloadable.errors);
    assert!(!unloadable.tests_failed);
}

#[test]
fn errors_without_end_are_shown_to_an_end() {
    let ports = vec!["0"; 500].join(",");
    let errors = policy_errors(&format!(
        "{{rules: [{{to: [{{operation: {{ports: [{ports}]}}}}]}}]}}"
    ));
    assert_eq!(errors.lines().count(), 51);
    assert!(errors.ends_with("and 450 more"));
}

#[test]
fn of_errors_without_end_the_first_are_kept_and_the_others_are_counted() {
    let ports = |count: usize| {
        let ports = vec!["      - 0"; count].join("\n");
        unloadable(
            "AuthorizationPolicy",
            &format!("rules:\n- to:\n  - operation:\n      ports:\n{ports}"),
        )
        .errors
    };
    let lines = |errors: &DocumentErrors| -> Vec<u32> {
        errors.iter().map(|error| error.place.at.line).collect()
    };
    let (few, many) = (ports(50), ports(20_000 - 100));
    assert_eq!((few.count(), few.iter().count()), (50, 50));
    assert_eq!((many.count(), many.iter().count()), (19_900, 51));
    assert_eq!(lines(&few)[..], lines(&many)[..50], "the first of them");
    let last = many.iter().last().unwrap();
    assert_eq!(last.class, RefusalClass::TooManyErrors);
    assert_eq!(last.problem, "19850 more errors in this document");
    let both = many.and(&few);
    assert_eq!((both.count(), both.iter().count()), (19_950, 51));
    assert_eq!(both, few.and(&many));
}

/// Found in the wrong order: a field that is not known is seen before what stands above it.
#[test]
fn the_errors_that_are_kept_are_those_that_stand_first() {
    let unknown: String = (0..200).map(|n| format!("x{n}: 1\n")).collect();
    let errors = unloadable("AuthorizationPolicy", &format!("action: FOO\n{unknown}")).errors;
    assert_eq!(errors.count(), 201);
    let first = errors.iter().next().unwrap();
    assert_eq!(first.class, RefusalClass::UnknownValue, "{first}");
}

#[test]
fn an_error_is_short_however_long_what_it_is_about_is() {
    let long = "x".repeat(100_000);
    for spec in [
        format!("action: {long}"),
        format!("? {long}\n: 1"),
        format!("rules: [{{from: [{{source: {{namespaces: ['{long}é \\u0007']}}}}]}}]"),
        format!("rules: [{{when: [{{key: {long}, values: [a]}}]}}]"),
        format!("tests: [{{from: {long}, port: {long}, expect: {long}}}]"),
        format!("selector: {{matchLabels: {{? {long} : [1]}}}}"),
    ] {
        let errors = policy_errors(&spec);
        assert!(
            !errors.is_empty() && errors.len() < 8_000,
            "{}",
            errors.len()
        );
    }
    let modes: String = (0..2_000).map(|n| format!("    x{n}: 1\n")).collect();
    let spec =
        format!("selector: {{matchLabels: {{a: b}}}}\nportLevelMtls:\n  ? {long}\n  :\n{modes}");
    let errors = errors("PeerAuthentication", &spec);
    assert!(
        errors.contains("portLevelMtls.xxx") && errors.contains("xxx….x7"),
        "{errors}"
    );
    assert!(errors.len() < 51 * 500, "{}", errors.len());
}

#[test]
fn the_selector_of_a_broken_policy_is_known_if_it_can_be_read() {
    let api = BTreeMap::from([("app".to_owned(), "api".to_owned())]);
    let selector = unloadable(
        "AuthorizationPolicy",
        "selector: {matchLabels: {app: api}}\nrules: 7",
    )
    .selector
    .unwrap();
    assert!(selector.selects(&api) && !selector.selects(&BTreeMap::new()));
    let selector = unloadable("AuthorizationPolicy", "rules: 7")
        .selector
        .unwrap();
    assert!(selector.is_everybody());
    for spec in [
        "selector: 7",
        "selector: {matchLabels: {app: 1}}",
        "selector: {matchLabel: {app: api}}",
        "selector:",
    ] {
        assert_eq!(
            unloadable("AuthorizationPolicy", spec).selector,
            None,
            "{spec}"
        );
    }
}

#[test]
fn nothing_in_a_document_can_look_like_another_line_of_a_log() {
    let forged = r#""a\nERROR b\u001b[2J""#;
    for (kind, spec) in [
        ("AuthorizationPolicy", format!("{{{forged}: 1}}")),
        ("AuthorizationPolicy", format!("{{action: {forged}}}")),
        (
            "AuthorizationPolicy",
            format!("{{selector: {{matchLabels: {{{forged}: 1}}}}}}"),
        ),
        (
            "AuthorizationPolicy",
            format!("{{rules: [{{from: [{{source: {{principals: [{forged}]}}}}]}}]}}"),
        ),
        (
            "AuthorizationPolicy",
            format!("{{rules: [{{}}], tests: [{{from: {forged}, port: 1, expect: DENY}}]}}"),
        ),
        (
            "PeerAuthentication",
            format!(
                "{{selector: {{matchLabels: {{a: b}}}}, portLevelMtls: {{{forged}: {{mode: 1}}}}}}"
            ),
        ),
        ("Eviction", format!("{{spiffeId: {forged}}}")),
        ("Eviction", format!("{{serial: {forged}}}")),
    ] {
        let unloadable = unloadable(kind, &spec);
        for error in unloadable.errors.iter() {
            let text = error.to_string();
            assert!(!text.contains(char::is_control), "{spec}: {text:?}");
        }
    }
}

#[test]
fn what_is_wrong_beside_a_wrong_header_is_said_as_well_in_the_order_of_lines() {
    let text = "apiVersion: mesh-lite.io/v2\nkind: AuthorizationPolicy\n\
                metadata: {name: p, namespace: shop, nmae: q}\n\
                spec:\n  selector: {matchLabels: {app: api}}\n  action: DENNY\nsepc: {}\n";
    let raw = split("p.yaml", text.as_bytes()).readable.remove(0);
    let unloadable = load(&raw, &trust_domain()).unwrap_err();
    let places: Vec<String> = unloadable
        .errors
        .iter()
        .map(|error| format!("{} {}", error.place, error.class))
        .collect();
    let expected = [
        "p.yaml:1:13 unknown-api-version",
        "p.yaml:3:38 unknown-field",
        "p.yaml:6:11 unknown-value",
        "p.yaml:7:1 unknown-field",
    ];
    assert_eq!(places, expected);
    // the namespace may be what is misspelt: it denies for more than its selector says
    assert_eq!(unloadable.selector, None);
}

#[test]
fn behind_a_mistake_in_the_yaml_nothing_is_guessed() {
    let text = "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: p}\nspec: {rules: [}\n";
    let raw = split("p.yaml", text.as_bytes()).readable.remove(0);
    let errors = load(&raw, &trust_domain()).unwrap_err().errors;
    assert_eq!(errors.count(), 1, "{errors}");
}

#[test]
fn every_class_has_a_name_of_its_own() {
    use crate::document::RefusalClass;
    let names: std::collections::BTreeSet<&str> = RefusalClass::ALL
        .iter()
        .map(|class| class.as_str())
        .collect();
    assert_eq!(names.len(), RefusalClass::ALL.len());
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(names.iter().all(|name| name.chars().all(fine)), "{names:?}");
}
