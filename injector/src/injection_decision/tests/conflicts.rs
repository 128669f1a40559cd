//! What of a pod does not go together with a sidecar.

use super::*;

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
