use mesh_lite_proto::{
    kubernetes::{PROXY_CONTAINER, REDIRECT_CONTAINER, STATUS_ANNOTATION},
    sidecar::DEFAULT_MESH_NAMESPACE,
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::pod_patch;

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

#[test]
fn without_the_api_server_the_labels_decide_as_its_selectors_would() {
    let label = |value: &str| pod_with("/metadata/labels/mesh-lite.io~1inject", json!(value));
    let (on, off) = (INJECT_LABEL, "mesh-lite.io/inject");
    for (namespace, pod, expected) in [
        (vec![(on, "enabled")], pod(), None),
        (vec![(on, "enabled")], label("enabled"), None),
        (
            vec![(on, "enabled")],
            label("disabled"),
            Some(SkipReason::OptedOut),
        ),
        (vec![], pod(), Some(SkipReason::NamespaceNotEnabled)),
        (vec![], label("enabled"), None),
        (
            vec![(off, "disabled")],
            label("enabled"),
            Some(SkipReason::NamespaceNotEnabled),
        ),
        (
            vec![(off, "true")],
            pod(),
            Some(SkipReason::NamespaceNotEnabled),
        ),
    ] {
        let caller = request(Caller::CommandLine);
        let decision = inject(&pod, &caller, &settings(), &facts(&namespace)).decision;
        assert_eq!(skipped(&decision), expected, "{namespace:?} {decision:?}");
        if expected.is_none() {
            assert!(matches!(decision, Decision::Inject(_)), "{decision:?}");
        }
    }
}

/// Its watch may be behind: who was called by the API server never leaves a pod without a sidecar
/// because of it.
#[test]
fn the_api_servers_selectors_are_not_judged_again() {
    assert!(matches!(decide_on(&pod()), Decision::Inject(_)));
}

#[test]
fn a_label_that_is_neither_yes_nor_no_is_refused() {
    for value in ["false", "true", "Enabled", "", "off"] {
        let pod = pod_with("/metadata/labels/mesh-lite.io~1inject", json!(value));
        assert_eq!(labels(&pod), ["inject-label"], "{value}");
    }
}

#[test]
fn an_annotation_in_place_of_the_label_is_refused_or_warned_about() {
    let disabled = json!({"mesh-lite.io/inject": "disabled"});
    assert_eq!(
        labels(&pod_with("/metadata/annotations", disabled)),
        ["inject-annotation"]
    );
    let enabled = pod_with(
        "/metadata/annotations",
        json!({"mesh-lite.io/inject": "enabled"}),
    );
    let decided = inject(
        &enabled,
        &request(Caller::Anybody),
        &settings(),
        &facts(&[]),
    );
    assert!(matches!(decided.decision, Decision::Inject(_)));
    assert!(decided.warnings[0].contains("only a label"), "{decided:?}");
}

#[test]
fn the_mesh_never_keeps_itself_or_the_system_from_starting() {
    for namespace in ["kube-system", DEFAULT_MESH_NAMESPACE] {
        let request = Request {
            namespace: namespace.to_owned(),
            ..request(Caller::Anybody)
        };
        let decided = inject(
            &pod(),
            &request,
            &settings(),
            &facts(&[(INJECT_LABEL, "enabled")]),
        );
        assert_eq!(
            decided.decision,
            Decision::Skip(Skipped {
                reason: SkipReason::ReservedNamespace,
                stamped: None
            })
        );
    }
}

#[test]
fn only_a_kubelet_makes_mirrors() {
    let mirror = pod_with(
        "/metadata/annotations",
        json!({"kubernetes.io/config.mirror": "x"}),
    );
    assert_eq!(labels(&mirror), ["spoofed-mirror"]);
    let decided = inject(&mirror, &request(Caller::Kubelet), &settings(), &facts(&[]));
    assert_eq!(skipped(&decided.decision), Some(SkipReason::Mirror));
}

#[test]
fn windows_is_skipped_however_it_is_said() {
    for pod in [
        pod_with("/spec/os", json!({"name": "windows"})),
        pod_with("/spec/nodeSelector", json!({"kubernetes.io/os": "windows"})),
    ] {
        assert_eq!(skipped(&decide_on(&pod)), Some(SkipReason::Windows));
    }
    for pod in [
        pod_with("/spec/os", json!({"name": "linux"})),
        pod_with("/spec/os", json!({})),
    ] {
        assert_eq!(skipped(&decide_on(&pod)), None);
    }
}

/// UID collision is a way around capture.
#[test]
fn the_sidecars_user_is_the_sidecars_alone() {
    let context = json!({"runAsUser": 15008});
    for pod in [
        pod_with("/spec/securityContext", context.clone()),
        pod_with("/spec/containers/0/securityContext", context.clone()),
        pod_with(
            "/spec/initContainers",
            json!([{"name": "init", "securityContext": context.clone()}]),
        ),
        pod_with(
            "/spec/ephemeralContainers",
            json!([{"name": "debug", "securityContext": context}]),
        ),
    ] {
        assert_eq!(labels(&pod), ["sidecar-uid"], "{pod}");
    }
    for user in [0, 1337, 15007] {
        injected(&pod_with(
            "/spec/securityContext",
            json!({"runAsUser": user}),
        ));
    }
}

#[test]
fn the_sidecars_ports_are_the_sidecars_alone() {
    for port in mesh_lite_proto::sidecar::OWN_PORTS {
        for ports in [
            json!([{"containerPort": port}]),
            json!([{"containerPort": 80, "hostPort": port, "protocol": "TCP"}]),
        ] {
            let pod = pod_with("/spec/containers/0/ports", ports);
            assert_eq!(labels(&pod), ["sidecar-port"], "{pod}");
        }
    }
    injected(&pod_with(
        "/spec/containers/0/ports",
        json!([{"containerPort": 15008, "protocol": "UDP"}, {"containerPort": 15012}]),
    ));
}

#[test]
fn another_mesh_is_refused_by_its_annotation_or_its_containers() {
    for annotations in [
        json!({"sidecar.istio.io/status": "{}"}),
        json!({"ambient.istio.io/redirection": "enabled"}),
        json!({"linkerd.io/proxy-version": "edge"}),
        json!({"kuma.io/sidecar-injected": "true"}),
        json!({"consul.hashicorp.com/connect-inject-status": "injected"}),
    ] {
        let pod = pod_with("/metadata/annotations", annotations);
        assert_eq!(labels(&pod), ["other-mesh"], "{pod}");
    }
    for name in [
        "istio-proxy",
        "linkerd-init",
        "kuma-sidecar",
        "consul-dataplane",
    ] {
        let pod = pod_with("/spec/initContainers", json!([{"name": name}]));
        assert_eq!(labels(&pod), ["other-mesh"], "{pod}");
    }
    let ambient = facts(&[("istio.io/dataplane-mode", "ambient")]);
    let decide =
        |pod: &Value| inject(pod, &request(Caller::Anybody), &settings(), &ambient).decision;
    assert!(matches!(decide(&pod()), Decision::Refuse(_)));
    let out = pod_with(
        "/metadata/labels",
        json!({"istio.io/dataplane-mode": "none"}),
    );
    assert!(matches!(decide(&out), Decision::Inject(_)));
}

#[test]
fn pod_security_is_said_in_words_unless_nothing_is_captured() {
    for level in ["baseline", "restricted", "unheard-of"] {
        let enforced = [("pod-security.kubernetes.io/enforce", level)];
        let decide = |annotations: &[(&'static str, &'static str)]| {
            let facts = NamespaceFacts::new(enforced, annotations.iter().copied());
            inject(&pod(), &request(Caller::Anybody), &settings(), &facts).decision
        };
        let Decision::Refuse(refusals) = decide(&[]) else {
            panic!("{level}");
        };
        let words = refusals[0].to_string();
        assert!(words.contains("capture=explicit"), "{words}");
        let Decision::Inject(pod) = decide(&[("config.mesh-lite.io/capture", "explicit")]) else {
            panic!("{level}");
        };
        assert_eq!(pod["spec"]["initContainers"].as_array().unwrap().len(), 1);
    }
}

/// A status is only words: what it names is looked at.
#[test]
fn containers_under_our_names_that_are_not_ours_are_refused_whatever_the_status_says() {
    let status = json!({
        "version": "1",
        "containers": [PROXY_CONTAINER, REDIRECT_CONTAINER],
        "volumes": ["mesh-lite-state"],
    })
    .to_string();
    let spoofed = |list: &str, container: Value| {
        let mut pod = pod_with("/metadata/annotations", json!({STATUS_ANNOTATION: status}));
        let mut containers = vec![container];
        containers.extend(pod["spec"][list].as_array().cloned().unwrap_or_default());
        pod["spec"][list] = containers.into();
        pod
    };
    let proxy = json!({
        "name": PROXY_CONTAINER, "args": ["proxy"], "securityContext": {"runAsUser": 15008},
    });
    let without = |key: &str| {
        let mut container = proxy.clone();
        container.as_object_mut().unwrap().remove(key);
        container
    };
    for pod in [
        spoofed("containers", proxy.clone()),
        spoofed("initContainers", without("args")),
        spoofed("initContainers", without("securityContext")),
        spoofed(
            "initContainers",
            json!({"name": REDIRECT_CONTAINER, "args": ["redirect"]}),
        ),
    ] {
        assert!(labels(&pod).contains(&"reserved-name"), "{pod}");
    }
    // even what looks like ours is not kept, but made anew
    let taken = spoofed("initContainers", {
        let mut container = proxy;
        container["image"] = json!("evil:1");
        container
    });
    let pod = injected(&taken);
    assert_eq!(pod["spec"]["initContainers"][1]["image"], "mesh-lite:1");
    assert_eq!(injected(&pod), pod);
}

#[test]
fn a_status_without_a_sidecar_is_no_way_around_it() {
    for status in ["", "injected", "{}", "{\"skipped\":\"host-network\"}", "[]"] {
        let pod = pod_with("/metadata/annotations", json!({STATUS_ANNOTATION: status}));
        let containers = &injected(&pod)["spec"]["initContainers"];
        assert_eq!(containers[1]["name"], PROXY_CONTAINER, "{status}");
    }
}

#[test]
fn the_applications_containers_never_mount_what_is_the_sidecars() {
    let pod = injected(&pod());
    for volume in ["mesh-lite-state", "mesh-lite-token", "mesh-lite-files"] {
        let mut pod = pod.clone();
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": volume, "mountPath": "/keys"}]);
        assert_eq!(labels(&pod), ["reserved-mount"], "{volume}");
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

/// A pod with fields that are missing, null or of a wrong type, and with names of ours.
fn any_pod() -> impl Strategy<Value = Value> {
    let odd = prop_oneof![
        200 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!([]))),
        1 => Just(Some(json!({}))),
        1 => Just(Some(json!("x"))),
        1 => Just(Some(json!(15008))),
    ];
    // mostly pods that are injected: what is refused proves little
    let names = prop_oneof![
        60 => prop::sample::select(vec!["web", "late", "init", "data"]),
        1 => prop::sample::select(vec![
            PROXY_CONTAINER, REDIRECT_CONTAINER, "mesh-lite-state", "istio-proxy",
        ]),
    ];
    let container =
        (names.clone(), prop::collection::vec(odd.clone(), 5)).prop_map(|(name, odd)| {
            let mut container = json!({
                "name": name,
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "ports": [{"containerPort": 50051, "name": "grpc"}],
            });
            for (key, value) in ["volumeMounts", "env", "readinessProbe", "ports", "args"]
                .iter()
                .zip(odd)
            {
                if let Some(value) = value {
                    container[*key] = value;
                }
            }
            container
        });
    let list = prop::collection::vec(container, 1..3);
    (
        list.clone(),
        list,
        prop::collection::vec(odd, 8),
        names,
        any::<bool>(),
    )
        .prop_map(|(containers, init, odd, volume, tuned)| {
            let named = |mut list: Vec<Value>, first: &str| {
                for (index, container) in list.iter_mut().enumerate() {
                    let name = container["name"].as_str().unwrap();
                    if !name.contains('-') {
                        container["name"] = json!(format!("{first}{index}"));
                    }
                }
                list
            };
            let (containers, init) = (named(containers, "web"), named(init, "init"));
            let mut pod = json!({
                "metadata": {"labels": {"a": "b"}, "unknown": {"f": [1]}},
                "spec": {
                    "containers": containers,
                    "initContainers": init,
                    "volumes": [{"name": volume, "emptyDir": {}}],
                    "unknown": {"kept": true},
                },
            });
            if tuned {
                pod["metadata"]["annotations"] = json!({"config.mesh-lite.io/files": "web0"});
            }
            let places = [
                ("metadata", "labels"),
                ("metadata", "annotations"),
                ("spec", "initContainers"),
                ("spec", "volumes"),
                ("spec", "securityContext"),
                ("spec", "hostNetwork"),
            ];
            for ((parent, key), value) in places.into_iter().zip(odd) {
                if let Some(value) = value {
                    pod[parent][key] = value;
                }
            }
            pod
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Otherwise the next test would prove nothing: rejecting more than proptest allows fails.
    #[test]
    fn most_pods_of_the_next_test_are_injected(pod in any_pod()) {
        prop_assume!(matches!(decide_on(&pod), Decision::Inject(_)));
    }

    /// Never a panic, never a patch that fails; a second pass changes nothing, and taking the
    /// sidecar away gives what came.
    #[test]
    fn whatever_comes_is_decided_and_what_is_injected_stays_as_it_is(pod in any_pod()) {
        if let Decision::Inject(after) = decide_on(&pod) {
            prop_assert!(pod_patch::patch(&pod, &after).is_ok());
            prop_assert_eq!(decide_on(&after), Decision::Inject(after.clone()));
            prop_assert_eq!(without_injection(&after), pod.clone());
            prop_assert_eq!(&after["spec"]["unknown"], &pod["spec"]["unknown"]);
        }
    }
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
