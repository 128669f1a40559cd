use proptest::prelude::*;

use super::*;

/// A pod with one container, `web`, that has `probes` beside its ports.
fn pod(probes: Value) -> Value {
    let mut container = json!({
        "name": "web",
        "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"name": "admin", "containerPort": 9090},
        ],
    });
    let fields = probes.as_object().unwrap().clone();
    container.as_object_mut().unwrap().extend(fields);
    json!({"spec": {"containers": [container]}})
}

fn rewritten(pod: &Value) -> (Value, AppProbes, Vec<String>) {
    let mut pod = pod.clone();
    let (table, warnings) = rewrite(&mut pod, &AppProbes::default(), &[]);
    (
        pod,
        table,
        warnings.iter().map(ToString::to_string).collect(),
    )
}

fn table(probes: &AppProbes) -> Value {
    serde_json::from_str(&probes.to_text().unwrap()).unwrap()
}

fn captured() -> Value {
    json!({
        "startupProbe": {
            "httpGet": {"path": "/started", "port": "admin", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 2, "failureThreshold": 30
        },
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": "http", "scheme": "HTTP",
                "httpHeaders": [{"name": "X-Probe", "value": "liveness"}]},
            "initialDelaySeconds": 5, "timeoutSeconds": 2
        },
        "readinessProbe": {"grpc": {"port": 50051, "service": "shop.v1.Cart"}, "successThreshold": 2},
        "lifecycle": {
            "postStart": {"exec": {"command": ["/bin/true"]}},
            "preStop": {"httpGet": {"path": "/quit", "port": "admin", "scheme": "HTTP"}}
        }
    })
}

#[test]
fn each_probe_asks_the_sidecar_and_keeps_its_schedule() {
    let (pod, probes, warnings) = rewritten(&pod(captured()));
    assert_eq!(warnings, [""; 0]);
    let container = &pod["spec"]["containers"][0];
    let asks = |kind: &str| json!({"path": format!("/app-probes/web/{kind}"), "port": 15021, "scheme": "HTTP"});
    assert_eq!(
        container["startupProbe"],
        json!({"httpGet": asks("startup"), "timeoutSeconds": 1, "periodSeconds": 2, "failureThreshold": 30})
    );
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": asks("readiness"), "successThreshold": 2})
    );
    assert_eq!(
        container["lifecycle"],
        json!({
            "postStart": {"exec": {"command": ["/bin/true"]}},
            "preStop": {"httpGet": asks("pre-stop")}
        })
    );
    let table = table(&probes);
    assert_eq!(
        table["/app-probes/web/liveness"],
        json!({
            "http": {"port": 8080, "scheme": "HTTP", "path": "/live", "headers": [["X-Probe", "liveness"]]},
            "timeoutSeconds": 2,
            "original": {"httpGet": {"path": "/live", "port": "http", "scheme": "HTTP",
                "httpHeaders": [{"name": "X-Probe", "value": "liveness"}]}}
        })
    );
    assert_eq!(table["/app-probes/web/startup"]["http"]["port"], 9090);
    assert_eq!(
        table["/app-probes/web/readiness"]["grpc"],
        json!({"port": 50051, "service": "shop.v1.Cart"})
    );
    assert_eq!(table["/app-probes/web/pre-stop"]["timeoutSeconds"], 3600);
    assert_eq!(table.as_object().unwrap().len(), 4);
}

#[test]
fn a_second_pass_changes_nothing_and_restoring_gives_the_original() {
    let original = pod(captured());
    let (once, probes, _) = rewritten(&original);
    let mut twice = once.clone();
    let (again, warnings) = rewrite(&mut twice, &probes, &[]);
    assert_eq!((&twice, &again), (&once, &probes));
    assert_eq!(warnings, []);
    restore(&mut twice, &again);
    assert_eq!(twice, original);
}

#[test]
fn containers_that_came_later_are_added_and_gone_ones_forgotten() {
    let (mut pod, probes, _) = rewritten(&pod(captured()));
    let late = json!({"name": "late", "livenessProbe": {"tcpSocket": {"port": 7000}}});
    pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    let web = pod["spec"]["containers"][0].as_object_mut().unwrap();
    web.remove("startupProbe").unwrap();
    let (again, _) = rewrite(&mut pod, &probes, &[]);
    let table = table(&again);
    assert_eq!(
        table["/app-probes/late/liveness"]["tcp"],
        json!({"port": 7000})
    );
    assert_eq!(table["/app-probes/web/liveness"]["http"]["path"], "/live");
    assert!(table.get("/app-probes/web/startup").is_none());
    let late = &pod["spec"]["containers"][1]["livenessProbe"]["httpGet"];
    assert_eq!(late["path"], "/app-probes/late/liveness");
}

#[test]
fn native_sidecars_of_the_application_have_probes_too_and_ours_keep_theirs() {
    let probe = json!({"httpGet": {"port": 9000}});
    let ours = json!({"httpGet": {"port": 15021, "path": "/readyz"}});
    let original = json!({"spec": {
        "initContainers": [
            {"name": REDIRECT_CONTAINER, "startupProbe": probe},
            {"name": PROXY_CONTAINER, "restartPolicy": "Always", "startupProbe": ours},
            {"name": "shipper", "restartPolicy": "Always", "startupProbe": probe,
                "lifecycle": {"preStop": {"httpGet": {"port": 9000, "path": "drain"}}}},
            {"name": "prepare", "startupProbe": probe},
        ],
        "containers": [{"name": "app"}],
    }});
    let (pod, probes, warnings) = rewritten(&original);
    assert_eq!(warnings, [""; 0]);
    let init = &pod["spec"]["initContainers"];
    for untouched in [0, 1, 3] {
        assert_eq!(
            init[untouched],
            original["spec"]["initContainers"][untouched]
        );
    }
    let paths: Vec<_> = probes.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(
        paths,
        [
            "/app-probes/shipper/startup",
            "/app-probes/shipper/pre-stop"
        ]
    );
    assert_eq!(
        table(&probes)["/app-probes/shipper/pre-stop"]["http"]["path"],
        "/drain"
    );
}

#[test]
fn probes_that_go_elsewhere_stay_and_are_named() {
    for (probe, words) in [
        (
            json!({"httpGet": {"port": 80, "host": "example.com"}}),
            "\"example.com\" is not the pod",
        ),
        (
            json!({"tcpSocket": {"port": 80, "host": "127.0.0.1"}}),
            "is not the pod",
        ),
        (
            json!({"httpGet": {"port": "web"}}),
            "\"web\" is no name of a port",
        ),
        (json!({"tcpSocket": {"port": 15021}}), "port 15021 is none"),
        (json!({"httpGet": {"port": 0}}), "port 0 is none"),
        (
            json!({"httpGet": {"port": 15021, "path": "/app-probes/web/readiness"}}),
            "no table says what it was",
        ),
        (
            json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": "c"}]}}),
            "its header \"a b\"",
        ),
    ] {
        let original = pod(json!({"readinessProbe": probe}));
        let (pod, probes, warnings) = rewritten(&original);
        assert_eq!(pod, original);
        assert!(probes.is_empty());
        let [warning] = &warnings[..] else {
            panic!("{warnings:?}");
        };
        assert!(
            warning.starts_with("container web: its readinessProbe stays")
                && warning.contains(words),
            "{warning}"
        );
    }
}

#[test]
fn what_is_no_probe_of_the_network_stays_silently() {
    for probe in [
        json!({"exec": {"command": ["true"]}}),
        json!({"exec": {"command": ["true"]}, "httpGet": {"port": 80}}),
        json!({"httpGet": {"port": 80}, "tcpSocket": {"port": 80}}),
        json!({"httpGet": {"port": 80, "scheme": "gopher"}}),
        json!({"httpGet": {}}),
        json!({"httpGet": null}),
        json!({"tcpSocket": {"port": 65536}}),
        json!({}),
        json!(null),
        json!("yes"),
    ] {
        let original = pod(
            json!({"livenessProbe": probe, "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
        );
        let (pod, probes, warnings) = rewritten(&original);
        assert_eq!((pod, probes.is_empty()), (original, true));
        assert_eq!(warnings, [""; 0]);
    }
}

#[test]
fn a_port_that_capture_leaves_alone_needs_no_help() {
    let original = pod(json!({
        "livenessProbe": {"httpGet": {"port": "http"}},
        "readinessProbe": {"httpGet": {"port": "admin"}},
    }));
    let mut pod = original.clone();
    let (probes, warnings) = rewrite(&mut pod, &AppProbes::default(), &[8080]);
    assert_eq!(warnings, []);
    let web = &pod["spec"]["containers"][0];
    assert_eq!(
        web["livenessProbe"],
        original["spec"]["containers"][0]["livenessProbe"]
    );
    assert_eq!(web["readinessProbe"]["httpGet"]["port"], 15021);
    assert_eq!(probes.iter().count(), 1);
}

#[test]
fn numbers_as_text_and_missing_fields_mean_what_they_mean_to_the_kubelet() {
    let (_, probes, _) = rewritten(&pod(json!({
        "livenessProbe": {"httpGet": {"port": "8081"}},
        "readinessProbe": {"tcpSocket": {"port": 80}, "timeoutSeconds": 90000},
        "startupProbe": {"grpc": {"port": 81, "service": null}, "timeoutSeconds": 0},
    })));
    let table = table(&probes);
    let of = |kind: &str| &table[format!("/app-probes/web/{kind}")];
    assert_eq!(
        of("liveness")["http"],
        json!({"port": 8081, "scheme": "HTTP", "path": "/"})
    );
    assert_eq!(of("liveness")["timeoutSeconds"], 1);
    assert_eq!(of("readiness")["timeoutSeconds"], 3600);
    assert_eq!(of("startup")["timeoutSeconds"], 1);
    assert_eq!(of("startup")["grpc"], json!({"port": 81}));
}

#[test]
fn more_probes_than_the_table_takes_are_named() {
    let containers: Vec<_> = (0..70)
        .map(|number| json!({"name": format!("c{number}"), "livenessProbe": {"tcpSocket": {"port": 80}}}))
        .collect();
    let (pod, probes, warnings) = rewritten(&json!({"spec": {"containers": containers}}));
    assert_eq!((probes.iter().count(), warnings.len()), (64, 6));
    assert!(
        warnings[0].contains("more than 64 probes"),
        "{}",
        warnings[0]
    );
    assert_eq!(
        pod["spec"]["containers"][69]["livenessProbe"]["tcpSocket"]["port"],
        80
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(8080)),
        Just(json!("http")),
        ".{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "httpGet",
        "tcpSocket",
        "grpc",
        "exec",
        "port",
        "path",
        "host",
        "scheme",
        "service",
        "httpHeaders",
        "timeoutSeconds",
        "name",
        "value",
    ]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_a_probe_is_a_second_pass_and_a_restore_are_exact(
        startup in any_json(), liveness in any_json(), lifecycle in any_json(), ports in any_json(),
    ) {
        let original = pod(json!({
            "startupProbe": startup, "livenessProbe": liveness,
            "lifecycle": {"preStop": lifecycle}, "ports": ports,
        }));
        let (once, probes, _) = rewritten(&original);
        let mut twice = once.clone();
        let (again, _) = rewrite(&mut twice, &probes, &[]);
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(&again, &probes);
        let text = probes.to_text().unwrap();
        prop_assert_eq!(&text.parse::<AppProbes>().unwrap(), &probes);
        restore(&mut twice, &probes);
        prop_assert_eq!(twice, original);
    }
}
