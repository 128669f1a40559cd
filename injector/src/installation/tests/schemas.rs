//! Schemas of the custom resources.

use serde_json::Map;

use super::*;

/// The API server takes them in no schema.
const NEVER: [&str; 13] = [
    "$ref",
    "if",
    "then",
    "else",
    "const",
    "propertyNames",
    "patternProperties",
    "$defs",
    "definitions",
    "default",
    "$schema",
    "examples",
    "dependencies",
];

/// What the API server demands of a structural schema, and what we do so that no field is lost.
fn judge_schema(node: &Value, path: &str, within_logic: bool) {
    let Some(fields) = node.as_object() else {
        return;
    };
    for (key, value) in fields {
        let place = format!("{path}.{key}");
        assert!(!NEVER.contains(&key.as_str()), "{place}");
        match key.as_str() {
            "properties" => {
                assert!(
                    within_logic
                        || node["x-kubernetes-preserve-unknown-fields"] == true
                        || path.contains(".status."),
                    "{path} would lose fields"
                );
                for (name, node) in value.as_object().unwrap() {
                    judge_schema(node, &format!("{place}.{name}"), within_logic);
                }
            }
            "items" | "additionalProperties" => {
                assert!(value.is_object(), "{place}");
                judge_schema(value, &place, within_logic);
            }
            "not" => judge_schema(value, &place, true),
            "anyOf" | "oneOf" | "allOf" => {
                for node in value.as_array().unwrap() {
                    judge_schema(node, &place, true);
                }
            }
            _ => {}
        }
    }
    judge_type(fields, path, within_logic);
}

/// What has a type says it once, and nothing within logic does.
fn judge_type(fields: &Map<String, Value>, path: &str, within_logic: bool) {
    let has = |key: &str| fields.contains_key(key);
    if within_logic {
        for banned in ["type", "description", "additionalProperties", "nullable"] {
            assert!(!has(banned), "{path} within logic: {banned}");
        }
    } else {
        let typed = fields.get("type").is_some_and(Value::is_string);
        assert!(
            typed != has("x-kubernetes-int-or-string"),
            "{path}: {fields:?}"
        );
        assert!(!(has("properties") && has("additionalProperties")));
    }
}

#[test]
fn schemas_are_structural_and_lose_no_unknown_field() {
    let definitions = custom_resource_definitions();
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        assert_eq!(schema["required"], json!(["spec"]));
        let mut judged = schema.clone();
        // the API server's own
        judged["properties"]
            .as_object_mut()
            .unwrap()
            .remove("metadata");
        judge_schema(&judged, name(&definition), false);
        assert!(version["subresources"]["status"].is_object());
        for column in ["Loaded", "Reason", "Age"] {
            assert!(
                version["additionalPrinterColumns"]
                    .to_string()
                    .contains(column)
            );
        }
    }
}

#[test]
fn ports_without_a_selector_are_refused_in_words() {
    let definitions = custom_resource_definitions();
    let of = |kind: &str| {
        let mut all = definitions.iter();
        let found = all.find(|found| found["spec"]["names"]["kind"] == kind);
        found.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            .clone()
    };
    let spec = of("PeerAuthentication");
    let rules = spec["x-kubernetes-validations"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    let message = rules[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("portLevelMtls needs a selector"),
        "{message}"
    );
    assert!(
        spec.get("allOf").is_none(),
        "its own words would come first, and alone"
    );
    assert!(
        of("AuthorizationPolicy")
            .get("x-kubernetes-validations")
            .is_none()
    );
}
