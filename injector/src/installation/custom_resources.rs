//! CustomResourceDefinitions, from the same schema that editors use.
//!
//! The API server drops fields that a schema does not name before anybody sees them. A rule that
//! loses a field it does not know is wider than what was written, so every object of ours keeps
//! unknown fields: the control plane refuses them, with the line, in the object's status.

use mesh_lite_proto::kubernetes::{API_GROUP, API_VERSION};
use serde_json::{Map, Value, json};

use super::parts::labels;

const SCHEMA: &str = include_str!("../../../deploy/schema/mesh-lite.io-v1.json");
const KEEP_UNKNOWN: &str = "x-kubernetes-preserve-unknown-fields";

/// A kind, its plural, and a column of its own: title and path.
const KINDS: [(&str, &str, (&str, &str)); 3] = [
    (
        "AuthorizationPolicy",
        "authorizationpolicies",
        ("Action", ".spec.action"),
    ),
    (
        "PeerAuthentication",
        "peerauthentications",
        ("Mode", ".spec.mtls.mode"),
    ),
    ("Eviction", "evictions", ("Until", ".spec.until")),
];

/// One for each kind that a cluster takes. Workloads and services are the cluster's own there.
pub fn custom_resource_definitions() -> Vec<Value> {
    let schema = whole_schema();
    let definitions = schema.get("$defs").cloned().unwrap_or_default();
    let kinds = KINDS.into_iter();
    kinds
        .map(|(kind, plural, column)| definition(kind, plural, column, &definitions))
        .collect()
}

#[expect(
    clippy::expect_used,
    reason = "it is part of this program, and tests parse it"
)]
fn whole_schema() -> Value {
    serde_json::from_str(SCHEMA).expect("the schema of documents is JSON")
}

fn definition(kind: &str, plural: &str, column: (&str, &str), definitions: &Value) -> Value {
    let singular = kind.to_ascii_lowercase();
    let spec = definitions.get(kind).cloned().unwrap_or_default();
    let description = spec.get("description").cloned().unwrap_or_default();
    let (title, path) = column;
    let mut structure = structural(&spec, definitions);
    if kind == "PeerAuthentication" {
        with_words_for_ports(&mut structure);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{API_GROUP}"), "labels": labels("policy")},
        "spec": {
            "group": API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": singular,
                "categories": ["mesh-lite"],
            },
            "versions": [{
                "name": API_VERSION,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": title, "type": "string", "jsonPath": path},
                    {
                        "name": "Loaded", "type": "string",
                        "description": "Whether the control plane took it.",
                        "jsonPath": r#".status.conditions[?(@.type=="Loaded")].status"#,
                    },
                    {
                        "name": "Reason", "type": "string",
                        "jsonPath": r#".status.conditions[?(@.type=="Loaded")].reason"#,
                    },
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "description": description,
                    "type": "object",
                    KEEP_UNKNOWN: true,
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": structure,
                        "status": status(),
                    },
                }},
            }],
        },
    })
}

/// What the schema's only `if` asks for, as a rule with words of its own: the API server's for a
/// failed `anyOf` name neither field.
fn with_words_for_ports(spec: &mut Value) {
    let Some(fields) = spec.as_object_mut() else {
        return;
    };
    // a rule is not looked at while the structure is wrong
    fields.remove("allOf");
    let rule = "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) \
                && size(self.selector.matchLabels) > 0)";
    let message = "portLevelMtls needs a selector with matchLabels: ports mean something for one workload only";
    fields.insert(
        "x-kubernetes-validations".to_owned(),
        json!([{"rule": rule, "message": message}]),
    );
}

/// Written by the control plane alone, so nothing in it is refused.
fn status() -> Value {
    json!({
        "description": "Whether the control plane took it; if not, why and in which line.",
        "type": "object",
        KEEP_UNKNOWN: true,
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64"},
            "conditions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["type", "status"],
                    "properties": {
                        "type": {"type": "string"},
                        "status": {"type": "string"},
                        "reason": {"type": "string"},
                        "message": {"type": "string"},
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                    },
                },
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "lastLoaded": {
                "description": "What loaded last. It stays in force while the object is broken, \
                    also in a control plane that starts later.",
                "type": "object",
                "properties": {
                    "generation": {"type": "integer", "format": "int64"},
                    "document": {"type": "string"},
                },
            },
        },
    })
}

/// What `$ref` leads to, with the node's own words over it.
fn resolved(node: &Value, definitions: &Value) -> Map<String, Value> {
    let own = node.as_object().cloned().unwrap_or_default();
    let target = own
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix("#/$defs/"))
        .and_then(|name| definitions.get(name));
    let Some(target) = target else {
        return own;
    };
    let mut fields = resolved(target, definitions);
    fields.extend(own.into_iter().filter(|(key, _)| key != "$ref"));
    fields
}

/// The node as Kubernetes wants it: types outside of logic, no references, nothing that would
/// make the API server drop or add a field.
fn structural(node: &Value, definitions: &Value) -> Value {
    let fields = resolved(node, definitions);
    if let Some(either) = number_or_text(&fields) {
        return either;
    }
    let mut made = Map::new();
    let mut rules = Vec::new();
    for (key, value) in &fields {
        match key.as_str() {
            "type" => set_type(&mut made, value),
            "properties" => {
                let nodes = value.as_object().into_iter().flatten();
                let nodes = nodes.map(|(name, node)| (name.clone(), structural(node, definitions)));
                made.insert("properties".to_owned(), Value::Object(nodes.collect()));
                made.insert(KEEP_UNKNOWN.to_owned(), Value::Bool(true));
            }
            "items" => {
                made.insert(key.clone(), structural(value, definitions));
            }
            "additionalProperties" if value.is_object() => {
                made.insert(key.clone(), structural(value, definitions));
            }
            "if" => rules.push(implication(value, fields.get("then"), definitions)),
            // a default would be written into people's objects; names of properties can't be
            // judged by such a schema, and are by the control plane
            "additionalProperties" | "default" | "propertyNames" | "then" => {}
            "anyOf" | "oneOf" | "allOf" | "not" | "const" | "enum" => {
                insert_validation(&mut made, key, value, definitions);
            }
            _ => {
                made.insert(key.clone(), value.clone());
            }
        }
    }
    if !rules.is_empty() {
        made.insert("allOf".to_owned(), Value::Array(rules));
    }
    if !made.contains_key("type") {
        // words by list, and texts of either form
        made.insert("type".to_owned(), Value::from("string"));
    }
    Value::Object(made)
}

/// `[object, null]` is an object that may be null.
fn set_type(made: &mut Map<String, Value>, value: &Value) {
    let Some(kinds) = value.as_array() else {
        made.insert("type".to_owned(), value.clone());
        return;
    };
    for kind in kinds {
        if kind == "null" {
            made.insert("nullable".to_owned(), Value::Bool(true));
        } else {
            made.insert("type".to_owned(), kind.clone());
        }
    }
}

/// A number or a text, each with rules of its own; rules for the one are not asked of the other.
fn number_or_text(fields: &Map<String, Value>) -> Option<Value> {
    let forms = fields.get("anyOf")?.as_array()?;
    let of = |kind: &str| {
        let mut of_kind = forms
            .iter()
            .filter(|form| form.get("type").is_some_and(|t| t == kind));
        of_kind.next()?.as_object()
    };
    let (number, text) = (of("integer")?, of("string")?);
    let mut made = Map::new();
    made.extend(
        number
            .iter()
            .chain(text)
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    made.remove("type");
    made.insert("x-kubernetes-int-or-string".to_owned(), Value::Bool(true));
    if let Some(description) = fields.get("description") {
        made.insert("description".to_owned(), description.clone());
    }
    Some(Value::Object(made))
}

/// If A then B: not A, or B.
fn implication(condition: &Value, then: Option<&Value>, definitions: &Value) -> Value {
    let then = then.cloned().unwrap_or_default();
    json!({"anyOf": [
        {"not": validation(condition, definitions)},
        validation(&then, definitions),
    ]})
}

fn insert_validation(made: &mut Map<String, Value>, key: &str, value: &Value, definitions: &Value) {
    match key {
        "const" => made.insert("enum".to_owned(), json!([value])),
        "not" => made.insert(key.to_owned(), validation(value, definitions)),
        "anyOf" | "oneOf" | "allOf" => {
            let forms = value.as_array().into_iter().flatten();
            let forms = forms.map(|form| validation(form, definitions));
            made.insert(key.to_owned(), forms.collect())
        }
        _ => made.insert(key.to_owned(), value.clone()),
    };
}

/// A node within logic: only what judges values, neither types nor words.
fn validation(node: &Value, definitions: &Value) -> Value {
    let fields = resolved(node, definitions);
    let mut made = Map::new();
    for (key, value) in &fields {
        match key.as_str() {
            "type" | "description" | "default" | "additionalProperties" | "propertyNames" => {}
            "properties" => {
                let nodes = value.as_object().into_iter().flatten();
                let nodes = nodes.map(|(name, node)| (name.clone(), validation(node, definitions)));
                made.insert(key.clone(), Value::Object(nodes.collect()));
            }
            _ => insert_validation(&mut made, key, value, definitions),
        }
    }
    Value::Object(made)
}
