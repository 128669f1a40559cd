use mesh_lite_proto::{
    kubernetes::{PROXY_CONTAINER, REDIRECT_CONTAINER, STATUS_ANNOTATION},
    sidecar::DEFAULT_MESH_NAMESPACE,
};
use serde_json::json;

use super::*;

mod conflicts;
mod generated;
mod switch;

fn settings() -> MeshSettings {
    MeshSettings::with_image("mesh-lite:1").unwrap()
}

fn request(caller: Caller) -> Request {
    Request {
        namespace: "shop".to_owned(),
        name: None,
        caller,
        dry_run: false,
    }
}

fn facts(labels: &[(&str, &str)]) -> NamespaceFacts {
    NamespaceFacts::new(labels.iter().copied(), [])
}

fn pod() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

/// A pod with something else at a place.
fn pod_with(place: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, key) = place.rsplit_once('/').unwrap();
    let mut at = &mut pod;
    for part in parent.split('/').skip(1) {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    at[key.replace("~1", "/")] = value;
    pod
}

fn decide_on(pod: &Value) -> Decision {
    inject(pod, &request(Caller::Anybody), &settings(), &facts(&[])).decision
}

fn injected(pod: &Value) -> Value {
    match decide_on(pod) {
        Decision::Inject(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn labels(pod: &Value) -> Vec<&'static str> {
    match decide_on(pod) {
        Decision::Refuse(refusals) => refusals.iter().map(Refusal::label).collect(),
        other => panic!("{other:?}"),
    }
}

fn skipped(decision: &Decision) -> Option<SkipReason> {
    match decision {
        Decision::Skip(skipped) => Some(skipped.reason),
        _ => None,
    }
}

/// Another webhook that changes our containers changes nothing.
#[test]
fn our_containers_are_brought_back_to_what_they_must_be() {
    let pod = injected(&pod());
    let mut changed = pod.clone();
    let containers = changed["spec"]["initContainers"].as_array_mut().unwrap();
    containers[1]["securityContext"]["privileged"] = json!(true);
    containers[1]["env"].as_array_mut().unwrap().clear();
    containers.swap(0, 1);
    containers.insert(0, json!({"name": "first"}));
    let again = injected(&changed);
    let names: Vec<&str> = again["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, [REDIRECT_CONTAINER, PROXY_CONTAINER, "first"]);
    assert_eq!(
        again["spec"]["initContainers"][1],
        pod["spec"]["initContainers"][1]
    );
}

#[test]
fn a_pod_that_moves_to_the_nodes_network_loses_the_sidecar_with_its_rules() {
    let mut pod = injected(&pod());
    pod["spec"]["hostNetwork"] = json!(true);
    let Decision::Skip(Skipped { reason, stamped }) = decide_on(&pod) else {
        panic!();
    };
    assert_eq!(reason, SkipReason::HostNetwork);
    assert!(stamped.unwrap()["spec"].get("initContainers").is_none());
}

#[test]
fn files_go_to_the_containers_that_are_named_and_exist() {
    let files = |names: &str| {
        pod_with(
            "/metadata/annotations",
            json!({"config.mesh-lite.io/files": names}),
        )
    };
    let pod = injected(&files("web"));
    assert_eq!(
        pod["spec"]["containers"][0]["volumeMounts"][0]["name"],
        "mesh-lite-files"
    );
    assert_eq!(labels(&files("wbe")), ["annotation"]);
    let mut taken = files("web");
    taken["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "x", "mountPath": mesh_lite_proto::kubernetes::FILES_DIR}]);
    assert_eq!(labels(&taken), ["annotation"]);
}

#[test]
fn values_of_annotations_and_probes_are_not_expanded_by_kubernetes() {
    let probe = json!({"httpGet": {"path": "/$(MESH_LITE_POD_UID)$$", "port": 80}});
    let pod = pod_with("/spec/containers/0/readinessProbe", probe.clone());
    let after = injected(&pod);
    let variables = after["spec"]["initContainers"][1]["env"]
        .as_array()
        .unwrap();
    let table = variables
        .iter()
        .find(|variable| variable["name"] == "MESH_LITE_PROBES")
        .unwrap();
    let text = table["value"].as_str().unwrap();
    assert!(text.contains("$$(MESH_LITE_POD_UID)$$$$"), "{text}");
    assert_eq!(without_injection(&after), pod);
}

#[test]
fn odd_types_are_refused_where_they_stand() {
    for (place, value) in [
        ("/metadata/labels", json!([])),
        ("/metadata/annotations", json!({"a": 1})),
        ("/spec/containers", json!("web")),
        ("/spec/containers", json!([])),
        ("/spec/containers", json!([{"name": "a"}, {"name": "a"}])),
        ("/spec/containers", json!([null])),
        ("/spec/containers/0/name", json!(1)),
        ("/spec/containers/0/volumeMounts", json!({})),
        (
            "/spec/containers/0/ports",
            json!([{"containerPort": "15008"}]),
        ),
        (
            "/spec/containers/0/securityContext",
            json!({"runAsUser": 15008.0}),
        ),
        ("/spec/initContainers", json!({})),
        ("/spec/volumes", json!([{}])),
        ("/spec/securityContext", json!([])),
        ("/spec/hostNetwork", json!("true")),
        ("/spec", Value::Null),
    ] {
        assert_eq!(
            labels(&pod_with(place, value.clone())),
            ["shape"],
            "{place} {value}"
        );
    }
    for pod in [Value::Null, json!([]), json!({}), json!({"spec": {}})] {
        assert_eq!(labels(&pod), ["shape"], "{pod}");
    }
}

#[test]
fn warnings_and_refusals_stay_short_and_plain() {
    let name = format!("a\u{1b}[2J\n{}", "b".repeat(500));
    let ports: Vec<Value> = (0..200).map(|_| json!({"containerPort": 15001})).collect();
    let pod = pod_with("/spec/containers", json!([{"name": name, "ports": ports}]));
    let Decision::Refuse(refusals) = decide_on(&pod) else {
        panic!();
    };
    assert_eq!(refusals.len(), MAX_REFUSALS);
    let words = refusals[0].to_string();
    assert!(
        words.len() < 300 && !words.contains(char::is_control),
        "{words}"
    );
}

#[test]
fn a_container_that_can_change_the_capture_rules_is_injected_and_named() {
    let pod = pod_with(
        "/spec/containers/0/securityContext",
        json!({"privileged": true}),
    );
    let decided = inject(&pod, &request(Caller::Anybody), &settings(), &facts(&[]));
    assert!(matches!(decided.decision, Decision::Inject(_)));
    let [warning] = &decided.warnings[..] else {
        panic!("{:?}", decided.warnings);
    };
    assert!(warning.contains("\"web\"") && warning.contains("capture rules"));
    // ours has NET_ADMIN too, and is no reason for a warning
    let again = injected(&pod_with("/metadata/name", json!("web")));
    let again = inject(&again, &request(Caller::Kubelet), &settings(), &facts(&[]));
    assert_eq!(again.warnings, [""; 0]);
}
