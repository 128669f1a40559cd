//! What a namespace says, and pods and policies that it does not fit.

use super::*;

fn switched(labels: Value, annotations: Value) -> Vec<Finding> {
    let mut objects = Objects::default();
    let namespace =
        json!({"metadata": {"name": "shop", "labels": labels, "annotations": annotations}});
    objects.put(Kind::Namespaces, Ok(vec![namespace]));
    of_namespace(&objects, &settings(), "shop")
}

#[test]
fn a_switch_with_another_value_or_in_another_place_is_a_problem_with_the_right_command() {
    for value in ["true", "Enabled", "", "yes"] {
        let findings = switched(json!({"mesh-lite.io/inject": value}), json!({}));
        finds(&findings, Severity::Problem, "neither enabled nor disabled");
        let right = "kubectl label namespace shop --overwrite mesh-lite.io/inject=enabled";
        assert_eq!(findings[0].next, right);
    }
    let findings = switched(json!({}), json!({"mesh-lite.io/inject": "enabled"}));
    finds(&findings, Severity::Problem, "decides nothing");
    let next = &findings[0].next;
    assert!(
        next.contains("annotate namespace shop mesh-lite.io/inject-;"),
        "{next}"
    );
    assert!(
        next.ends_with("--overwrite mesh-lite.io/inject=enabled"),
        "{next}"
    );
    let both = json!({"mesh-lite.io/inject": "enabled"});
    finds(
        &switched(both.clone(), both),
        Severity::Warning,
        "decides nothing",
    );
    for right in ["enabled", "disabled"] {
        assert!(switched(json!({"mesh-lite.io/inject": right}), json!({})).is_empty());
    }
}

#[test]
fn another_mesh_that_takes_the_namespaces_pods_is_said() {
    for (labels, annotations) in [
        (json!({"istio-injection": "enabled"}), json!({})),
        (json!({"istio.io/rev": "stable"}), json!({})),
        (json!({}), json!({"linkerd.io/inject": "enabled"})),
        (json!({"kuma.io/sidecar-injection": "enabled"}), json!({})),
    ] {
        let findings = switched(labels, annotations);
        finds(&findings, Severity::Warning, "no pod can be in two meshes");
    }
    let out = json!({"istio-injection": "disabled", "istio.io/dataplane-mode": "none"});
    assert!(switched(out, json!({"linkerd.io/inject": "disabled"})).is_empty());
}

fn meshed_pod(labels: Value, owner: Option<&str>) -> Value {
    let owners =
        owner.map(|name| json!([{"kind": "ReplicaSet", "name": name, "controller": true}]));
    json!({
        "metadata": {"name": "p", "namespace": "shop", "labels": labels, "ownerReferences": owners,
            "annotations": {"mesh-lite.io/version": VERSION}},
        "spec": {"initContainers": [{"name": "mesh-lite-proxy"}], "containers": [{"name": "a", "image": "a"}]},
    })
}

fn of_labelled(label: Option<&str>, kinds: Vec<(Kind, Value)>) -> Vec<Finding> {
    let labels = label.map_or_else(|| json!({}), |label| json!({"mesh-lite.io/inject": label}));
    let mut objects = Objects::default();
    let namespace = json!({"metadata": {"name": "shop", "labels": labels}});
    objects.put(Kind::Namespaces, Ok(vec![namespace]));
    for (kind, found) in kinds {
        objects.put(kind, Ok(vec![found]));
    }
    of_namespace(&objects, &settings(), "shop")
}

#[test]
fn pods_that_kept_their_sidecar_when_the_label_went_are_a_problem() {
    let pod = |labels| vec![(Kind::Pods, meshed_pod(labels, Some("r")))];
    for label in [None, Some("disabled"), Some("true")] {
        let findings = of_labelled(label, pod(json!({})));
        finds(&findings, Severity::Problem, "Pod shop/p has a sidecar");
        let next = findings.iter().any(|f| f.next.contains("rollout restart"));
        assert!(next, "{}", said(&findings));
    }
    let own = json!({"mesh-lite.io/inject": "enabled"});
    finds(
        &of_labelled(Some("disabled"), pod(own.clone())),
        Severity::Problem,
        "has a sidecar",
    );
    assert!(of_labelled(None, pod(own)).is_empty(), "by its own label");
    assert!(of_labelled(Some("enabled"), pod(json!({}))).is_empty());
    let by_hand = json!({
        "metadata": {"name": "r", "namespace": "shop", "ownerReferences": [{"kind": "Deployment", "controller": true}]},
        "spec": {"template": {"spec": meshed_pod(json!({}), None)["spec"]}},
    });
    let mut kinds = pod(json!({}));
    kinds.push((Kind::ReplicaSets, by_hand));
    assert!(of_labelled(None, kinds).is_empty(), "inject by hand");
}

#[test]
fn a_policy_for_no_meshed_pod_is_said_to_protect_nobody() {
    let policy =
        |spec: Value| json!({"metadata": {"name": "np", "namespace": "shop"}, "spec": spec});
    let api = || policy(json!({"selector": {"matchLabels": {"app": "api"}}, "action": "DENY"}));
    let meshed = |app: &str| (Kind::Pods, meshed_pod(json!({"app": app}), Some("r")));
    let plain = json!({"metadata": {"name": "p", "namespace": "shop", "labels": {"app": "api"}}, "spec": {"containers": []},
        "status": {"phase": "Running"}});
    for kind in [Kind::AuthorizationPolicies, Kind::PeerAuthentications] {
        let findings = of_labelled(Some("enabled"), vec![(kind, api()), meshed("apy")]);
        finds(
            &findings,
            Severity::Warning,
            "selects no pod: it protects nobody",
        );
        let findings = of_labelled(None, vec![(kind, api()), (Kind::Pods, plain.clone())]);
        finds(&findings, Severity::Warning, "none with a sidecar");
        let all = policy(json!({}));
        let findings = of_labelled(None, vec![(kind, all.clone()), (Kind::Pods, plain.clone())]);
        finds(&findings, Severity::Warning, "none with a sidecar");
        for fine in [api(), all] {
            let findings = of_labelled(Some("enabled"), vec![(kind, fine.clone()), meshed("api")]);
            assert!(findings.is_empty(), "{}", said(&findings));
            let unread = of_labelled(Some("enabled"), vec![(kind, fine)]);
            assert!(unread.is_empty(), "pods were not read: {}", said(&unread));
        }
    }
}

#[test]
fn a_sidecar_of_another_image_than_the_injectors_is_said() {
    let injector = manifests(&strict())
        .into_iter()
        .find(|made| {
            made["kind"] == "Deployment" && made["metadata"]["name"] == "mesh-lite-injector"
        })
        .unwrap();
    let of = |image: &str| {
        let mut pod = meshed_pod(json!({}), Some("r"));
        pod["spec"]["initContainers"][0]["image"] = json!(image);
        let kinds = vec![(Kind::Pods, pod), (Kind::Injector, injector.clone())];
        of_labelled(Some("enabled"), kinds)
    };
    finds(
        &of("old.example/mesh-lite:1"),
        Severity::Warning,
        "of image \"old.example/mesh-lite:1\"",
    );
    let same = of(&strict().image);
    assert!(same.is_empty(), "{}", said(&same));
}

#[test]
fn explicit_capture_without_inbound_ports_is_said_where_pods_listen() {
    let explicit = |annotations: Value, ports: Value| {
        let namespace = json!({"metadata": {"name": "shop", "annotations": {"config.mesh-lite.io/capture": "explicit"}}});
        let deployment = json!({"metadata": {"name": "d", "namespace": "shop"}, "spec": {"template": {
            "metadata": {"annotations": annotations},
            "spec": {"containers": [{"name": "a", "image": "a", "ports": ports}]}}}});
        let mut objects = Objects::default();
        objects.put(Kind::Namespaces, Ok(vec![namespace]));
        objects.put(Kind::Deployments, Ok(vec![deployment]));
        of_namespace(&objects, &settings(), "shop")
    };
    let findings = explicit(json!({}), json!([{"containerPort": 8080}]));
    finds(
        &findings,
        Severity::Warning,
        "nobody reaches port 8080 through the sidecar",
    );
    let named = json!({"config.mesh-lite.io/inbound-ports": "8080"});
    let transparent = json!({"config.mesh-lite.io/capture": "transparent"});
    for fine in [
        explicit(named, json!([{"containerPort": 8080}])),
        explicit(transparent, json!([{"containerPort": 8080}])),
        explicit(json!({}), json!([{"containerPort": 53, "protocol": "UDP"}])),
        explicit(json!({}), json!([])),
    ] {
        assert!(fine.is_empty(), "{}", said(&fine));
    }
}
