//! Whom policies name: callers that nobody knows, that nobody can prove to be, or that are of
//! other trust domains.

use super::*;

#[test]
fn whom_no_document_knows_is_named_with_who_was_meant() {
    for (source, problem, help) in [
        (
            "principals: [cluster.local/ns/shop/sa/wbe]",
            "no Workload document has the identity cluster.local/ns/shop/sa/wbe",
            "did you mean cluster.local/ns/shop/sa/web?",
        ),
        (
            "serviceAccounts: [shop/guets]",
            "no Workload document has the identity cluster.local/ns/shop/sa/guets",
            "did you mean shop/guest?",
        ),
        (
            "namespaces: [shopp]",
            "no Workload document is in the namespace shopp",
            "did you mean shop?",
        ),
        // it is outside of the mesh, and proves nothing
        (
            "serviceAccounts: [shop/legacy]",
            "no Workload document has the identity cluster.local/ns/shop/sa/legacy",
            "correct the name, or add the workload",
        ),
    ] {
        let policy = of_api(
            "p",
            "ALLOW",
            &format!("  - from:\n    - source: {{{source}}}"),
        );
        let found = only(&[WORKLOADS, &policy], Oddity::UnknownIdentity);
        assert_eq!((&*found.problem, &*found.help), (problem, help));
        // without a Workload document, nothing is known of anybody
        none(&[&policy], Oddity::UnknownIdentity);
    }
}

#[test]
fn strangers_of_other_trust_domains_and_patterns_are_not_called_unknown() {
    for source in [
        "principals: [other.org/ns/shop/sa/wbe]",
        "principals: [cluster.local/ns/shop/sa/x*]",
        "serviceAccounts: [pay/x], trustDomains: [other.org]",
        "namespaces: [x], trustDomains: [other.org]",
        "notPrincipals: [cluster.local/ns/shop/sa/wbe]",
    ] {
        let policy = of_api(
            "p",
            "ALLOW",
            &format!("  - from:\n    - source: {{{source}}}"),
        );
        none(&[WORKLOADS, &policy], Oddity::UnknownIdentity);
    }
}

#[test]
fn whom_nobody_can_prove_to_be_is_named_with_the_right_spelling() {
    for (source, problem, help) in [
        (
            "principals: [shop/web]",
            "nobody has the identity shop/web",
            "did you mean cluster.local/ns/shop/sa/web?",
        ),
        (
            "notPrincipals: [shop/web]",
            "nobody has the identity shop/web",
            "did you mean cluster.local/ns/shop/sa/web?",
        ),
        (
            "principals: [other.org/ns/shop/sa/web]",
            "no caller of another trust domain, as other.org,",
            "if it is of this mesh, write cluster.local/ns/shop/sa/web",
        ),
        (
            "principals: [cluster.local/shop/web]",
            "mesh-lite issues none of its form",
            "write cluster.local/ns/NAMESPACE/sa/SERVICE-ACCOUNT",
        ),
        (
            "namespaces: [shop], trustDomains: [other.org]",
            "no caller of another trust domain, as other.org,",
            "write cluster.local, the trust domain of this mesh",
        ),
    ] {
        let rule = format!("  - from:\n    - source: {{{source}}}");
        for action in ["ALLOW", "DENY"] {
            let policy = of_api("p", action, &rule);
            for texts in [&[&*policy][..], &[WORKLOADS, &policy]] {
                let found = only(texts, Oddity::UnprovableIdentity);
                assert_eq!(found.severity, Severity::Warning);
                assert!(found.problem.contains(problem), "{}", found.problem);
                assert_eq!(found.help, help);
                none(texts, Oddity::UnknownIdentity);
            }
        }
    }
    for source in [
        "principals: [cluster.local/ns/shop/sa/web, \"*\", \"shop/*\"]",
        "namespaces: [shop], trustDomains: [cluster.local]",
    ] {
        let rule = format!("  - from:\n    - source: {{{source}}}");
        none(&[&of_api("p", "ALLOW", &rule)], Oddity::UnprovableIdentity);
    }
}

#[test]
fn nobody_is_called_unknown_while_documents_of_workloads_are_wrong() {
    let stranger = of_api("p", "ALLOW", &principals("stranger")).replace("app: api", "app: x");
    assert_eq!(documents(&[WORKLOADS, &stranger]).findings(noon()).len(), 2);
    let twice = [WORKLOADS, WORKLOADS].concat();
    let unreadable = "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: [x\n---\n";
    for wrong in [
        &*twice,
        unreadable,
        &WORKLOADS.replace("10.0.0.10", "10.0.0.300"),
    ] {
        let documents = documents(&[WORKLOADS, wrong, &stranger]);
        assert!(!documents.errors().is_empty());
        let findings = documents.findings(noon());
        let said: Vec<_> = findings.iter().map(|it| (it.oddity, it.severity)).collect();
        assert_eq!(said, [(Oddity::NotChecked, Severity::Note)], "{wrong}");
    }
}

#[test]
fn a_principal_that_begins_with_a_star_reaches_other_trust_domains() {
    let from = |source: &str, action| {
        of_api(
            "p",
            action,
            &format!("  - from:\n    - source: {{{source}}}"),
        )
    };
    let found = only(
        &[&from(
            "principals: [\"cluster.local/*\", \"*/sa/web\"]",
            "ALLOW",
        )],
        Oddity::ForeignTrustDomains,
    );
    assert_eq!(found.severity, Severity::Warning);
    assert!(
        found.help.contains("trustDomains: [cluster.local]"),
        "{}",
        found.help
    );
    assert_eq!(found.place.at.column, 48, "the value itself");
    let any = only(
        &[&from("principals: [\"*\"]", "ALLOW")],
        Oddity::ForeignTrustDomains,
    );
    assert_eq!(
        any.severity,
        Severity::Note,
        "it is how Istio's documents say: any identity"
    );
    for (source, action) in [
        ("principals: [\"cluster.local/ns/*\"]", "ALLOW"),
        (
            "principals: [\"*/sa/web\"], trustDomains: [cluster.local]",
            "ALLOW",
        ),
        ("principals: [\"*/sa/web\"]", "DENY"),
        ("namespaces: [\"*\"]", "ALLOW"),
    ] {
        none(&[&from(source, action)], Oddity::ForeignTrustDomains);
    }
}
