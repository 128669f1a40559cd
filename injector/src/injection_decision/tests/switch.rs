//! Who is injected, who is passed over, and who may not start.

use super::*;

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
