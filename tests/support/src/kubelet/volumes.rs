//! Volumes as the kubelet makes them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::RunningPod;
use super::environment::field;
use crate::api_server::ApiServer;
use crate::eventually::eventually;

/// End of every token's life: in 2100.
const TOKEN_END: u64 = 4_102_444_800;

/// Directories of a pod's volumes by the volumes' names.
#[derive(Debug)]
pub(super) struct Volumes(HashMap<String, PathBuf>);

impl Volumes {
    pub(super) fn new(pod: &RunningPod<'_>) -> Self {
        let volumes = pod.object["spec"]["volumes"].as_array().cloned();
        let volumes = volumes.unwrap_or_default();
        let made = volumes.iter().map(|volume| {
            let name = volume["name"].as_str().unwrap();
            let directory = pod.directory.join("volumes").join(name);
            fs::create_dir_all(&directory).unwrap();
            fill(pod, volume, &directory);
            (name.to_owned(), directory)
        });
        Self(made.collect())
    }

    pub(super) fn directory(&self, name: &str) -> &Path {
        self.0
            .get(name)
            .unwrap_or_else(|| panic!("no volume {name}: {:?}", self.0.keys()))
    }
}

fn fill(pod: &RunningPod<'_>, volume: &Value, directory: &Path) {
    let group = pod.object["spec"]["securityContext"]["fsGroup"].as_u64();
    let group = group.map(|group| u32::try_from(group).unwrap());
    if let Some(projected) = volume.get("projected") {
        let sources = projected["sources"].as_array().cloned().unwrap_or_default();
        let files = sources.iter().flat_map(|source| projection(pod, source));
        return project(directory, &files.collect::<Vec<_>>(), group);
    }
    for kind in ["configMap", "secret", "downwardAPI"] {
        if let Some(source) = volume.get(kind) {
            let mut source = source.clone();
            if kind == "secret" {
                source["name"] = source["secretName"].take();
            }
            return project(directory, &projection(pod, &json!({kind: source})), group);
        }
    }
    // An emptyDir, or what stands for a disk here: the kubelet makes it so.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    if group.is_some() {
        chown(directory, None, group).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o2777)).unwrap();
    }
}

/// Files of one source of a projected volume: names and contents.
fn projection(pod: &RunningPod<'_>, source: &Value) -> Vec<(String, Vec<u8>)> {
    let metadata = &pod.object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap();
    if let Some(token) = source.get("serviceAccountToken") {
        let path = token["path"].as_str().unwrap().to_owned();
        let audience = token["audience"].as_str().unwrap_or("kubernetes");
        return vec![(path, issue_token(pod, audience).into_bytes())];
    }
    if let Some(downward) = source.get("downwardAPI") {
        let items = downward["items"].as_array().cloned().unwrap_or_default();
        let file = |item: &Value| {
            let path = item["fieldRef"]["fieldPath"].as_str().unwrap_or_default();
            let text = field(&pod.object, pod.at, path);
            (item["path"].as_str().unwrap().to_owned(), text.into_bytes())
        };
        return items.iter().map(file).collect();
    }
    let (kind, wanted) = match (source.get("configMap"), source.get("secret")) {
        (Some(wanted), _) => ("ConfigMap", wanted),
        (_, Some(wanted)) => ("Secret", wanted),
        _ => panic!("{source}: this volume is not played here"),
    };
    let name = wanted["name"].as_str().unwrap();
    // Every namespace has this one; its content is the API server's matter.
    if name == "kube-root-ca.crt" && pod.api.get(kind, namespace, name).is_none() {
        return vec![("ca.crt".to_owned(), Vec::new())];
    }
    let files = if wanted["optional"] == true {
        pod.api
            .get(kind, namespace, name)
            .map(|_| files_of(pod.api, kind, namespace, name))
    } else {
        // The containers wait until it is there.
        let what = format!(
            "{kind} {namespace}/{name} is there for {}",
            metadata["name"]
        );
        eventually(&what, || {
            pod.api.get(kind, namespace, name).ok_or("it is not")
        });
        Some(files_of(pod.api, kind, namespace, name))
    };
    let files = files.unwrap_or_default();
    match wanted["items"].as_array() {
        None => files,
        Some(items) => items.iter().map(|item| chosen(&files, item)).collect(),
    }
}

fn chosen(files: &[(String, Vec<u8>)], item: &Value) -> (String, Vec<u8>) {
    let key = item["key"].as_str().unwrap();
    let found = files.iter().find(|(name, _)| name == key);
    let (_, content) = found.unwrap_or_else(|| panic!("no key {key}"));
    (item["path"].as_str().unwrap().to_owned(), content.clone())
}

/// Keys and contents of a Secret.
pub fn secret_files(api: &ApiServer, namespace: &str, name: &str) -> Vec<(String, Vec<u8>)> {
    files_of(api, "Secret", namespace, name)
}

fn files_of(api: &ApiServer, kind: &str, namespace: &str, name: &str) -> Vec<(String, Vec<u8>)> {
    let object = api.get(kind, namespace, name);
    let object = object.unwrap_or_else(|| panic!("no {kind} {namespace}/{name}"));
    let data = object["data"].as_object().cloned().unwrap_or_default();
    let content = |text: &Value| {
        let text = text.as_str().unwrap();
        if kind == "Secret" {
            from_base64(text)
        } else {
            text.as_bytes().to_vec()
        }
    };
    data.iter()
        .map(|(key, text)| (key.clone(), content(text)))
        .collect()
}

/// Writes files as a projected volume has them: links to links to a directory that is replaced
/// as a whole, so that no reader sees files of two generations.
pub fn project(directory: &Path, files: &[(String, Vec<u8>)], group: Option<u32>) {
    let generations = fs::read_dir(directory).unwrap().count();
    let generation = format!("..generation-{generations}");
    for (path, content) in files {
        let file = directory.join(&generation).join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        let mode = if group.is_some() { 0o640 } else { 0o644 };
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chown(&file, Some(0), group).unwrap();
        let first = path.split('/').next().unwrap();
        let _ = symlink(format!("..data/{first}"), directory.join(first));
    }
    fs::create_dir_all(directory.join(&generation)).unwrap();
    let next = directory.join("..data_tmp");
    symlink(&generation, &next).unwrap();
    fs::rename(next, directory.join("..data")).unwrap();
}

/// A token of the pod's service account that the scripted API server knows; its signature is
/// none.
fn issue_token(pod: &RunningPod<'_>, audience: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("default").to_owned();
    let namespace = text(&pod.object["metadata"]["namespace"]);
    let account = text(&pod.object["spec"]["serviceAccountName"]);
    let claims = json!({"aud": [audience], "exp": TOKEN_END, "iat": 1, "nbf": 1,
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {"namespace": namespace,
            "pod": {"name": pod.name(), "uid": pod.uid()},
            "serviceaccount": {"name": account, "uid": "1"}}});
    let url_safe = |bytes: &[u8]| {
        let text = crate::api_server::base64(bytes);
        text.trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_")
    };
    let header = json!({"alg": "ES256", "kid": "scripted", "typ": "JWT"}).to_string();
    let claims = claims.to_string();
    let parts = [header.as_bytes(), claims.as_bytes(), b"no signature"].map(url_safe);
    let token = parts.join(".");
    if audience == "mesh-lite" {
        pod.api
            .pod_token(&token, (&namespace, &account), (pod.name(), pod.uid()));
    }
    token
}

/// Of a Secret's data.
pub fn from_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} in base64"),
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').collect();
    let mut bytes = Vec::new();
    for chunk in digits.chunks(4) {
        let number = chunk
            .iter()
            .fold(0_u32, |number, byte| (number << 6) | value(*byte));
        let number = number << (6 * (4 - chunk.len()));
        let whole = chunk.len() * 6 / 8;
        bytes.extend(number.to_be_bytes().iter().skip(1).take(whole));
    }
    bytes
}
