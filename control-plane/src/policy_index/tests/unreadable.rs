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

#[test]
fn an_unreadable_document_goes_on_denying_when_it_is_edited_and_its_neighbour_goes() {
    let mut index = index_of(&[file("f.yaml", &[good("shop/all"), NAMELESS.to_owned()])]);
    let edited = NAMELESS.replace("nmae", "naem");
    index.replace_all([&file("f.yaml", &[edited])]);
    assert!(!is_allowed(&index, "shop"));
}

#[test]
fn what_stands_for_another_is_known_again_when_it_moves_and_another_comes() {
    let mut index = index_of(&[file("f.yaml", &[workload("shop/w"), good("shop/a")])]);
    let edited = NAMELESS.replace("no-guest", "a");
    let files = [file("f.yaml", &[workload("shop/w"), edited.clone()])];
    index.replace_all(&files);
    assert_eq!(effects(&index), [Effect::LastGood, Effect::LastGood]);
    index.replace_all([&file("f.yaml", std::slice::from_ref(&edited))]);
    assert_eq!(effects(&index), [Effect::LastGood, Effect::LastGood]);
    let another = NAMELESS.replace("nmae", "naem");
    index.replace_all([&file("f.yaml", &[edited, another])]);
    assert_eq!(
        effects(&index),
        [Effect::LastGood, Effect::LastGood, Effect::Denies],
        "nothing is gone that it could be"
    );
    assert!(!is_allowed(&index, "shop"));
}

#[test]
fn a_policy_without_a_name_is_not_what_became_of_a_workload_or_of_another_namespaces_policy() {
    for gone in [workload("shop/w"), good("pay/a")] {
        let mut index = index_of(&[file("f.yaml", &[gone])]);
        index.replace_all([&file("f.yaml", &[NAMELESS.to_owned()])]);
        assert!(!is_allowed(&index, "shop"));
        assert_eq!(effects(&index), [Effect::Denies]);
        assert_eq!(sources(&snapshot(&index, "pay")), Vec::<&str>::new());
    }
}

#[test]
fn a_broken_eviction_evicts_also_when_its_header_breaks_too() {
    let spec = format!("{{spiffeId: \"{GUEST}\", until: soon}}");
    let mut index = index_of(&[file("f.yaml", &[text("Eviction", "shop/e", &spec)])]);
    let evicts = |index: &PolicyIndex| {
        let guest = GUEST.parse().unwrap();
        index
            .evicted(&guest, None, SystemTime::UNIX_EPOCH)
            .is_some()
    };
    assert!(evicts(&index));
    index.replace_all([&split("f.yaml", b"\xff\xfe")]);
    assert!(evicts(&index));
    assert!(
        !is_allowed(&index, "shop"),
        "none of it was ever in force as written"
    );
    index.replace_all([&file("f.yaml", &[])]);
    assert!(!evicts(&index) && is_allowed(&index, "shop"));
}
