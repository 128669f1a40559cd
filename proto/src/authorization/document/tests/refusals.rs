//! What is refused, and in which words.

use super::*;

fn errors(kind: &str, spec: &str) -> String {
    unloadable(kind, spec).errors.to_string()
}

fn policy_errors(spec: &str) -> String {
    errors("AuthorizationPolicy", spec)
}

#[test]
fn layer_7_fields_are_refused_by_name_with_file_and_line() {
    let spec = "\
rules:
- from:
  - source: {requestPrincipals: [a], namespaces: [shop]}
  - source: {remoteIpBlocks: [10.0.0.0/8]}
  to:
  - operation: {ports: [80], methods: [GET], paths: [/a]}
  - operation: {hosts: [a.b]}
  when:
  - {key: request.auth.claims, values: [x]}
provider: {name: opa}
action: CUSTOM
targetRefs: []";
    let errors = policy_errors(spec);
    let lines: Vec<&str> = errors.lines().collect();
    let layer_7 = "is a layer 7 field, and mesh-lite decides on connections";
    let expected = [
        format!("p.yaml:7:16: spec.rules[0].from[0].source.requestPrincipals {layer_7}; remove it; tokens of end users are the application's to judge"),
        format!("p.yaml:8:16: spec.rules[0].from[1].source.remoteIpBlocks {layer_7}; remove it; ipBlocks are about the address that connects"),
        format!("p.yaml:10:32: spec.rules[0].to[0].operation.methods {layer_7}; remove it, or decide on requests in the application"),
        format!("p.yaml:10:48: spec.rules[0].to[0].operation.paths {layer_7}; remove it, or decide on requests in the application"),
        format!("p.yaml:11:19: spec.rules[0].to[1].operation.hosts {layer_7}; remove it, or decide on requests in the application"),
        format!("p.yaml:12:5: spec.rules[0].when {layer_7}; remove \"request.auth.claims\", or decide on requests in the application"),
        format!("p.yaml:14:3: spec.provider {layer_7}; remove it; external authorizers judge requests"),
        "p.yaml:15:11: spec.action CUSTOM is of layer 7; use ALLOW, DENY or AUDIT; external authorizers judge requests".to_owned(),
        format!("p.yaml:16:3: spec.targetRefs {layer_7}; use selector; gateways and waypoints have no part here"),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn unknown_fields_are_refused_by_name_with_what_is_known() {
    for (spec, expected) in [
        (
            "{rule: []}",
            "p.yaml:5:4: unknown field spec.rule; did you mean \"rules\"? spec has selector, action, dryRun, defaultAction, rules, tests",
        ),
        (
            "{selector: {labels: {}}}",
            "p.yaml:5:15: unknown field spec.selector.labels; spec.selector has matchLabels",
        ),
        (
            "{rules: [{form: []}]}",
            "p.yaml:5:13: unknown field spec.rules[0].form; did you mean \"from\"? spec.rules[0] has from, to",
        ),
        (
            "{rules: [{to: [{operation: {port: [80]}}]}]}",
            "p.yaml:5:31: unknown field spec.rules[0].to[0].operation.port; did you mean \"ports\"? \
             spec.rules[0].to[0].operation has ports, notPorts",
        ),
    ] {
        assert_eq!(policy_errors(spec), expected);
    }
}

#[test]
fn a_field_at_the_wrong_place_is_refused_with_the_right_one() {
    for (spec, belongs) in [
        ("{rules: [{principals: [a]}]}", "spec.rules[].from[].source"),
        (
            "{rules: [{from: [{namespaces: [a]}]}]}",
            "spec.rules[].from[].source",
        ),
        ("{notPorts: [80]}", "spec.rules[].to[].operation"),
        ("{matchLabels: {app: api}}", "spec.selector"),
    ] {
        let errors = policy_errors(spec);
        assert!(
            errors.contains(&format!("; it belongs in {belongs}; ")),
            "{errors}"
        );
    }
}

#[test]
fn conditions_on_connections_are_refused_with_the_field_that_says_the_same() {
    let when = |condition: &str| policy_errors(&format!("{{rules: [{{when: [{condition}]}}]}}"));
    for (condition, remedy) in [
        (
            "{key: source.ip, values: [10.0.0.1]}",
            "write the values of source.ip as ipBlocks in each source of from",
        ),
        (
            "{key: source.ip, notValues: [10.0.0.1]}",
            "write the notValues of source.ip as notIpBlocks in each source of from",
        ),
        (
            "{key: source.principal, values: [a]}",
            "source.principal as principals in each source",
        ),
        (
            "{key: source.namespace, notValues: [a]}",
            "source.namespace as notNamespaces in each source",
        ),
        (
            "{key: destination.port, values: [80]}",
            "destination.port as ports in each operation of to",
        ),
        (
            "{key: destination.port, notValues: [80]}",
            "destination.port as notPorts in each operation",
        ),
        (
            "{key: destination.ip, values: [10.0.0.1]}",
            "select workloads by selector",
        ),
        (
            "{key: connection.sni, values: [a]}",
            "remove connection.sni",
        ),
        (
            "{key: 'request.headers[x]', values: [a]}",
            "remove \"request.headers[x]\", or decide on requests",
        ),
    ] {
        let errors = when(condition);
        assert!(errors.contains(remedy), "{condition}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let both = when("{key: source.ip, values: [a]}, {key: destination.port, values: [1]}");
    assert!(
        both.contains("ipBlocks in each source of from; write"),
        "{both}"
    );
    for nothing in ["", "{key: source.ip}", "7"] {
        assert!(when(nothing).contains("go into from and to"), "{nothing}");
    }
    assert!(policy_errors("{rules: [{when: 7}]}").contains("go into from and to"));
}

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

#[test]
fn peer_authentications_are_refused_by_field() {
    for (spec, problem) in [
        (
            "{mtls: {mode: strict}}",
            "p.yaml:5:17: unknown spec.mtls.mode \"strict\"; did you mean \"STRICT\"? use STRICT, PERMISSIVE, DISABLE or UNSET",
        ),
        ("{mtls: STRICT}", "spec.mtls is a map, found a text"),
        ("{mtls: {mod: STRICT}}", "unknown field spec.mtls.mod"),
        ("{mode: STRICT}", "unknown field spec.mode"),
        (
            "{portLevelMtls: {80: {mode: STRICT}}}",
            "spec.portLevelMtls without a selector",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
            "spec.portLevelMtls.http: \"http\" is no port",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
            "spec.portLevelMtls is empty",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: [80]}",
            "spec.portLevelMtls is a map, found a list",
        ),
    ] {
        let errors = errors("PeerAuthentication", spec);
        assert!(errors.contains(problem), "{spec}: {errors}");
    }
}

#[test]
fn evictions_are_refused_by_field_but_whom_they_mean_stays_known() {
    for (spec, problem, known) in [
        ("{}", "spec does not say whom to evict", false),
        (
            "{spiffeId: \"spiffe://a.b/c\", serial: \"01\"}",
            "spec does not say whom to evict",
            false,
        ),
        ("{spiffeId: a.b/c}", "spec.spiffeId: ", false),
        ("{serial: xyz}", "spec.serial: a serial number is", false),
        (
            "{serial: 10}",
            "spec.serial is a text, found a number",
            false,
        ),
        (
            "{serial: \"10\", until: tomorrow}",
            "spec.until \"tomorrow\" is no time; write it as 2030-12-31T23:59:59Z",
            true,
        ),
        (
            "{serial: \"10\", until: 1960-01-01T00:00:00Z}",
            "is no time",
            true,
        ),
        (
            "{serial: \"10\", untill: 2030-01-01T00:00:00Z}",
            "unknown field spec.untill",
            true,
        ),
        (
            "{spiffeId: \"spiffe://a.b/c\", until: 7}",
            "spec.until is a text, found a number",
            true,
        ),
    ] {
        let unloadable = unloadable("Eviction", spec);
        let errors = unloadable.errors.to_string();
        assert!(errors.contains(problem), "{spec}: {errors}");
        assert_eq!(unloadable.subject.is_some(), known, "{spec}");
    }
}

#[test]
fn documents_that_decide_nothing_are_not_loaded_as_policy() {
    for kind in ["Workload", "Service"] {
        assert!(errors(kind, "{}").contains("decides nothing"));
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
