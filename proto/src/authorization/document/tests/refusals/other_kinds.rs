//! Documents that are no `AuthorizationPolicy`.

use super::*;

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
