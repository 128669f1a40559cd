use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::annotations;

fn added(pod: &Value, annotations: &[(&str, &str)]) -> Injected {
    let settings = MeshSettings::with_image("mesh-lite:1").unwrap();
    let pairs = annotations.iter().copied();
    let wanted = annotations::read("shop", &BTreeMap::new(), pairs, &settings.resources).unwrap();
    add(pod, &settings, &wanted).unwrap()
}

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "web"}]}})
}

#[test]
fn maps_and_lists_that_were_not_there_go_with_what_was_put_there() {
    for pod in [
        pod(),
        json!({"metadata": null, "spec": {"containers": [{"name": "web"}]}}),
        json!({
            "metadata": {"labels": null, "annotations": {}},
            "spec": {
                "containers": [{"name": "web"}],
                "initContainers": null,
                "volumes": [],
                "securityContext": {"sysctls": null},
            },
        }),
    ] {
        let after = added(&pod, &[]).pod;
        assert_ne!(after, pod);
        assert_eq!(remove(&after), pod);
    }
}

/// Who sets a range knows its ports.
#[test]
fn local_ports_of_the_pods_author_stay() {
    for name in [
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
    ] {
        let sysctls = json!([{"name": name, "value": "40000"}]);
        let mut pod = pod();
        pod["spec"]["securityContext"] = json!({"sysctls": sysctls});
        let after = added(&pod, &[]).pod;
        assert_eq!(after["spec"]["securityContext"]["sysctls"], sysctls);
        assert_eq!(remove(&after), pod);
    }
}

#[test]
fn ports_that_the_pod_declares_are_never_dialled_from() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["ports"] =
        json!([{"containerPort": 50123}, {"containerPort": 8080}]);
    let sysctls = &added(&pod, &[]).pod["spec"]["securityContext"]["sysctls"];
    let reserved = sysctls[1]["value"].as_str().unwrap();
    assert!(reserved.ends_with(",50123"), "{reserved}");
}

#[test]
fn volumes_that_the_pods_author_lets_go_stay_named() {
    const SAFE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    let mut pod = pod();
    pod["metadata"] = json!({"annotations": {SAFE: "cache, scratch"}});
    let after = added(&pod, &[]).pod;
    let list = after["metadata"]["annotations"][SAFE].as_str().unwrap();
    assert!(
        list.starts_with("cache, scratch,mesh-lite-state,"),
        "{list}"
    );
    assert_eq!(remove(&after), pod);
}

#[test]
fn an_app_armor_profile_of_the_pod_is_not_ours() {
    let mut pod = pod();
    pod["spec"]["securityContext"] =
        json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "web"}});
    for container in added(&pod, &[]).pod["spec"]["initContainers"]
        .as_array()
        .unwrap()
    {
        let profile = &container["securityContext"]["appArmorProfile"];
        assert_eq!(*profile, json!({"type": "RuntimeDefault"}));
    }
}

#[test]
fn more_grace_than_the_pod_has_is_warned_about() {
    let asked = [("config.mesh-lite.io/shutdown-grace-period", "60")];
    assert_eq!(added(&pod(), &asked).warnings.len(), 1);
    let mut patient = pod();
    patient["spec"]["terminationGracePeriodSeconds"] = json!(60);
    assert!(added(&patient, &asked).warnings.is_empty());
}

#[test]
fn probes_that_stay_with_the_kubelet_leave_no_table() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"tcpSocket": {"port": 80}});
    let off = [("config.mesh-lite.io/rewrite-probes", "false")];
    let after = added(&pod, &off).pod;
    assert_eq!(
        after["spec"]["containers"][0]["readinessProbe"],
        pod["spec"]["containers"][0]["readinessProbe"]
    );
    assert!(!after.to_string().contains("MESH_LITE_PROBES"));
    assert!(
        added(&pod, &[])
            .pod
            .to_string()
            .contains("MESH_LITE_PROBES")
    );
}

/// A status that somebody wrote can't make us take away what is not ours.
#[test]
fn a_status_does_not_take_away_other_peoples_things() {
    let pod = json!({
        "metadata": {"labels": {"a": "b"}, "annotations": {
            STATUS_ANNOTATION: json!({
                "version": "1",
                "containers": ["init", "mesh-lite-proxy"],
                "volumes": ["data", "mesh-lite-state"],
                "sysctls": ["net.core.somaxconn"],
                "made": ["spec/containers", "spec", "metadata/labels", "../x", "", "spec/tolerations"],
            }).to_string(),
        }},
        "spec": {
            "containers": [{"name": "web"}],
            "initContainers": [{"name": "init", "args": ["proxy"]}],
            "volumes": [
                {"name": "data", "emptyDir": {}},
                {"name": "mesh-lite-state", "persistentVolumeClaim": {"claimName": "disk"}},
            ],
            "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]},
            "tolerations": [],
        },
    });
    let after = remove(&pod);
    assert_eq!(after["spec"], pod["spec"]);
    assert_eq!(after["metadata"]["labels"], pod["metadata"]["labels"]);
}
