//! Volumes in memory must not keep a node from being emptied: the cluster autoscaler is told that
//! ours may go.

use serde_json::{Map, Value};

const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// Adds our volumes to those of the pod's author.
pub(super) fn allow(annotations: &mut Map<String, Value>, volumes: &[String]) {
    if volumes.is_empty() {
        return;
    }
    let written = annotations.get(SAFE_TO_EVICT).and_then(Value::as_str);
    let list = written
        .into_iter()
        .filter(|written| !written.is_empty())
        .chain(volumes.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(",");
    annotations.insert(SAFE_TO_EVICT.to_owned(), list.into());
}

/// The reverse: what is left is the author's, as it was written.
pub(super) fn forget(annotations: &mut Map<String, Value>, volumes: &[String]) {
    let Some(written) = annotations.get(SAFE_TO_EVICT).and_then(Value::as_str) else {
        return;
    };
    let left = written
        .split(',')
        .filter(|name| !volumes.iter().any(|volume| volume == name.trim()))
        .collect::<Vec<_>>()
        .join(",");
    if left.is_empty() {
        annotations.remove(SAFE_TO_EVICT);
    } else if left.len() != written.len() {
        annotations.insert(SAFE_TO_EVICT.to_owned(), left.into());
    }
}
