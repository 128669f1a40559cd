//! What plaintext gets past, and what scrapers and probes don't.

use super::*;

/// A workload with a port for metrics, by name or by annotation.
fn watched(metadata: &str, ports: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
         metadata: {{name: api-2, namespace: shop{metadata}}}\n\
         spec: {{serviceAccount: api, addresses: [10.0.0.21], labels: {{app: api}}{ports}}}\n---\n"
    )
}

fn by_name(name: &str) -> String {
    watched("", &format!(", ports: [{{name: {name}, port: 9090}}]"))
}

const OPEN: &str = "\
apiVersion: mesh-lite.io/v1
kind: PeerAuthentication
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  portLevelMtls: {9090: {mode: PERMISSIVE}}
---
";

#[test]
fn a_port_for_metrics_that_policy_cuts_is_told_of_with_the_reason() {
    let policy = of_api("p", "ALLOW", &principals("web"));
    let annotated = watched(
        ", annotations: {prometheus.io/scrape: \"true\", prometheus.io/port: \"9090\"}",
        "",
    );
    for workload in [
        by_name("metrics"),
        by_name("http-metrics"),
        by_name("healthz"),
        annotated,
    ] {
        let found = only(&[&workload, &policy], Oddity::CutsWatchedPort);
        assert!(
            found.problem.contains("port 9090 of shop/api-2"),
            "{}",
            found.problem
        );
        let problem = &found.problem;
        assert!(
            problem.starts_with("nobody can scrape or probe port 9090"),
            "{problem}"
        );
        let both = "of plaintext, the port is STRICT, which refuses plaintext; of mesh callers that no \
                    rule names, there are ALLOW policies for it";
        assert!(problem.contains(both), "{problem}");
        // nobody's name is made up
        assert!(!problem.contains("no-such"), "{problem}");
        // where it is written
        let line = if workload.contains("prometheus.io") {
            3
        } else {
            4
        };
        assert_eq!(found.place.at.line, line, "{workload}");
    }
    // plaintext is let to policy, which lets nobody through but web
    let found = only(
        &[&by_name("metrics"), OPEN, &policy],
        Oddity::CutsWatchedPort,
    );
    assert!(
        found.problem.contains("none of their rules lets them in"),
        "{}",
        found.problem
    );
}

#[test]
fn who_is_cut_is_said_outside_of_the_mesh_inside_or_both() {
    let workload = by_name("metrics");
    let in_mesh = policy(
        "p",
        "  rules:\n  - from:\n    - source: {namespaces: [\"*\"]}",
    );
    let found = only(&[&workload, &in_mesh], Oddity::CutsWatchedPort);
    assert!(
        found
            .problem
            .starts_with("nobody in plaintext can scrape or probe"),
        "{}",
        found.problem
    );
    let nobody = policy(
        "p",
        "  action: DENY\n  rules:\n  - from:\n    - source: {principals: [\"*\"]}",
    );
    let open = policy("d", "  defaultAction: ALLOW");
    let found = only(&[&workload, OPEN, &nobody, &open], Oddity::CutsWatchedPort);
    assert!(
        found
            .problem
            .starts_with("no caller of the mesh that no rule names can scrape"),
        "{}",
        found.problem
    );
}

#[test]
fn a_port_that_is_open_named_or_not_watched_is_not_told_of() {
    let policy = of_api("p", "ALLOW", &principals("web"));
    let named = of_api(
        "scrape",
        "ALLOW",
        "  - from:\n    - source: {principals: [cluster.local/ns/shop/sa/web]}\n    to:\n    - operation: {ports: [9090]}",
    );
    let open = policy_for_all_on_9090();
    for documents in [
        [by_name("metrics"), named, String::new()],
        [by_name("metrics"), OPEN.to_owned(), open],
        [by_name("http"), policy.clone(), String::new()],
        [by_name("metricsx"), policy.clone(), String::new()],
        [
            watched(
                ", annotations: {prometheus.io/scrape: \"false\", prometheus.io/port: \"9090\"}",
                "",
            ),
            policy.clone(),
            String::new(),
        ],
        [
            watched("", ", meshed: false, ports: [{name: metrics, port: 9090}]"),
            policy,
            String::new(),
        ],
    ] {
        none(
            &[&documents[0], &documents[1], &documents[2]],
            Oddity::CutsWatchedPort,
        );
    }
}

#[test]
fn a_rule_that_names_the_port_hides_no_denial_of_everybody_whom_it_means() {
    let scraper = "cluster.local/ns/monitoring/sa/prometheus";
    let named = |source: &str| {
        of_api(
            "scrape",
            "ALLOW",
            &format!(
                "  - from:\n    - source: {source}\n    to:\n    - operation: {{ports: [9090]}}"
            ),
        )
    };
    let by_identity = named(&format!("{{principals: [{scraper}]}}"));
    let by_pattern = named("{principals: [\"cluster.local/ns/monitoring/*\"]}");
    let deny = |from: &str| {
        of_api(
            "deny",
            "DENY",
            &format!("  - to:\n    - operation: {{ports: [9090]}}\n{from}"),
        )
    };
    // for everybody, whoever is named by the other rule
    for named in [&by_identity, &by_pattern] {
        let found = only(
            &[&by_name("metrics"), named, &deny("")],
            Oddity::CutsWatchedPort,
        );
        let problem = &found.problem;
        assert!(problem.contains("shop/deny (new.yaml:"), "{problem}");
        assert!(problem.ends_with(" denies them"), "{problem}");
    }
    // whoever comes from an address comes in plaintext, and the port is STRICT
    let by_address = named("{ipBlocks: [10.9.0.0/16]}");
    let found = only(&[&by_name("metrics"), &by_address], Oddity::CutsWatchedPort);
    assert!(
        found
            .problem
            .ends_with("the port is STRICT, which refuses plaintext"),
        "{}",
        found.problem
    );
    none(
        &[&by_name("metrics"), OPEN, &by_address],
        Oddity::CutsWatchedPort,
    );
    none(&[&by_name("metrics"), &by_pattern], Oddity::CutsWatchedPort);
    // everybody but the one who scrapes
    let others = format!("    from:\n    - source: {{notPrincipals: [{scraper}]}}");
    none(
        &[&by_name("metrics"), &by_identity, &deny(&others)],
        Oddity::CutsWatchedPort,
    );
}

fn policy_for_all_on_9090() -> String {
    of_api("open", "ALLOW", "  - to:\n    - operation: {ports: [9090]}")
}

#[test]
fn a_deny_rule_by_identity_that_plaintext_gets_past_is_told_of() {
    let deny = of_api("deny", "DENY", &principals("guest"));
    let found = only(
        &[
            WORKLOADS,
            PERMISSIVE,
            &deny,
            &policy("d", "  defaultAction: ALLOW"),
        ],
        Oddity::MissesPlaintext,
    );
    assert!(
        found.problem.contains("shop/api-1 takes it (PERMISSIVE)"),
        "{}",
        found.problem
    );
    // without workloads, of one such as it selects
    let found = only(
        &[PERMISSIVE, &deny, &policy("d", "  defaultAction: ALLOW")],
        Oddity::MissesPlaintext,
    );
    assert!(
        found
            .problem
            .contains("a workload that it selects takes it"),
        "{}",
        found.problem
    );
}

#[test]
fn a_deny_rule_is_not_told_of_where_plaintext_is_refused_denied_or_meant() {
    let deny = of_api("deny", "DENY", &principals("guest"));
    let open = policy("d", "  defaultAction: ALLOW");
    let also = of_api(
        "also",
        "DENY",
        "  - from:\n    - source: {notPrincipals: [\"*\"]}",
    );
    let by_address = of_api(
        "deny",
        "DENY",
        "  - from:\n    - source: {ipBlocks: [10.0.0.0/8]}",
    );
    // STRICT; denied by default; denied by a rule; no field of identity
    none(&[WORKLOADS, &deny, &open], Oddity::MissesPlaintext);
    none(&[WORKLOADS, PERMISSIVE, &deny], Oddity::MissesPlaintext);
    none(
        &[WORKLOADS, PERMISSIVE, &deny, &open, &also],
        Oddity::MissesPlaintext,
    );
    none(
        &[WORKLOADS, PERMISSIVE, &by_address, &open],
        Oddity::MissesPlaintext,
    );
}

#[test]
fn permissive_that_lets_no_plaintext_through_is_noted() {
    let web = of_api("p", "ALLOW", &principals("web"));
    let found = only(&[WORKLOADS, PERMISSIVE, &web], Oddity::PermissiveForNobody);
    assert_eq!(found.severity, Severity::Note);
    only(&[WORKLOADS, PERMISSIVE], Oddity::PermissiveForNobody);
    let by_address = of_api(
        "q",
        "ALLOW",
        "  - from:\n    - source: {ipBlocks: [10.0.0.0/8]}",
    );
    let open = policy("d", "  defaultAction: ALLOW");
    let strict = PERMISSIVE.replace("PERMISSIVE", "STRICT");
    for documents in [
        [WORKLOADS, PERMISSIVE, &by_address],
        [WORKLOADS, PERMISSIVE, &open],
        [WORKLOADS, &strict, &web],
        // nobody knows which policies select whom it is for
        ["", PERMISSIVE, &web],
    ] {
        none(&documents, Oddity::PermissiveForNobody);
    }
}

#[test]
fn a_deny_rule_of_one_port_is_judged_on_that_port() {
    let deny = |port: u16| {
        of_api(
            "deny",
            "DENY",
            &format!(
                "{}\n    to:\n    - operation: {{ports: [{port}]}}",
                principals("guest")
            ),
        )
    };
    let open = policy("d", "  defaultAction: ALLOW");
    let found = only(
        &[WORKLOADS, OPEN, &deny(9090), &open],
        Oddity::MissesPlaintext,
    );
    assert!(found.problem.contains("on port 9090"), "{}", found.problem);
    none(
        &[WORKLOADS, OPEN, &deny(80), &open],
        Oddity::MissesPlaintext,
    );
}

/// A service of api's at port 80.
fn service(target: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: Service\nmetadata: {{name: api, namespace: shop}}\n\
         spec: {{selector: {{app: api}}, ports: [{{port: 80{target}}}]}}\n---\n"
    )
}

fn of_port(port: &str) -> String {
    of_api(
        "p",
        "ALLOW",
        &format!("  - to:\n    - operation: {{ports: [{port}]}}"),
    )
}

#[test]
fn a_port_of_a_service_is_told_with_the_port_that_its_workloads_are_dialled_at() {
    let to_number = service(", targetPort: 8080");
    let mode = "apiVersion: mesh-lite.io/v1\nkind: PeerAuthentication\n\
                metadata: {name: api, namespace: shop}\nspec:\n  \
                selector: {matchLabels: {app: api}}\n  portLevelMtls: {80: {mode: STRICT}}\n---\n";
    let not = of_port("80").replace("ports:", "notPorts:");
    for (policy, line) in [(&of_port("80"), 9), (&not, 9), (&mode.to_owned(), 6)] {
        let found = only(&[policy, WORKLOADS, &to_number], Oddity::ServicePort);
        assert_eq!(found.place.at.line, line, "{policy}");
        assert_eq!(found.help, "write 8080 in place of 80");
        assert!(
            found
                .problem
                .starts_with("80 is a port of the service shop/api: "),
            "{}",
            found.problem
        );
    }
    // by name, as one of the workloads has it
    let named = watched("", ", ports: [{name: http, port: 8081}]");
    let by_name = service(", targetPort: http");
    let found = only(&[&of_port("80"), &named, &by_name], Oddity::ServicePort);
    assert_eq!(found.help, "write 8081 in place of 80");
}

#[test]
fn a_port_that_may_be_meant_is_not_told_to_be_a_service_s() {
    let to_number = service(", targetPort: 8080");
    let same = service("");
    let serves_80 = watched("", ", ports: [{name: http, port: 80}]");
    let elsewhere = to_number.replace("namespace: shop", "namespace: pay");
    let of_others = to_number.replace("app: api", "app: web");
    for texts in [
        [&*of_port("8080"), WORKLOADS, &to_number],
        // both are named
        [&*of_port("80, 8080"), WORKLOADS, &to_number],
        [&*of_port("80"), WORKLOADS, &same],
        // one of those whom it selects is dialled there
        [&*of_port("80"), &serves_80, &to_number],
        [&*of_port("80"), WORKLOADS, &elsewhere],
        [&*of_port("80"), WORKLOADS, &of_others],
        // nobody knows whom the service selects
        [&*of_port("80"), "", &to_number],
    ] {
        none(&texts, Oddity::ServicePort);
    }
}
