//! Whatever a pod looks like.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::pod_patch;

/// What stands in a field, if not what belongs there.
fn odd() -> impl Strategy<Value = Option<Value>> + Clone {
    prop_oneof![
        200 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!([]))),
        1 => Just(Some(json!({}))),
        1 => Just(Some(json!("x"))),
        1 => Just(Some(json!(15008))),
    ]
}

/// Mostly of pods that are injected: what is refused proves little.
fn name() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![
        60 => select(vec!["web", "late", "init", "data"]),
        1 => select(vec![
            PROXY_CONTAINER, REDIRECT_CONTAINER, "mesh-lite-state", "istio-proxy",
        ]),
    ]
}

fn any_container() -> impl Strategy<Value = Value> + Clone {
    (name(), vec(odd(), 5)).prop_map(|(name, odd)| {
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
    })
}

/// Names that are nobody's in particular become different ones.
fn with_own_names(mut containers: Vec<Value>, prefix: &str) -> Vec<Value> {
    for (index, container) in containers.iter_mut().enumerate() {
        let name = container["name"].as_str().unwrap();
        if !name.contains('-') {
            container["name"] = json!(format!("{prefix}{index}"));
        }
    }
    containers
}

/// A pod with fields that are missing, null or of a wrong type, and with names of ours.
fn any_pod() -> impl Strategy<Value = Value> {
    let list = vec(any_container(), 1..3);
    let parts = (list.clone(), list, vec(odd(), 6), name(), any::<bool>());
    parts.prop_map(|(containers, init, odd, volume, tuned)| {
        let mut pod = json!({
            "metadata": {"labels": {"a": "b"}, "unknown": {"f": [1]}},
            "spec": {
                "containers": with_own_names(containers, "web"),
                "initContainers": with_own_names(init, "init"),
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
