//! The injector as a webhook of a real API server: which pods get a sidecar, which are refused in
//! which words, and what happens without an injector.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/mesh.rs"]
mod mesh;

use mesh_lite_test_support::{eventually, needs_api_server};
use serde_json::{Value, json};

use crate::cluster::{Kube, name_of, reference, refusal};
use crate::mesh::{IMAGE, Mesh};

const TEST: &str = "kubernetes_injection::pods_of_a_labelled_namespace_are_in_the_mesh";

#[test]
fn pods_of_a_labelled_namespace_are_in_the_mesh() {
    let kube = Kube::connect(needs_api_server!(TEST));
    let Some(mut mesh) = Mesh::install(kube, TEST, &[]) else {
        return;
    };
    let namespaces = Namespaces {
        labelled: mesh.labelled_namespace(),
        unlabelled: mesh.kube.namespace(&json!({})),
    };
    without_an_injector_only_labelled_namespaces_are_affected(&mesh, &namespaces);
    let injector = mesh.start_injector();
    a_pod_gets_its_sidecar(&mesh, &namespaces);
    a_dry_run_says_the_same_and_leaves_nothing(&mesh, &namespaces);
    pods_opt_out_and_in(&mesh, &namespaces);
    what_cannot_be_in_the_mesh_is_refused_in_words(&mesh, &namespaces);
    pods_of_workloads_get_their_sidecar(&mesh, &namespaces);
    a_pod_security_level_that_forbids_capture_is_named(&mesh);
    quotas_and_limit_ranges_count_our_containers(&mesh);
    a_container_that_a_later_webhook_would_add_finds_the_pod_unchanged(&mesh, &namespaces);
    mesh.assert_no_right_was_missing();
    // killed: closed again for the labelled, and only for them
    mesh.role_mut(injector).process.kill();
    without_an_injector_only_labelled_namespaces_are_affected(&mesh, &namespaces);
    mesh.kube.delete(&namespaces.labelled);
    mesh.kube.delete(&namespaces.unlabelled);
}

struct Namespaces {
    labelled: Value,
    unlabelled: Value,
}

fn pod(namespace: &Value, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": name_of(namespace), "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": "app.test/app:1",
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}}}]}})
}

/// Names of the containers that start before the application.
fn started_before(pod: &Value) -> Vec<&str> {
    let containers = pod["spec"]["initContainers"].as_array();
    let containers = containers.map(Vec::as_slice).unwrap_or_default();
    containers.iter().map(name_of_container).collect()
}

fn name_of_container(container: &Value) -> &str {
    container["name"].as_str().unwrap()
}

fn assert_meshed(pod: &Value) {
    assert_eq!(
        started_before(pod),
        ["mesh-lite-redirect", "mesh-lite-proxy"],
        "{pod}"
    );
    assert_eq!(pod["metadata"]["labels"]["mesh-lite.io/meshed"], "true");
    for container in pod["spec"]["initContainers"].as_array().unwrap() {
        assert_eq!(container["image"], IMAGE);
        // fact 8: the API server mounts no API token into our containers
        let mounts = container["volumeMounts"].as_array().unwrap().iter();
        let token = "/var/run/secrets/kubernetes.io/serviceaccount";
        let at_token: Vec<&Value> = mounts.filter(|mount| mount["mountPath"] == token).collect();
        assert_eq!(at_token.len(), 1, "{container}");
        assert_eq!(at_token[0]["name"], "mesh-lite-no-api-token", "{container}");
    }
    // nothing of the spec was dropped as unknown: fact "patch with an unknown field"
    let proxy = &pod["spec"]["initContainers"][1];
    assert_eq!(proxy["restartPolicy"], "Always");
    assert!(proxy["startupProbe"]["httpGet"].is_object(), "{proxy}");
    assert_eq!(proxy["securityContext"]["runAsUser"], 15008);
}

fn without_an_injector_only_labelled_namespaces_are_affected(mesh: &Mesh, at: &Namespaces) {
    let plain = pod(&at.unlabelled, "unaffected");
    let made = mesh.kube.create(&plain).unwrap();
    assert_eq!(started_before(&made), Vec::<&str>::new());
    mesh.kube.delete(&plain);
    let refused = refusal(mesh.kube.create(&pod(&at.labelled, "closed")));
    assert!(refused.contains("inject.mesh-lite.io"), "{refused}");
    assert!(!mesh.kube.exists(&pod(&at.labelled, "closed")));
    // one that opts out needs no injector
    let mut out = pod(&at.labelled, "out");
    out["metadata"]["labels"]["mesh-lite.io/inject"] = json!("disabled");
    mesh.kube.create(&out).unwrap();
    mesh.kube.delete(&out);
}

fn a_pod_gets_its_sidecar(mesh: &Mesh, at: &Namespaces) {
    let wanted = pod(&at.labelled, "web");
    let made = mesh.kube.create(&wanted).unwrap();
    assert_meshed(&made);
    let probe = &made["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    assert_eq!(probe["port"], 15021, "{probe}");
    mesh.kube.delete(&wanted);
    // applied twice (fact 32): taken, and the sidecar stays. Not so with a probe, which a pod may
    // not have changed back to what was applied.
    let mut plain = pod(&at.labelled, "twice");
    plain["spec"]["containers"][0]
        .as_object_mut()
        .unwrap()
        .remove("readinessProbe");
    for _ in 0..2 {
        assert_meshed(&mesh.kube.put(&plain));
    }
    mesh.kube.delete(&plain);
}

fn a_dry_run_says_the_same_and_leaves_nothing(mesh: &Mesh, at: &Namespaces) {
    let wanted = pod(&at.labelled, "dry");
    let shown = mesh.kube.create_dry(&wanted).unwrap();
    assert_meshed(&shown);
    assert!(!mesh.kube.exists(&wanted));
    let made = mesh.kube.create(&wanted).unwrap();
    assert_eq!(
        shown["spec"]["initContainers"],
        made["spec"]["initContainers"]
    );
    mesh.kube.delete(&wanted);
}

fn pods_opt_out_and_in(mesh: &Mesh, at: &Namespaces) {
    let mut out = pod(&at.labelled, "out");
    out["metadata"]["labels"]["mesh-lite.io/inject"] = json!("disabled");
    let made = mesh.kube.create(&out).unwrap();
    assert_eq!(started_before(&made), Vec::<&str>::new());
    mesh.kube.delete(&out);
    let mut into = pod(&at.unlabelled, "into");
    into["metadata"]["labels"]["mesh-lite.io/inject"] = json!("enabled");
    let made = mesh.kube.create(&into).unwrap();
    assert_meshed(&made);
    mesh.kube.delete(&into);
    // its neighbour is left alone
    let plain = pod(&at.unlabelled, "plain");
    let made = mesh.kube.create(&plain).unwrap();
    assert_eq!(started_before(&made), Vec::<&str>::new());
    mesh.kube.delete(&plain);
    // fact 7: a hostNetwork pod has no network of its own to capture
    let mut host = pod(&at.labelled, "host");
    host["spec"]["hostNetwork"] = json!(true);
    let made = mesh.kube.create(&host).unwrap();
    assert_eq!(started_before(&made), Vec::<&str>::new());
    mesh.kube.delete(&host);
}

fn what_cannot_be_in_the_mesh_is_refused_in_words(mesh: &Mesh, at: &Namespaces) {
    let cases: [(&str, Value, &[&str]); 4] = [
        (
            "uid",
            json!({"spec": {"securityContext": {"runAsUser": 15008}}}),
            &["15008"],
        ),
        (
            "annotation",
            json!({"metadata": {"annotations": {"config.mesh-lite.io/no-such-key": "1"}}}),
            &["config.mesh-lite.io/no-such-key"],
        ),
        (
            "loosening",
            json!({"metadata": {"annotations": {"config.mesh-lite.io/skip-inbound-ports": "8080"}}}),
            &["skip-inbound-ports", "namespace"],
        ),
        (
            "hostnetwork",
            json!({"metadata": {"labels": {"mesh-lite.io/inject": "enabled"}},
                "spec": {"hostNetwork": true}}),
            &["hostNetwork"],
        ),
    ];
    for (name, change, words) in cases {
        let mut wanted = pod(&at.labelled, name);
        merge(&mut wanted, change);
        let said = refusal(mesh.kube.create(&wanted));
        assert!(said.contains("denied the request"), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}: {said}");
        }
    }
}

fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

/// Pods that controllers make have no name yet when they are reviewed.
fn pods_of_workloads_get_their_sidecar(mesh: &Mesh, at: &Namespaces) {
    if !mesh.kube.cluster.has_controllers() {
        eprintln!("not run in part: {TEST}: no kube-controller-manager makes pods of workloads");
        return;
    }
    let namespace = name_of(&at.labelled);
    let template = |name: &str, restart: &str| {
        json!({"metadata": {"labels": {"app": name}},
            "spec": {"restartPolicy": restart,
                "containers": [{"name": "app", "image": "app.test/app:1"}]}})
    };
    let workload = |api_version: &str, kind: &str, spec: Value| {
        json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": kind.to_lowercase(), "namespace": namespace}, "spec": spec})
    };
    let selecting = |name: &str| json!({"selector": {"matchLabels": {"app": name}}, "template": template(name, "Always")});
    let mut stateful = selecting("statefulset");
    stateful["serviceName"] = json!("statefulset");
    let workloads = [
        workload("apps/v1", "Deployment", selecting("deployment")),
        workload("apps/v1", "StatefulSet", stateful),
        workload(
            "batch/v1",
            "Job",
            json!({"template": template("job", "Never")}),
        ),
    ];
    for wanted in &workloads {
        mesh.kube.put(wanted);
        let label = format!("app={}", name_of(wanted));
        let pods = reference("v1", "Pod", namespace, "");
        let made = eventually(&format!("the pod of {}", name_of(wanted)), || {
            mesh.kube.list(&pods, &label).pop().ok_or("there is none")
        });
        assert_meshed(&made);
        mesh.kube.delete(wanted);
    }
}

/// Fact 10: our init container needs NET_ADMIN, which these levels refuse after us.
fn a_pod_security_level_that_forbids_capture_is_named(mesh: &Mesh) {
    for level in ["baseline", "restricted"] {
        let namespace = mesh
            .kube
            .namespace(&json!({"mesh-lite.io/inject": "enabled",
            "pod-security.kubernetes.io/enforce": level}));
        let said = refusal(mesh.kube.create(&pod(&namespace, "web")));
        assert!(
            said.contains("inject.mesh-lite.io"),
            "it is our refusal: {said}"
        );
        assert!(said.contains(level) && said.contains("NET_ADMIN"), "{said}");
        mesh.kube.delete(&namespace);
    }
}

/// Facts 8 and 9: a quota refuses containers without limits, a LimitRange fills in what is not
/// there, which would call us again.
fn quotas_and_limit_ranges_count_our_containers(mesh: &Mesh) {
    let namespace = mesh.labelled_namespace();
    let at = name_of(&namespace);
    mesh.kube
        .put(&json!({"apiVersion": "v1", "kind": "LimitRange",
        "metadata": {"name": "l", "namespace": at},
        "spec": {"limits": [{"type": "Container",
            "default": {"cpu": "100m", "memory": "64Mi"},
            "defaultRequest": {"cpu": "100m", "memory": "64Mi"}}]}}));
    mesh.kube
        .put(&json!({"apiVersion": "v1", "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": at},
        "spec": {"hard": {"limits.cpu": "50", "limits.memory": "50Gi",
            "requests.cpu": "50", "requests.memory": "50Gi"}}}));
    let wanted = pod(&namespace, "web");
    // admission reads both through caches
    let made = eventually("a pod under a quota", || {
        let made = mesh
            .kube
            .create(&wanted)
            .map_err(|error| error.to_string())?;
        let limit = &made["spec"]["containers"][0]["resources"]["limits"]["cpu"];
        if *limit == "100m" {
            return Ok(made);
        }
        mesh.kube.delete(&wanted);
        Err(made.to_string())
    });
    assert_meshed(&made);
    let proxy = &made["spec"]["initContainers"][1]["resources"];
    assert_eq!(
        proxy["limits"],
        json!({"cpu": "2", "memory": "256Mi"}),
        "{proxy}"
    );
    mesh.kube.delete(&namespace);
}

/// Fact 9: we are called again with a pod that has our containers. A policy that adds a label
/// plays the later webhook.
fn a_container_that_a_later_webhook_would_add_finds_the_pod_unchanged(
    mesh: &Mesh,
    at: &Namespaces,
) {
    let shown = mesh.kube.create_dry(&pod(&at.labelled, "again")).unwrap();
    let mut second = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "again", "namespace": name_of(&at.labelled),
            "labels": shown["metadata"]["labels"],
            "annotations": shown["metadata"]["annotations"]},
        "spec": shown["spec"]});
    let unchanged = mesh.kube.create_dry(&second).unwrap();
    assert_eq!(unchanged["spec"], shown["spec"]);
    let late = json!({"name": "late", "image": "late.test/late:1",
        "livenessProbe": {"tcpSocket": {"port": 9000}}});
    second["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(late);
    let with_late = mesh.kube.create_dry(&second).unwrap();
    assert_meshed(&with_late);
    let probe = &with_late["spec"]["containers"][1]["livenessProbe"];
    assert_eq!(probe["httpGet"]["port"], 15021, "{probe}");
}
