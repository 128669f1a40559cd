//! Fields that there are not, or not there.

use super::*;

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
fn conditions_are_called_layer_7_only_if_one_of_them_is() {
    let refused = |conditions: &str| {
        let spec = format!("{{rules: [{{when: [{conditions}]}}]}}");
        let errors = unloadable("AuthorizationPolicy", &spec).errors;
        let error = errors.iter().next().unwrap();
        (error.class, error.problem.clone())
    };
    let of_connections = (
        RefusalClass::UnknownField,
        "spec.rules[0].when is a field of Istio's: conditions on connections are fields of from \
         and to here"
            .to_owned(),
    );
    for conditions in [
        "{key: source.ip, values: [10.0.0.1]}",
        "{key: destination.port, notValues: [80]}, {key: connection.sni, values: [a]}",
    ] {
        assert_eq!(refused(conditions), of_connections, "{conditions}");
    }
    for conditions in [
        "{key: source.ip, values: [10.0.0.1]}, {key: request.auth.claims, values: [x]}",
        "{values: [x]}",
        "",
    ] {
        let (class, problem) = refused(conditions);
        assert_eq!(class, RefusalClass::Layer7Field, "{conditions}");
        assert!(problem.contains("is a layer 7 field"), "{problem}");
    }
}

/// Each that is told of is compared with those before it.
#[test]
fn of_conditions_without_end_the_first_are_told_of() {
    let conditions: String = (0..2_000)
        .map(|n| format!("{{key: 'request.headers[x{n}]', values: [a]}},"))
        .collect();
    let errors = policy_errors(&format!("{{rules: [{{when: [{conditions}]}}]}}"));
    assert!(
        errors.contains("x0]\", or decide") && !errors.contains("x5]\""),
        "{errors}"
    );
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
