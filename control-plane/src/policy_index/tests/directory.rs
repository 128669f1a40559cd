//! Whole scans of a directory.

use super::*;

fn file(name: &str, documents: &[String]) -> Documents {
    split(name, documents.join("---\n").as_bytes())
}

fn good(name: &str) -> String {
    text("AuthorizationPolicy", name, "{rules: [{}]}")
}

/// A document that is no YAML, and of which not even the header can be read.
const GARBAGE: &str = "apiVersion: mesh-lite.io/v1\nkind: [\nmetadata: {\n";

fn effects(index: &PolicyIndex) -> Vec<Effect> {
    index.problems().map(|problem| problem.effect).collect()
}

fn is_allowed(index: &PolicyIndex, namespace: &str) -> bool {
    judge(&snapshot(index, namespace), WEB).is_allowed()
}

#[test]
fn documents_that_are_gone_are_forgotten_with_their_file_or_without() {
    let mut index = index(ShippedDefaults::STRICT);
    let both = file("a.yaml", &[good("shop/a"), good("pay/b")]);
    index.replace_all([&both, &file("c.yaml", &[good("third/c")])]);
    assert!(is_allowed(&index, "shop") && is_allowed(&index, "pay") && is_allowed(&index, "third"));
    index.replace_all([&file("a.yaml", &[good("shop/a")])]);
    assert!(is_allowed(&index, "shop"));
    assert!(!is_allowed(&index, "pay") && !is_allowed(&index, "third"));
}

#[test]
fn a_document_may_move_to_another_file() {
    let mut index = index(ShippedDefaults::STRICT);
    index.replace_all([&file("a.yaml", &[good("shop/a")])]);
    index.replace_all([
        &file("a.yaml", &[GARBAGE.to_owned()]),
        &file("b.yaml", &[good("shop/a")]),
    ]);
    assert_eq!(
        judge(&snapshot(&index, "shop"), WEB).step,
        Step::BrokenDocument
    );
}

#[test]
fn an_unreadable_document_that_was_never_good_denies_everywhere() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    for _ in 0..2 {
        index.replace_all([&file("a.yaml", &[good("shop/a"), GARBAGE.to_owned()])]);
        assert_eq!(
            judge(&snapshot(&index, "pay"), WEB).step,
            Step::BrokenDocument
        );
        assert_eq!(effects(&index), [Effect::Denies]);
    }
    index.replace_all([&file("a.yaml", &[good("shop/a")])]);
    assert!(is_allowed(&index, "pay"));
    assert_eq!(effects(&index), []);
}

#[test]
fn an_unreadable_document_whose_namespace_is_known_denies_there() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.replace_all([&file(
        "a.yaml",
        &[text("AuthorisationPolicy", "shop/a", "{}")],
    )]);
    assert!(!is_allowed(&index, "shop"));
    assert!(is_allowed(&index, "pay"));
}

#[test]
fn a_document_of_somebody_else_is_a_problem_and_denies_nothing() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let foreign = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n".to_owned();
    index.replace_all([&file("a.yaml", &[foreign])]);
    assert!(is_allowed(&index, "shop"));
    assert_eq!(effects(&index), [Effect::NoPolicy]);
}

#[test]
fn a_document_that_becomes_unreadable_keeps_its_last_good_version_over_many_scans() {
    let mut index = index(ShippedDefaults::STRICT);
    index.replace_all([&file("a.yaml", &[good("shop/a"), good("shop/b")])]);
    for _ in 0..3 {
        index.replace_all([&file("a.yaml", &[GARBAGE.to_owned(), good("shop/b")])]);
        assert!(is_allowed(&index, "shop"));
        assert_eq!(sources(&snapshot(&index, "shop")), ["shop/a", "shop/b"]);
        assert_eq!(effects(&index), [Effect::LastGood, Effect::LastGood]);
    }
    index.replace_all([&file("a.yaml", &[good("shop/b")])]);
    assert_eq!(sources(&snapshot(&index, "shop")), ["shop/b"]);
}

#[test]
fn more_unreadable_documents_than_went_missing_deny() {
    let mut index = index(ShippedDefaults::STRICT);
    index.replace_all([&file("a.yaml", &[good("shop/a")])]);
    index.replace_all([&file("a.yaml", &[GARBAGE.to_owned(), GARBAGE.to_owned()])]);
    assert!(!is_allowed(&index, "shop"));
    assert_eq!(
        sources(&snapshot(&index, "shop")),
        ["shop/a"],
        "it is held all the same"
    );
}

#[test]
fn a_file_of_workloads_that_becomes_unreadable_denies_nothing() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.replace_all([&file("w.yaml", &[text("Workload", "shop/w", "{}")])]);
    index.replace_all([&split("w.yaml", b"\xff\xfe\x00 garbage")]);
    assert!(is_allowed(&index, "shop"));
}

#[test]
fn a_second_document_of_one_name_denies_unless_there_was_a_good_one_before() {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    let (first, second) = (
        file("a.yaml", &[good("shop/a")]),
        file("b.yaml", &[good("shop/a")]),
    );
    index.replace_all([&first, &second]);
    assert!(!is_allowed(&index, "shop"));
    let errors = index.problems().next().unwrap().errors.to_string();
    assert!(
        errors.starts_with(
            "b.yaml:3:18: AuthorizationPolicy shop/a is defined twice, first at a.yaml:1; rename"
        ),
        "{errors}"
    );
    index.replace_all([&first]);
    assert!(is_allowed(&index, "shop"));
    let other = file(
        "b.yaml",
        &[text(
            "AuthorizationPolicy",
            "shop/a",
            "{action: DENY, rules: [{}]}",
        )],
    );
    index.replace_all([&first, &other]);
    assert!(is_allowed(&index, "shop"), "the good one stays in force");
    assert_eq!(effects(&index), [Effect::LastGood]);
}
