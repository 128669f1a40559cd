//! The four kinds of patch. Apply keeps no owners of fields: it merges, and replaces lists but
//! for those whose items have a name or a type.

use serde_json::{Value, json};

use super::failure::Failure;

pub(super) fn patched(content_type: &str, before: &Value, body: &[u8]) -> Result<Value, Failure> {
    let bad = |error: serde_json::Error| Failure::bad_request(format!("patch: {error}"));
    let mut object = before.clone();
    match content_type.split(';').next().unwrap_or_default() {
        "application/merge-patch+json" => {
            json_patch::merge(&mut object, &serde_json::from_slice(body).map_err(bad)?);
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(body).map_err(bad)?;
            json_patch::patch(&mut object, &patch)
                .map_err(|error| Failure::invalid(format!("the patch does not apply: {error}")))?;
        }
        "application/apply-patch+yaml" | "application/strategic-merge-patch+json" => {
            let wanted: Value = serde_json::from_slice(body).map_err(bad)?;
            merge(&mut object, wanted);
        }
        other => {
            return Err(Failure::plain(
                415,
                "UnsupportedMediaType",
                format!("the body of the request was in an unknown format: {other}"),
            ));
        }
    }
    Ok(object)
}

fn merge(into: &mut Value, wanted: Value) {
    match (into, wanted) {
        (Value::Object(into), Value::Object(wanted)) => {
            for (name, value) in wanted {
                if value.is_null() {
                    into.remove(&name);
                } else {
                    merge(into.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(wanted))
            if wanted.iter().all(|item| id(item).is_some()) =>
        {
            for item in wanted {
                match into.iter_mut().find(|present| id(present) == id(&item)) {
                    Some(present) => merge(present, item),
                    None => into.push(item),
                }
            }
        }
        (into, wanted) => *into = wanted,
    }
}

/// What tells items of a list apart.
fn id(item: &Value) -> Option<&Value> {
    ["type", "name"].iter().find_map(|name| item.get(name))
}

/// As `Accept: …;as=PartialObjectMetadata` asks for it.
pub(super) fn metadata_only(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": object["metadata"]})
}
