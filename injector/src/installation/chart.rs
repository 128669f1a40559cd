//! A Helm chart of the same objects: what is a choice at `install` is a value there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    VERSION,
    choice::{Condition, Text, conditional},
    custom_resources::custom_resource_definitions,
    parts::{self, Part},
    yaml,
};

/// The files of the chart, by their path in it.
pub fn chart() -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([
        ("Chart.yaml".to_owned(), description()),
        (
            "values.yaml".to_owned(),
            VALUES.replace("@VERSION@", VERSION),
        ),
        ("values.schema.json".to_owned(), VALUES_SCHEMA.to_owned()),
    ]);
    for object in custom_resource_definitions() {
        // Helm never deletes what is in this directory: nor the policies with their kinds
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let path = format!("crds/{}.yaml", name.unwrap_or_default());
        files.insert(path, yaml::to_text(&object));
    }
    for part in parts::all().into_iter().filter(|part| part.file != "crds") {
        let path = format!("templates/{}.yaml", part.file);
        files.entry(path).or_default().push_str(&template(&part));
    }
    files
}

fn description() -> String {
    format!(
        "apiVersion: v2\n\
         name: mesh-lite\n\
         description: Between pods, every TCP byte under mutual TLS, every caller known, every access decided.\n\
         type: application\n\
         version: {VERSION}\n\
         appVersion: {VERSION}\n\
         kubeVersion: \">=1.33.0-0\"\n"
    )
}

fn template(part: &Part) -> String {
    let mut text = "---\n".to_owned();
    for condition in part.conditions {
        text.push_str(&format!("{{{{- if {} }}}}\n", value_of(*condition)));
    }
    text.push_str(&yaml::to_template(&part.object, |entry| {
        let (condition, part) = conditional(entry)?;
        Some((value_of(condition), part))
    }));
    for _ in part.conditions {
        text.push_str("{{- end }}\n");
    }
    Text::ALL.into_iter().fold(text, |text, name| {
        text.replace(name.placeholder(), expression(name))
    })
}

/// What Helm asks of its values where `install` has a condition.
const fn value_of(condition: Condition) -> &'static str {
    match condition {
        Condition::Strict => ".Values.strict",
        Condition::Permissive => "not .Values.strict",
        Condition::HighlyAvailable => ".Values.ha",
        Condition::Single => "not .Values.ha",
        Condition::OwnRoot => "not .Values.issuingCaSecret",
        Condition::PluginCa => ".Values.issuingCaSecret",
        Condition::MeshCidrs => ".Values.meshCidrs",
        Condition::ExternalCidrs => ".Values.externalCidrs",
        Condition::ImagePullSecret => ".Values.imagePullSecret",
        Condition::PriorityClass => ".Values.priorityClass",
    }
}

const fn expression(text: Text) -> &'static str {
    match text {
        Text::MeshNamespace => "{{ .Values.meshNamespace }}",
        Text::Image => "{{ .Values.image }}",
        Text::ImagePullPolicy => "{{ .Values.imagePullPolicy }}",
        Text::ImagePullSecret => "{{ .Values.imagePullSecret }}",
        Text::TrustDomain => "{{ .Values.trustDomain }}",
        Text::MeshCidrs => r#"{{ join "," .Values.meshCidrs }}"#,
        Text::ExternalCidrs => r#"{{ join "," .Values.externalCidrs }}"#,
        Text::IssuingCaSecret => "{{ .Values.issuingCaSecret }}",
        Text::PriorityClass => "{{ .Values.priorityClass }}",
        // as `root_jobs::root_init_name`
        Text::RootJob => {
            r#"mesh-lite-root-init-{{ printf "%s %s %s %s" .Values.meshNamespace .Values.image .Values.imagePullPolicy .Values.trustDomain | sha256sum | trunc 8 }}"#
        }
    }
}

const VALUES: &str = "\
# Of the control plane, the injector, and the sidecars that it adds to pods.
image: mesh-lite:@VERSION@
imagePullPolicy: IfNotPresent
# A Secret in the mesh's namespace, for the image of the control plane and the injector.
imagePullSecret: \"\"
# The chart makes this namespace: install the release in another one.
meshNamespace: mesh-lite-system
# Of all identities: spiffe://<trust domain>/ns/<namespace>/sa/<service account>. One for each cluster.
trustDomain: cluster.local
# false: PERMISSIVE, plaintext passes beside mutual TLS. true: STRICT, default DENY, no plaintext out
# to pods without a sidecar.
strict: false
# Two replicas of the control plane.
ha: false
# Addresses inside the mesh, if not as the cluster says: [10.0.0.0/8, \"fd00::/8\"]
meshCidrs: []
# Exceptions from them.
externalCidrs: []
# A Secret in the mesh's namespace with tls.crt, tls.key and ca.crt that somebody else fills and
# renews, as cert-manager does. Without it the mesh makes a root of its own.
issuingCaSecret: \"\"
priorityClass: \"\"
";

/// A value that nobody knows is refused: `stric: true` would be PERMISSIVE otherwise.
const VALUES_SCHEMA: &str = r##"{
  "$schema": "http://json-schema.org/draft-07/schema#",
  "title": "Values of the chart of mesh-lite",
  "type": "object",
  "additionalProperties": false,
  "required": ["image", "imagePullPolicy", "meshNamespace", "trustDomain", "strict", "ha"],
  "properties": {
    "global": {"type": "object"},
    "image": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"},
    "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "imagePullSecret": {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"},
    "meshNamespace": {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"},
    "trustDomain": {"type": "string", "maxLength": 255, "pattern": "^[a-z0-9._-]+$"},
    "strict": {"type": "boolean"},
    "ha": {"type": "boolean"},
    "meshCidrs": {"type": "array", "items": {"type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]+$"}},
    "externalCidrs": {"type": "array", "items": {"type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]+$"}},
    "issuingCaSecret": {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"},
    "priorityClass": {"type": "string", "pattern": "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"}
  }
}
"##;
