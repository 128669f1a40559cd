//! `inject` and `uninject` as people use them: manifests in files and by pipe, through the real
//! binary, and back again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use mesh_lite_proto::kubernetes::{PROXY_CONTAINER, REDIRECT_CONTAINER};
use serde_json::{Value, json};

/// Runs it with this as standard input.
fn mesh_lite(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // one that reads no input ended before it: its output is what counts
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn values(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn written(directory: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn pod_spec() -> Value {
    json!({
        "initContainers": [{"name": "migrate", "image": "app:1", "command": ["migrate"]}],
        "containers": [{
            "name": "app", "image": "app:1",
            "env": [{"name": "NORWAY", "value": "no"}, {"name": "OCTAL", "value": "0777"}],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/ready"}, "periodSeconds": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": 8080, "path": "/bye"}}},
        }],
        "volumes": [{"name": "cache", "emptyDir": {}}],
        "unknownField": {"kept": [1, 2.5, true, null]},
    })
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "app"}}, "spec": pod_spec()})
}

fn workload(api: &str, kind: &str, spec: &Value) -> Value {
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": "app", "namespace": "shop"},
        "spec": spec})
}

/// Where its pod is, beside each.
fn workloads() -> Vec<(Value, &'static str)> {
    let selector = json!({"matchLabels": {"app": "app"}});
    let made = |kind| {
        let spec = json!({"replicas": 2, "selector": selector, "template": template()});
        (workload("apps/v1", kind, &spec), "/spec/template/spec")
    };
    let job = json!({"template": template()});
    let cron = json!({"schedule": "0 4 * * *", "jobTemplate": {"spec": job}});
    vec![
        made("Deployment"),
        made("StatefulSet"),
        made("DaemonSet"),
        (workload("batch/v1", "Job", &job), "/spec/template/spec"),
        (
            workload("batch/v1", "CronJob", &cron),
            "/spec/jobTemplate/spec/template/spec",
        ),
        (workload("v1", "Pod", &pod_spec()), "/spec"),
    ]
}

fn is_meshed(document: &Value, pod: &str) -> bool {
    let spec = document.pointer(pod).unwrap();
    let names = spec["initContainers"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|one| one["name"].as_str().unwrap()).collect();
    names == [REDIRECT_CONTAINER, PROXY_CONTAINER, "migrate"]
}

#[test]
fn every_workload_comes_back_from_injection_as_it_was() {
    for (document, pod) in workloads() {
        let before = document.to_string();
        let injected = text(&mesh_lite(&["inject", "-f", "-"], &before));
        let [after] = &values(&injected)[..] else {
            panic!("{injected}");
        };
        assert!(is_meshed(after, pod), "{injected}");
        assert_eq!(
            text(&mesh_lite(&["inject", "-f", "-"], &injected)),
            injected
        );
        let back = text(&mesh_lite(&["uninject", "-f", "-"], &injected));
        assert_eq!(values(&back), [document]);
    }
}

#[test]
fn lists_and_files_of_many_documents_come_back_by_file_and_by_pipe() {
    let (documents, pods): (Vec<Value>, Vec<&str>) = workloads().into_iter().unzip();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": documents});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "app"},
        "spec": {"ports": [{"port": 80}]}});
    let mut all = vec![service, list];
    all.extend(documents);
    // JSON is YAML
    let many: String = all.iter().map(|one| format!("---\n{one}\n")).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = written(directory.path(), "all.yaml", &many);

    let by_file = text(&mesh_lite(&["inject", "-f", &file], ""));
    let by_pipe = text(&mesh_lite(&["inject", "-f", "-"], &many));
    assert_eq!(by_file, by_pipe);
    let injected = values(&by_file);
    assert_eq!(injected[0], all[0]);
    let items = injected[1]["items"].as_array().unwrap();
    for meshed in [&items[..], &injected[2..]] {
        assert_eq!(meshed.len(), pods.len());
        for (document, pod) in meshed.iter().zip(&pods) {
            assert!(is_meshed(document, pod), "{document}");
        }
    }
    let file = written(directory.path(), "injected.yaml", &by_file);
    assert_eq!(
        values(&text(&mesh_lite(&["uninject", "-f", &file], ""))),
        all
    );
}

#[test]
fn one_refused_pod_keeps_everything_from_being_printed() {
    let directory = tempfile::tempdir().unwrap();
    let good = written(directory.path(), "good.json", &workloads()[0].0.to_string());
    let mut pod = workloads()[5].0.clone();
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 15008});
    let bad = written(directory.path(), "bad.json", &pod.to_string());
    let output = mesh_lite(&["inject", "-f", &good, "-f", &bad], "");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(output.stdout, b"");
    assert!(
        said.contains("bad.json") && said.contains("15008"),
        "{said}"
    );
}

#[test]
fn what_can_not_be_read_is_named_and_nothing_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let good = written(directory.path(), "good.json", &workloads()[0].0.to_string());
    let broken = written(directory.path(), "broken.yaml", "kind: [Pod\n");
    let absent = directory.path().join("absent.yaml");
    let absent = absent.to_str().unwrap();
    for command in ["inject", "uninject"] {
        for (file, name) in [(absent, "absent.yaml"), (&broken, "broken.yaml")] {
            let output = mesh_lite(&[command, "-f", &good, "-f", file], "");
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert_eq!(output.stdout, b"");
            assert!(said.contains(name), "{said}");
        }
    }
}
