//! Each captured AdmissionReview, and what is answered: `<name>.request.json` as the API server
//! sent it (our names instead of the measurement's), and beside it `<name>.outcome.json`.
//!
//! ```text
//!   <name>.namespace.json  what the namespace says; without it, that its pods are in the mesh
//!   <name>.late.json       the request is injected, these containers are added, and it comes again
//!   foreign-<name>         the captured original: an injector's that is not ours
//!   spoofed-<name>         another injector's work under our names
//! ```
//! `UPDATE_GOLDEN=1` writes the outcomes anew. Read them before they are committed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, Pod, Sysctl, Volume};
use mesh_lite_injector::{
    admission_review::{AdmissionRequest, Answer, Outcome},
    injection_decision::without_injection,
    mesh_settings::MeshSettings,
    namespace_facts::NamespaceFacts,
};
use serde_json::{Value, json};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn settings() -> MeshSettings {
    let mut settings = MeshSettings::with_image("registry.example.com/mesh-lite:1").unwrap();
    settings.version = "1.2.3".to_owned();
    settings
}

fn json_file(name: &str) -> Option<Value> {
    let text = fs::read_to_string(directory().join(name)).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// One golden pair.
struct Case {
    name: String,
    /// Without what a request that comes again adds.
    first: Value,
    late: Option<Vec<Value>>,
    namespace: NamespaceFacts,
}

fn cases() -> Vec<Case> {
    let mut names: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".request.json")?.to_owned())
        })
        .collect();
    names.sort();
    assert!(names.len() > 30, "{}", names.len());
    names.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(name: String) -> Self {
        let enabled = json!({"labels": {"mesh-lite.io/inject": "enabled"}, "annotations": {}});
        let namespace = json_file(&format!("{name}.namespace.json")).unwrap_or(enabled);
        let map = |key: &str| -> BTreeMap<String, String> {
            serde_json::from_value(namespace[key].clone()).unwrap()
        };
        let (labels, annotations) = (map("labels"), map("annotations"));
        let facts = NamespaceFacts::new(texts(&labels), texts(&annotations));
        Self {
            first: json_file(&format!("{name}.request.json")).unwrap(),
            late: json_file(&format!("{name}.late.json"))
                .map(|late| late.as_array().unwrap().clone()),
            namespace: facts,
            name,
        }
    }

    /// The request whose answer is written down.
    fn request(&self) -> Value {
        let Some(late) = &self.late else {
            return self.first.clone();
        };
        let mut again = self.first.clone();
        let mut pod = patched(&self.first, &self.answer(&self.first)).unwrap();
        let containers = pod["spec"]["containers"].as_array_mut().unwrap();
        containers.extend(late.iter().cloned());
        again["request"]["object"] = pod;
        again
    }

    fn answer(&self, review: &Value) -> Answer {
        let body = serde_json::to_vec(review).unwrap();
        AdmissionRequest::parse(&body)
            .unwrap()
            .answer(&settings(), &self.namespace)
    }
}

fn texts(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

/// The pod after the patch of an answer, as the API server applies it; `None` without a patch.
fn patched(review: &Value, answer: &Answer) -> Option<Value> {
    let patch: json_patch::Patch = serde_json::from_slice(answer.review.response.patch()?).unwrap();
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    Some(pod)
}

/// What is written down of an answer.
fn shown(review: &Value, answer: &Answer) -> Value {
    let response = &answer.review.response;
    let mut shown = json!({
        "allowed": response.allowed,
        "decision": answer.outcome.as_str(),
        "reason": answer.outcome.reason(),
        "warnings": response.warnings,
    });
    if let Some(status) = &response.status {
        let lines: Vec<&str> = status.message.lines().collect();
        shown["message"] = json!(lines);
    }
    if let Some(patch) = response.patch() {
        shown["patch"] = serde_json::from_slice(patch).unwrap();
        shown["pod"] = patched(review, answer).unwrap();
    }
    shown
}

#[test]
fn every_captured_request_gets_the_answer_that_is_written_down() {
    let mut wrong = Vec::new();
    for case in cases() {
        let request = case.request();
        let is = shown(&request, &case.answer(&request));
        let file = directory().join(format!("{}.outcome.json", case.name));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, serde_json::to_string_pretty(&is).unwrap() + "\n").unwrap();
            continue;
        }
        let expected: Value = fs::read_to_string(&file)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        if is != expected {
            wrong.push(format!(
                "{}:\n{}",
                case.name,
                serde_json::to_string_pretty(&is).unwrap()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn an_outcome_without_its_request_is_left_from_before() {
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        for ending in [".outcome.json", ".late.json", ".namespace.json"] {
            if let Some(case) = name.strip_suffix(ending) {
                let request = directory().join(format!("{case}.request.json"));
                assert!(request.exists(), "{name}");
            }
        }
    }
}

/// Whoever is called again, because another webhook changed something, changes nothing more.
#[test]
fn a_second_pass_leaves_every_patched_pod_unchanged() {
    let mut seen = 0;
    for case in cases() {
        let request = case.request();
        let Some(pod) = patched(&request, &case.answer(&request)) else {
            continue;
        };
        let mut again = request.clone();
        again["request"]["object"] = pod;
        let answer = case.answer(&again);
        assert!(answer.review.response.allowed, "{}", case.name);
        assert!(
            answer.review.response.patch().is_none(),
            "{}: {:#}",
            case.name,
            shown(&again, &answer)
        );
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn taking_the_sidecar_away_gives_every_pod_as_it_came() {
    for case in cases().into_iter().filter(|case| case.late.is_none()) {
        if let Some(pod) = patched(&case.first, &case.answer(&case.first)) {
            let original = &case.first["request"]["object"];
            assert_eq!(without_injection(&pod), *original, "{}", case.name);
        }
    }
}

/// The API server drops fields that it does not know, without a word.
#[test]
fn every_field_of_ours_is_one_that_kubernetes_knows() {
    fn known<T: serde::Serialize + serde::de::DeserializeOwned>(value: &Value, of: &str) {
        let typed: T = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&typed).unwrap(), *value, "{of}");
    }
    let ours = |entry: &&Value| entry["name"].as_str().unwrap().starts_with("mesh-lite-");
    for case in cases() {
        let request = case.request();
        let answer = case.answer(&request);
        let Some(pod) = patched(&request, &answer) else {
            continue;
        };
        let _: Pod = serde_json::from_value(pod.clone()).unwrap();
        if answer.outcome != Outcome::Injected {
            continue;
        }
        let list = |name: &str| pod["spec"][name].as_array().unwrap().clone();
        let (containers, volumes) = (list("initContainers"), list("volumes"));
        assert!(containers.iter().filter(ours).count() >= 1);
        for container in containers.iter().filter(ours) {
            known::<Container>(container, &case.name);
        }
        assert!(volumes.iter().filter(ours).count() >= 4);
        for volume in volumes.iter().filter(ours) {
            known::<Volume>(volume, &case.name);
        }
        for sysctl in pod["spec"]["securityContext"]["sysctls"]
            .as_array()
            .unwrap()
        {
            known::<Sysctl>(sysctl, &case.name);
        }
        for container in list("containers") {
            known_but_for_unknown(&container, &case.name);
        }
    }
}

/// A container of the application: Kubernetes reads its probes.
fn known_but_for_unknown(container: &Value, of: &str) {
    let typed: Container = serde_json::from_value(container.clone()).unwrap();
    let again = serde_json::to_value(&typed).unwrap();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(again[probe], container[probe], "{of}");
    }
}

/// The rules are there before anything connects, the sidecar before anything of the application.
#[test]
fn redirect_comes_first_and_the_sidecar_second_whoever_else_adds_containers() {
    for case in cases() {
        let request = case.request();
        let answer = case.answer(&request);
        if answer.outcome != Outcome::Injected {
            continue;
        }
        let pod =
            patched(&request, &answer).unwrap_or_else(|| request["request"]["object"].clone());
        let names: Vec<&str> = pod["spec"]["initContainers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|container| container["name"].as_str().unwrap())
            .collect();
        if case.name == "pod-restricted-explicit" {
            assert_eq!(names.first(), Some(&"mesh-lite-proxy"), "{names:?}");
        } else {
            assert!(
                names.starts_with(&["mesh-lite-redirect", "mesh-lite-proxy"]),
                "{}: {names:?}",
                case.name
            );
        }
    }
}

/// What the patch takes away is ours, or a probe's old way of asking.
#[test]
fn nothing_of_the_applications_is_removed() {
    for case in cases() {
        let request = case.request();
        let answer = case.answer(&request);
        let Some(patch) = answer.review.response.patch() else {
            continue;
        };
        let patch: Value = serde_json::from_slice(patch).unwrap();
        for operation in patch.as_array().unwrap() {
            if operation["op"] != "remove" {
                continue;
            }
            let path = operation["path"].as_str().unwrap();
            assert!(
                ["/tcpSocket", "/grpc", "/httpGet/httpHeaders"]
                    .iter()
                    .any(|end| path.ends_with(end)),
                "{}: {path}",
                case.name
            );
        }
    }
}

/// `kubectl apply --dry-run=server` shows what would be.
#[test]
fn a_dry_run_is_answered_as_the_real_request() {
    for case in cases() {
        let mut dry = case.request();
        let real = case.answer(&dry);
        dry["request"]["dryRun"] = json!(true);
        assert_eq!(
            case.answer(&dry).to_json().unwrap(),
            real.to_json().unwrap(),
            "{}",
            case.name
        );
    }
}
