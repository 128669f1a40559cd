//! The volumes that a sidecar brings along, and who mounts them.

use mesh_lite_proto::kubernetes::{
    API_TOKEN_DIR, FILES_DIR, FILES_VOLUME, NO_API_TOKEN_VOLUME, STATE_DIR, STATE_VOLUME,
    TOKEN_AUDIENCE, TOKEN_DIR, TOKEN_FILE, TOKEN_LIFETIME, TOKEN_VOLUME, TRUST_BUNDLE_CONFIG_MAP,
    TRUST_BUNDLE_DIR, TRUST_BUNDLE_KEY, TRUST_BUNDLE_VOLUME,
};
use serde_json::{Value, json};

/// Of every injected pod. [`FILES_VOLUME`] is there only if it was asked for.
pub(crate) const OWN_VOLUMES: [&str; 4] = [
    STATE_VOLUME,
    TOKEN_VOLUME,
    TRUST_BUNDLE_VOLUME,
    NO_API_TOKEN_VOLUME,
];

/// Room for key, certificates, and all policies and endpoints that a sidecar may keep. It counts
/// as memory of the pod, so it is bounded.
const STATE_SIZE: &str = "16Mi";
/// A key, a chain and a bundle, old and new.
const FILES_SIZE: &str = "1Mi";
/// Nothing is ever written there.
const EMPTY_SIZE: &str = "4Ki";
/// Read by all, as Kubernetes has it by default (0644): the kubelet narrows it where `fsGroup` is
/// set, and the sidecar then has that group.
const READABLE: u32 = 420;

/// In memory only: neither keys nor a local disk that would keep a node from being emptied.
fn in_memory(name: &str, size: &str) -> Value {
    json!({"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}})
}

/// Every default that the API server would fill in is written, so that nothing changes on the way.
pub(crate) fn volumes(with_files: bool) -> Vec<Value> {
    let token = json!({
        "audience": TOKEN_AUDIENCE,
        "expirationSeconds": TOKEN_LIFETIME,
        "path": TOKEN_FILE,
    });
    let mut volumes = vec![
        in_memory(STATE_VOLUME, STATE_SIZE),
        json!({
            "name": TOKEN_VOLUME,
            "projected": {"defaultMode": READABLE, "sources": [{"serviceAccountToken": token}]},
        }),
        // not optional: without it the sidecar could not tell the control plane from anybody else
        json!({
            "name": TRUST_BUNDLE_VOLUME,
            "configMap": {
                "name": TRUST_BUNDLE_CONFIG_MAP,
                "items": [{"key": TRUST_BUNDLE_KEY, "path": TRUST_BUNDLE_KEY}],
                "defaultMode": READABLE,
                "optional": false,
            },
        }),
        in_memory(NO_API_TOKEN_VOLUME, EMPTY_SIZE),
    ];
    if with_files {
        volumes.push(in_memory(FILES_VOLUME, FILES_SIZE));
    }
    volumes
}

fn mount(name: &str, path: &str, read_only: bool) -> Value {
    if read_only {
        json!({"name": name, "mountPath": path, "readOnly": true})
    } else {
        json!({"name": name, "mountPath": path})
    }
}

/// What every container of ours mounts: the state, and nothing where the application's API token
/// would be, or Kubernetes would put it there.
pub(crate) fn own_mounts() -> Vec<Value> {
    vec![
        mount(STATE_VOLUME, STATE_DIR, false),
        mount(NO_API_TOKEN_VOLUME, API_TOKEN_DIR, true),
    ]
}

/// What the sidecar mounts beside that.
pub(crate) fn sidecar_mounts(with_files: bool) -> Vec<Value> {
    let mut mounts = own_mounts();
    mounts.push(mount(TOKEN_VOLUME, TOKEN_DIR, true));
    mounts.push(mount(TRUST_BUNDLE_VOLUME, TRUST_BUNDLE_DIR, true));
    if with_files {
        mounts.push(mount(FILES_VOLUME, FILES_DIR, false));
    }
    mounts
}

/// What a container of the application mounts that asked for files.
pub(crate) fn files_mount() -> Value {
    mount(FILES_VOLUME, FILES_DIR, true)
}
