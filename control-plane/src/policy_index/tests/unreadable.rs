//! What can't be read denies until something says what it is: the removal of its neighbours does not.

use super::*;

/// A policy without a name: what it was meant to deny, nobody knows.
const NAMELESS: &str = "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                        metadata: {nmae: no-guest, namespace: shop}\n\
                        spec: {action: DENY, rules: [{}]}\n";
const FOREIGN: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\nspec: {}\n";

fn file(name: &str, documents: &[String]) -> Documents {
    split(name, documents.join("---\n").as_bytes())
}

fn good(name: &str) -> String {
    text("AuthorizationPolicy", name, "{rules: [{}]}")
}

fn workload(name: &str) -> String {
    text("Workload", name, "{}")
}

fn effects(index: &PolicyIndex) -> Vec<Effect> {
    index.problems().map(|problem| problem.effect).collect()
}

fn is_allowed(index: &PolicyIndex, namespace: &str) -> bool {
    judge(&snapshot(index, namespace), WEB).is_allowed()
}

fn index_of(files: &[Documents]) -> PolicyIndex {
    let mut index = index(ShippedDefaults::PERMISSIVE);
    index.replace_all(files);
    index
}

#[test]
fn the_removal_of_a_workload_lifts_no_denial_of_another_document_of_its_file() {
    let allowing = file("w.yaml", &[good("shop/all")]);
    let mut index = index_of(&[
        allowing.clone(),
        file("f.yaml", &[workload("other/old"), NAMELESS.to_owned()]),
    ]);
    assert!(!is_allowed(&index, "shop"));
    for _ in 0..2 {
        index.replace_all([&allowing, &file("f.yaml", &[NAMELESS.to_owned()])]);
        assert!(!is_allowed(&index, "shop"));
        assert_eq!(effects(&index), [Effect::Denies]);
    }
}

#[test]
fn the_removal_of_a_policy_lifts_no_denial_of_another_document_and_is_a_removal() {
    let mut index = index_of(&[file("f.yaml", &[good("shop/all"), NAMELESS.to_owned()])]);
    assert!(!is_allowed(&index, "shop"));
    index.replace_all([&file("f.yaml", &[NAMELESS.to_owned()])]);
    assert!(!is_allowed(&index, "shop"));
    assert_eq!(sources(&snapshot(&index, "shop")), Vec::<&str>::new());
    assert_eq!(effects(&index), [Effect::Denies]);
}

#[test]
fn a_document_of_somebody_else_keeps_nothing_in_force_that_was_removed() {
    let mut index = index(ShippedDefaults::STRICT);
    index.replace_all([&file("f.yaml", &[good("shop/all"), FOREIGN.to_owned()])]);
    assert!(is_allowed(&index, "shop"));
    index.replace_all([&file("f.yaml", &[FOREIGN.to_owned()])]);
    assert!(!is_allowed(&index, "shop"));
    assert_eq!(effects(&index), [Effect::NoPolicy]);
}
