//! Values that say nothing, or nothing that can be.

use super::*;

#[test]
fn empty_lists_and_sources_are_refused() {
    for (spec, problem) in [
        ("{rules: [{from: []}]}", "spec.rules[0].from is empty"),
        ("{rules: [{from: }]}", "spec.rules[0].from is empty"),
        ("{rules: [{to: []}]}", "spec.rules[0].to is empty"),
        (
            "{rules: [{from: [{}]}]}",
            "spec.rules[0].from[0].source is missing",
        ),
        (
            "{rules: [{from: [{source: {}}]}]}",
            "spec.rules[0].from[0].source is empty",
        ),
        (
            "{rules: [{from: [{source: }]}]}",
            "spec.rules[0].from[0].source is empty",
        ),
        (
            "{rules: [{to: [{operation: {}}]}]}",
            "spec.rules[0].to[0].operation is empty",
        ),
        (
            "{rules: [{to: [{operation: {ports: []}}]}]}",
            "spec.rules[0].to[0].operation.ports is empty",
        ),
        (
            "{rules: [{from: [{source: {principals: []}}]}]}",
            "source.principals is empty",
        ),
        (
            "{rules: [{from: [{source: {notNamespaces: }}]}]}",
            "source.notNamespaces is empty",
        ),
        ("{rules: }", "spec.rules is empty"),
        ("{rules: [null]}", "spec.rules[0] is a map, found nothing"),
        ("{tests: []}", "spec.tests is empty"),
    ] {
        let errors = policy_errors(spec);
        assert!(
            errors.starts_with("p.yaml:5:") && errors.contains(problem),
            "{spec}: {errors}"
        );
    }
}

#[test]
fn values_that_could_match_nothing_are_refused() {
    for (field, value, problem) in [
        ("principals", "a*b", "has a star where it can't stand"),
        ("principals", "*a*", "has a star where it can't stand"),
        ("principals", "**", "has a star where it can't stand"),
        ("principals", "", "an empty value matches nobody"),
        ("principals", "spiffe://", "an empty value matches nobody"),
        (
            "principals",
            "cluster.local",
            "names a trust domain, not a workload",
        ),
        ("principals", "Cluster.local/ns/a/sa/b", "canonical"),
        ("principals", "cluster.local/ns//sa/b", "is not a SPIFFE ID"),
        ("principals", "spiffe:*", "is no principal"),
        ("principals", "http://a/b", "is no principal"),
        (
            "notPrincipals",
            "cluster.local/ns/ä*",
            "'ä' never stands there",
        ),
        ("namespaces", "shop/web", "'/' never stands there"),
        ("notNamespaces", "a b", "' ' never stands there"),
        ("trustDomains", "Cluster.local", "'C' never stands there"),
        ("trustDomains", "a/b", "'/' never stands there"),
        ("serviceAccounts", "shop/*", "use principals for patterns"),
        ("serviceAccounts", "a/b/c", "'/' never stands there"),
        ("serviceAccounts", "/web", "an empty value matches nobody"),
        ("ipBlocks", "10.0.0.0/33", "is no address block"),
        ("ipBlocks", "10.0.0", "is no address block"),
        ("ipBlocks", "10.0.0.1/08", "is no address block"),
        ("ipBlocks", "10.0.0.1/00", "is no address block"),
        ("ipBlocks", "fd00::/064", "is no address block"),
        ("ipBlocks", "::ffff:10.0.0.0/104", "is no address block"),
        ("notIpBlocks", "web", "is no address block"),
    ] {
        let errors = policy_errors(&format!(
            "rules: [{{from: [{{source: {{{field}: [\"{value}\"]}}}}]}}]"
        ));
        let path = format!("spec.rules[0].from[0].source.{field}[0]: ");
        assert!(
            errors.contains(&path) && errors.contains(problem),
            "{field} {value:?}: {errors}"
        );
    }
}

#[test]
fn values_of_another_type_are_refused() {
    for (spec, problem) in [
        ("[]", "spec is a map, found a list"),
        ("text", "spec is a map, found a text"),
        ("{selector: app}", "spec.selector is a map, found a text"),
        (
            "{selector: {matchLabels: {app: 1}}}",
            "spec.selector.matchLabels.app is a text, found a number",
        ),
        (
            "{selector: {matchLabels: [app]}}",
            "spec.selector.matchLabels is a map of texts, found a list",
        ),
        (
            "{dryRun: yes}",
            "spec.dryRun is true or false, found a text",
        ),
        (
            "{dryRun: 1}",
            "spec.dryRun is true or false, found a number",
        ),
        ("{action: Allow}", "unknown spec.action \"Allow\""),
        ("{action: }", "spec.action is a text, found nothing"),
        (
            "{defaultAction: AUDIT}",
            "unknown spec.defaultAction \"AUDIT\"",
        ),
        ("{rules: {from: []}}", "spec.rules is a list, found a map"),
        (
            "{rules: [{from: {source: {}}}]}",
            "spec.rules[0].from is a list, found a map",
        ),
        (
            "{rules: [{from: [{source: {principals: a.b/ns/c/sa/d}}]}]}",
            "source.principals is a list, found a text",
        ),
        (
            "{rules: [{from: [{source: {namespaces: [17]}}]}]}",
            "source.namespaces[0] is a text, found a number",
        ),
    ] {
        let errors = policy_errors(spec);
        assert!(
            errors.starts_with("p.yaml:5:") && errors.contains(problem),
            "{spec}: {errors}"
        );
    }
}

#[test]
fn what_is_no_port_is_refused_where_it_stands() {
    for port in [
        "0",
        "65536",
        "-1",
        "-9223372036854775809",
        "18446744073709551616",
        "\"80-81\"",
        "\"+80\"",
        "http",
        "80.5",
        "true",
        "[80]",
    ] {
        let errors = policy_errors(&format!(
            "{{rules: [{{to: [{{operation: {{ports: [{port}]}}}}]}}]}}"
        ));
        assert!(
            errors.contains("spec.rules[0].to[0].operation.ports[0]"),
            "{port}: {errors}"
        );
    }
}

#[test]
fn a_default_action_cannot_be_tried() {
    let errors = policy_errors("{dryRun: true, defaultAction: DENY}");
    assert!(
        errors.contains("spec.defaultAction can't be tried by a dry run"),
        "{errors}"
    );
}

#[test]
fn a_caller_of_a_test_is_a_whole_principal_and_no_workload() {
    let error = |from: &str| {
        policy_errors(&format!(
            "{{rules: [{{}}], tests: [{{from: {from}, port: 80, expect: ALLOW}}]}}"
        ))
    };
    assert_eq!(
        error("shop/web"),
        "p.yaml:5:32: spec.tests[0].from: \"shop/web\" is no whole principal; write it as \
         cluster.local/ns/shop/sa/web; if it is meant as it stands, write spiffe://shop/web"
    );
    for from in ["cluster.local/gateway", "Shop/web"] {
        assert!(error(from).contains("is no whole principal"), "{from}");
    }
    for from in [
        "spiffe://shop/web",
        "spiffe://cluster.local/gateway",
        "cluster.local/ns/shop/sa/web",
        "cluster.local/a/b",
        "plaintext",
    ] {
        let rules = "{rules: [{}], tests: [{from: FROM, port: 80, expect: ALLOW}]}";
        let policy = policy(&rules.replace("FROM", from));
        assert!(policy.policy.is_some(), "{from}");
    }
}

#[test]
fn a_list_that_is_a_map_is_refused_with_the_shape_of_its_items() {
    for (spec, shape) in [
        ("{rules: {from: []}}", "[{from: [...], to: [...]}]"),
        (
            "{rules: [{from: {source: {namespaces: [a]}}}]}",
            "[{source: {namespaces: [shop]}}]",
        ),
        (
            "{rules: [{to: {operation: {ports: [1]}}}]}",
            "[{operation: {ports: [8080]}}]",
        ),
        (
            "{rules: [{}], tests: {port: 80}}",
            "[{from: cluster.local/ns/shop/sa/web, port: 8080, expect: ALLOW}]",
        ),
        ("{rules: [{to: [{operation: {ports: {a: 1}}}]}]}", "[a, b]"),
    ] {
        let errors = policy_errors(spec);
        assert!(
            errors.ends_with(&format!("found a map; write it as {shape}")),
            "{errors}"
        );
    }
}

#[test]
fn tests_that_say_nothing_clear_are_refused() {
    for (test, problem) in [
        ("{port: 80, expect: ALLOW}", "spec.tests[0].from is missing"),
        (
            "{from: a.b/ns/c/sa/d, expect: ALLOW}",
            "spec.tests[0].port is missing",
        ),
        (
            "{from: a.b/ns/c/sa/d, port: 80}",
            "spec.tests[0].expect is missing",
        ),
        (
            "{from: a.b/*, port: 80, expect: ALLOW}",
            "spec.tests[0].from: ",
        ),
        (
            "{from: a.b/ns/c/sa/d, port: 80, expect: allow}",
            "unknown spec.tests[0].expect \"allow\"",
        ),
        (
            "{from: a.b/ns/c/sa/d, port: 0, expect: ALLOW}",
            "is no port",
        ),
        (
            "{from: a.b/ns/c/sa/d, port: 80, expect: ALLOW, sourceIp: 10.0.0.0/8}",
            "spec.tests[0].sourceIp: ",
        ),
        (
            "{from: a.b/ns/c/sa/d, port: 80, expect: ALLOW, method: GET}",
            "unknown field spec.tests[0].method",
        ),
    ] {
        let errors = policy_errors(&format!("{{rules: [{{}}], tests: [{test}]}}"));
        assert!(errors.contains(problem), "{test}: {errors}");
    }
    let many = vec!["{from: a.b/ns/c/sa/d, port: 80, expect: ALLOW}"; 101].join(",");
    let errors = policy_errors(&format!("{{rules: [{{}}], tests: [{many}]}}"));
    assert!(
        errors.contains("spec.tests has 101 tests, 100 are allowed"),
        "{errors}"
    );
}
