//! What a denied caller is told.

use super::*;

#[test]
fn the_nearest_miss_is_the_rule_that_lacks_least() {
    let two_fields = rule(vec![principals(&[GUEST])], vec![ports(&[9090])]);
    let wrong_port = rule(vec![principals(&["*"])], vec![ports(&[1, 2, 3, 4, 5])]);
    let mut near = policy(PolicyAction::Allow, vec![two_fields, wrong_port]);
    near.source = source_ref("shop/near", 1);
    let far = policy(
        PolicyAction::Allow,
        vec![rule(vec![principals(&[GUEST])], vec![ports(&[1])])],
    );
    let decision = judge(&permissive(vec![far, near]), WEB);
    let miss = decision.nearest_miss.clone().unwrap();
    assert_eq!((&*miss.policy.document, miss.rule), ("shop/near", 1));
    assert_eq!(
        miss.to_string(),
        "shop/near (p.yaml:7): rules[1].to[0].operation.ports wants 1, 2, 3, 4, …, not 8080"
    );
}

#[test]
fn the_nearest_miss_shows_the_value_most_like_the_callers() {
    let names = [
        "cluster.local/ns/pay/sa/x",
        "cluster.local/ns/shop/sa/wob",
        "*/sa/api",
    ];
    let allow = policy(
        PolicyAction::Allow,
        vec![rule(vec![principals(&names)], Vec::new())],
    );
    let decision = judge(&permissive(vec![allow]), WEB);
    let miss = decision.nearest_miss.unwrap();
    assert_eq!(miss.failed[0].value, "cluster.local/ns/shop/sa/wob");
    assert_eq!(miss.failed[0].others, 2);
    let said = miss.to_string();
    assert!(
        said.contains("wants cluster.local/ns/shop/sa/wob (or 2 others), not"),
        "{said}"
    );
    assert_eq!(miss.failed[0].field.line, 8);
}

#[test]
fn the_nearest_miss_says_what_excludes_and_what_plaintext_lacks() {
    let not_guest = PeerMatch {
        principals: vec!["*".parse().unwrap()],
        ..peer(FieldName::NotNamespaces, &["pay", "sh*"])
    };
    let allow = policy(PolicyAction::Allow, vec![rule(vec![not_guest], Vec::new())]);
    let snapshot = permissive(vec![allow]);
    let reason = judge(&snapshot, GUEST).reason();
    assert!(
        reason.ends_with(
            "notNamespaces excludes sh*, and the caller has cluster.local/ns/shop/sa/guest"
        ),
        "{reason}"
    );
    let reason = judge(&snapshot, "").reason();
    assert!(
        reason.ends_with(
            "rules[0].from[0].source.principals wants *, not no identity (plaintext), and \
             rules[0].from[0].source.notNamespaces excludes pay, and the caller has no identity \
             (plaintext)"
        ),
        "{reason}"
    );
}

#[test]
fn a_denial_compares_no_more_than_it_can_afford() {
    let mut names = vec!["cluster.local/ns/pay/sa/x"; 300];
    names.push("cluster.local/ns/shop/sa/wob");
    let allow = policy(
        PolicyAction::Allow,
        vec![rule(vec![principals(&names)], Vec::new())],
    );
    let miss = judge(&permissive(vec![allow]), WEB).nearest_miss.unwrap();
    assert_eq!(miss.failed[0].value, "cluster.local/ns/pay/sa/x");
    let excluded = PeerMatch {
        not_principals: names.iter().map(|name| name.parse().unwrap()).collect(),
        ..PeerMatch::default()
    };
    let allow = policy(PolicyAction::Allow, vec![rule(vec![excluded], Vec::new())]);
    let snapshot = permissive(vec![allow]);
    let miss = judge(&snapshot, "spiffe://cluster.local/ns/shop/sa/wob")
        .nearest_miss
        .unwrap();
    assert_eq!(
        miss.failed[0].value, "cluster.local/ns/shop/sa/wob",
        "what excludes is always named"
    );
}

#[test]
fn among_many_rules_those_with_something_in_common_are_compared_first() {
    let of = |name: &str, port| {
        let name = format!("cluster.local/ns/shop/sa/{name}");
        rule(vec![principals(&[&name])], vec![ports(&[port])])
    };
    // all share a port, so that they are filed by principal; only the last one's is the caller's
    let mut rules: Vec<Rule> = (0..1000).map(|n| of(&format!("w{n}"), 9090)).collect();
    rules.push(of("web", 9090));
    let snapshot = permissive(vec![policy(PolicyAction::Allow, rules)]);
    let miss = judge(&snapshot, WEB).nearest_miss.unwrap();
    assert_eq!(miss.rule, 1000);
    assert_eq!(miss.failed.len(), 1);
    let stranger = judge(&snapshot, GUEST).nearest_miss.unwrap();
    assert_eq!(
        (stranger.rule, stranger.failed.len()),
        (0, 2),
        "the first of equals"
    );
}
