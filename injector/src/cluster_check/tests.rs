use mesh_lite_proto::kubernetes::TRUST_BUNDLE_CONFIG_MAP;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    objects::{Kind, Objects},
    *,
};
use crate::installation::{Choices, VERSION, manifests};

mod callers;
mod namespaces;
mod network_policies;

const NOW: i64 = 1_800_000_000;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(NOW).unwrap()
}

fn settings() -> MeshSettings {
    MeshSettings::with_image("mesh-lite:test").unwrap()
}

fn root(days: i64) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_after = now() + time::Duration::days(days);
    parameters.self_signed(&key).unwrap().pem()
}

fn slice(service: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
    })
}

fn bundle(namespace: &str, days: i64) -> Value {
    json!({
        "metadata": {"name": TRUST_BUNDLE_CONFIG_MAP, "namespace": namespace},
        "data": {"trust-bundle.pem": root(days)},
    })
}

/// What install makes, as a cluster has it once all of it runs.
fn healthy(choices: &Choices) -> Objects {
    let mut objects = Objects::default();
    let of_kind = |kind: &str| -> Vec<Value> {
        manifests(choices)
            .into_iter()
            .filter(|object| object["kind"] == kind)
            .collect()
    };
    let mut deployments = of_kind("Deployment");
    for deployment in &mut deployments {
        deployment["status"] = json!({"readyReplicas": deployment["spec"]["replicas"]});
    }
    let mut webhooks = of_kind("MutatingWebhookConfiguration");
    for webhook in webhooks[0]["webhooks"].as_array_mut().unwrap() {
        webhook["clientConfig"]["caBundle"] = json!("QQ==");
    }
    let version = json!({"major": "1", "minor": "36+", "gitVersion": "v1.36.2"});
    objects.put(Kind::ServerVersion, Ok(vec![version]));
    objects.put(Kind::ControlPlaneReadiness, Ok(vec![json!("ok\n")]));
    objects.put(
        Kind::CustomResourceDefinitions,
        Ok(of_kind("CustomResourceDefinition")),
    );
    objects.put(Kind::Deployments, Ok(deployments));
    objects.put(Kind::MutatingWebhooks, Ok(webhooks));
    let slices = vec![
        slice("mesh-lite-control-plane", true),
        slice("mesh-lite-injector", true),
    ];
    objects.put(Kind::EndpointSlices, Ok(slices));
    objects.put(
        Kind::TrustBundles,
        Ok(vec![bundle("mesh-lite-system", 3650)]),
    );
    objects.put(Kind::Namespaces, Ok(of_kind("Namespace")));
    objects
}

fn strict() -> Choices {
    Choices {
        strict: true,
        trust_domain: spiffe::TrustDomain::new("prod.example").unwrap(),
        ..Choices::default()
    }
}

fn with(kind: Kind, change: impl FnOnce(&mut Vec<Value>)) -> Vec<Finding> {
    let mut objects = healthy(&strict());
    let mut found = objects.of(kind).to_vec();
    change(&mut found);
    objects.put(kind, Ok(found));
    of_mesh(&objects, &settings(), now().into())
}

fn said(findings: &[Finding]) -> String {
    let lines = findings
        .iter()
        .map(|f| format!("{} {}: {} -> {}\n", f.severity, f.subject, f.what, f.next));
    lines.collect()
}

#[track_caller]
fn finds(findings: &[Finding], severity: Severity, words: &str) {
    let found = findings
        .iter()
        .any(|f| f.severity == severity && format!("{} {}", f.subject, f.what).contains(words));
    assert!(found, "no {severity} {words:?} in:\n{}", said(findings));
}

#[test]
fn a_mesh_as_installed_and_running_has_no_finding() {
    let findings = of_mesh(&healthy(&strict()), &settings(), now().into());
    assert!(findings.is_empty(), "{}", said(&findings));
}

#[test]
fn open_modes_are_repeated_until_they_are_changed() {
    let findings = of_mesh(&healthy(&Choices::default()), &settings(), now().into());
    finds(&findings, Severity::Warning, "PERMISSIVE");
    finds(
        &findings,
        Severity::Warning,
        "plaintext to pods without a sidecar",
    );
    finds(
        &findings,
        Severity::Warning,
        "trust domain is cluster.local",
    );
    assert!(
        findings.iter().all(|f| f.severity == Severity::Warning),
        "{}",
        said(&findings)
    );
}

#[test]
fn what_is_not_there_is_a_problem() {
    let kinds = [
        (Kind::CustomResourceDefinitions, "authorizationpolicies"),
        (Kind::Deployments, "mesh-lite-injector is not there"),
        (Kind::EndpointSlices, "mesh-lite-injector has no endpoint"),
        (Kind::MutatingWebhooks, "no pod gets a sidecar"),
        (Kind::TrustBundles, "holds no root"),
    ];
    for (kind, words) in kinds {
        let findings = with(kind, Vec::clear);
        finds(&findings, Severity::Problem, words);
    }
}

#[test]
fn what_could_not_be_read_is_never_blessed() {
    for kind in [
        Kind::Deployments,
        Kind::TrustBundles,
        Kind::MutatingWebhooks,
        Kind::Namespaces,
    ] {
        let mut objects = healthy(&strict());
        objects.put(kind, Err("forbidden".to_owned()));
        let findings = of_mesh(&objects, &settings(), now().into());
        finds(&findings, Severity::Unknown, "could not be read: forbidden");
    }
}

#[test]
fn old_and_unreadable_versions_of_the_api_server_are_refused() {
    for version in [
        json!({"major": "1", "minor": "32", "gitVersion": "v1.32.9"}),
        json!({"major": "1", "minor": "9+", "gitVersion": "v1.9"}),
        json!({"major": "", "minor": "", "gitVersion": "?"}),
        json!({}),
    ] {
        let findings = with(Kind::ServerVersion, |found| *found = vec![version]);
        finds(&findings, Severity::Problem, "API server");
    }
}

#[test]
fn a_webhook_that_was_loosened_or_has_no_ca_is_a_problem() {
    let changes: [(&str, Value, &str); 4] = [
        ("failurePolicy", json!("Ignore"), "failurePolicy"),
        ("namespaceSelector", json!({}), "namespaceSelector"),
        ("objectSelector", json!({}), "objectSelector"),
        ("clientConfig", json!({}), "no caBundle"),
    ];
    for (field, value, words) in changes {
        let findings = with(Kind::MutatingWebhooks, |found| {
            found[0]["webhooks"][1][field] = value
        });
        finds(&findings, Severity::Problem, words);
    }
    let findings = with(Kind::MutatingWebhooks, |found| {
        found[0]["webhooks"].as_array_mut().unwrap().pop();
    });
    finds(&findings, Severity::Problem, "lacks the webhook");
}

#[test]
fn replicas_that_are_away_and_other_versions_are_said() {
    let findings = with(Kind::Deployments, |found| {
        found[1]["status"]["readyReplicas"] = json!(1)
    });
    finds(&findings, Severity::Warning, "1 of 2 replicas");
    let findings = with(Kind::Deployments, |found| found[0]["status"] = json!({}));
    finds(&findings, Severity::Problem, "0 of 1 replicas");
    let findings = with(Kind::Deployments, |found| {
        found[0]["metadata"]["labels"]["app.kubernetes.io/version"] = json!("0.0.9");
    });
    finds(&findings, Severity::Warning, "\"0.0.9\"");
    let findings = with(Kind::EndpointSlices, |found| {
        found[0] = slice("mesh-lite-control-plane", false)
    });
    finds(&findings, Severity::Problem, "no certificate is issued");
}

#[test]
fn ends_of_roots_and_missing_bundles_are_said() {
    let findings = with(Kind::TrustBundles, |found| {
        *found = vec![bundle("mesh-lite-system", 59)]
    });
    finds(&findings, Severity::Warning, "its last root ends");
    let findings = with(Kind::TrustBundles, |found| {
        *found = vec![bundle("mesh-lite-system", -1)]
    });
    finds(&findings, Severity::Problem, "its last root ended");
    let findings = with(Kind::TrustBundles, |found| {
        found[0]["data"]["trust-bundle.pem"] = json!("?")
    });
    finds(&findings, Severity::Problem, "holds no root");
    let labelled =
        json!({"metadata": {"name": "shop", "labels": {"mesh-lite.io/inject": "enabled"}}});
    let findings = with(Kind::Namespaces, |found| found.push(labelled));
    finds(
        &findings,
        Severity::Problem,
        "ConfigMap shop/mesh-lite-trust-bundle is not there",
    );
}

#[test]
fn a_refused_policy_and_what_the_control_plane_says_are_problems() {
    let refused = json!({
        "metadata": {"name": "api", "namespace": "shop"},
        "status": {"conditions": [{"type": "Loaded", "status": "False", "reason": "UnknownField", "message": "line 7: portz"}]},
    });
    let findings = with(Kind::AuthorizationPolicies, |found| *found = vec![refused]);
    finds(
        &findings,
        Severity::Problem,
        "AuthorizationPolicy shop/api is refused, UnknownField: line 7: portz",
    );
    let unseen = json!({"metadata": {"name": "api", "namespace": "shop"}});
    let findings = with(Kind::Evictions, |found| *found = vec![unseen]);
    finds(&findings, Severity::Warning, "has not been looked at");
    let text = json!("serving, with 1 problem:\nauthority: the issuing CA ends soon\n");
    let findings = with(Kind::ControlPlaneReadiness, |found| *found = vec![text]);
    finds(&findings, Severity::Problem, "the issuing CA ends soon");
}

fn namespace_with(kind: Kind, found: Value) -> Vec<Finding> {
    labelled_with("shop", json!({}), kind, found)
}

fn labelled_with(name: &str, labels: Value, kind: Kind, found: Value) -> Vec<Finding> {
    let mut objects = Objects::default();
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    objects.put(Kind::Namespaces, Ok(vec![namespace]));
    objects.put(kind, Ok(found.as_array().unwrap().clone()));
    of_namespace(&objects, &settings(), name)
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec})
}

#[test]
fn what_injection_would_refuse_or_skip_is_said_before_the_label() {
    let deployment = |spec: Value| json!([{"metadata": {"name": "d", "namespace": "shop"}, "spec": {"template": {"metadata": {}, "spec": spec}}}]);
    let plain = json!({"containers": [{"name": "a", "image": "a"}]});
    assert!(namespace_with(Kind::Deployments, deployment(plain.clone())).is_empty());
    let uid = json!({"securityContext": {"runAsUser": 15008}, "containers": [{"name": "a", "image": "a"}]});
    finds(
        &namespace_with(Kind::Deployments, deployment(uid)),
        Severity::Problem,
        "15008",
    );
    let port =
        json!({"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 15001}]}]});
    finds(
        &namespace_with(Kind::StatefulSets, deployment(port)),
        Severity::Problem,
        "15001",
    );
    let restricted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let findings = labelled_with("shop", restricted, Kind::Deployments, deployment(plain));
    finds(&findings, Severity::Problem, "restricted");
    // what explicit capture asks for besides
    finds(&findings, Severity::Problem, "inbound-ports");
    finds(&findings, Severity::Problem, "upstreams");
    let host = json!([pod(
        json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a"}]})
    )]);
    finds(
        &namespace_with(Kind::Pods, host),
        Severity::Warning,
        "stays out of the mesh",
    );
}

#[test]
fn pods_that_must_be_restarted_are_named_once_the_namespace_is_labelled() {
    let old = |version: &str| {
        json!({
            "metadata": {"name": "p", "namespace": "shop", "annotations": {"mesh-lite.io/version": version},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": true}]},
            "spec": {"initContainers": [{"name": "mesh-lite-proxy"}], "containers": [{"name": "a"}]},
        })
    };
    let mut bare = pod(json!({"containers": [{"name": "a", "image": "a"}]}));
    bare["metadata"]["ownerReferences"] = old("")["metadata"]["ownerReferences"].clone();
    let label = json!({"mesh-lite.io/inject": "enabled"});
    let labelled = |pod: &Value| labelled_with("shop", label.clone(), Kind::Pods, json!([pod]));
    finds(&labelled(&bare), Severity::Problem, "has no sidecar");
    assert!(
        labelled(&bare)[0]
            .next
            .contains("rollout restart deployment")
    );
    finds(&labelled(&old("0.0.1")), Severity::Warning, "\"0.0.1\"");
    assert!(labelled(&old(VERSION)).is_empty());
    assert!(
        namespace_with(Kind::Pods, json!([bare])).is_empty(),
        "not labelled yet"
    );
    let mut ended = bare;
    ended["status"] = json!({"phase": "Succeeded"});
    assert!(labelled(&ended).is_empty());
}

#[test]
fn a_namespace_that_is_not_there_is_a_problem() {
    let mut objects = Objects::default();
    objects.put(Kind::Namespaces, Ok(Vec::new()));
    let findings = of_namespace(&objects, &settings(), "shop");
    finds(&findings, Severity::Problem, "Namespace shop is not there");
}

#[test]
fn pods_are_counted_by_namespace() {
    let mut objects = Objects::default();
    let namespace =
        |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    objects.put(
        Kind::Namespaces,
        Ok(vec![
            namespace("shop", json!({"mesh-lite.io/inject": "enabled"})),
            namespace("other", json!({})),
        ]),
    );
    let mut out = pod(json!({"containers": [{"name": "a"}]}));
    out["metadata"]["labels"] = json!({"mesh-lite.io/inject": "disabled"});
    objects.put(Kind::Pods, Ok(vec![
        pod(json!({"initContainers": [{"name": "mesh-lite-proxy"}], "containers": [{"name": "a"}]})),
        pod(json!({"containers": [{"name": "a"}]})),
        out,
        pod(json!({"hostNetwork": true, "containers": [{"name": "a"}]})),
        pod(json!({"os": {"name": "windows"}, "containers": [{"name": "a"}]})),
    ]));
    let all = pods_of_namespaces(&objects);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["shop"]);
    let shop = &all["shop"];
    assert_eq!(shop.without_sidecar, ["p"]);
    assert_eq!(
        (shop.meshed, shop.unmeshed, shop.opted_out, shop.labelled),
        (1, 1, 3, true)
    );
}
