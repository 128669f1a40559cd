//! A container's environment, with the downward API in it.

use serde_json::{Value, json};

use crate::network::{NODE_V4, NODE_V6, Pod};

#[derive(Debug)]
pub(super) struct Environment(Vec<(String, String)>);

impl Environment {
    pub(super) fn of(pod: &Value, at: &Pod, container: &Value) -> Self {
        assert!(container["envFrom"].is_null(), "envFrom is not played here");
        let mut environment = Self(Vec::new());
        for entry in container["env"].as_array().into_iter().flatten() {
            let name = entry["name"].as_str().unwrap().to_owned();
            let source = &entry["valueFrom"];
            let value = if let Some(path) = source["fieldRef"]["fieldPath"].as_str() {
                field(pod, at, path)
            } else if let Some(resource) = source["resourceFieldRef"]["resource"].as_str() {
                let path = format!("/resources/{}", resource.replace('.', "/"));
                let value = container.pointer(&path).and_then(Value::as_str);
                value.unwrap_or_default().to_owned()
            } else {
                assert!(source.is_null(), "{name}: {source} is not played here");
                environment.expanded(entry["value"].as_str().unwrap_or_default())
            };
            environment.0.push((name, value));
        }
        environment
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// `$(NAME)` of names that came before is replaced, and `$$` is a `$`.
    pub(super) fn expanded(&self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let named = after
                .strip_prefix('(')
                .and_then(|after| after.split_once(')'));
            let known = named.and_then(|(name, after)| {
                let (_, value) = self.0.iter().rfind(|(known, _)| known == name)?;
                Some((value.as_str(), after))
            });
            let (value, after) = match (known, after.strip_prefix('$')) {
                (Some(known), _) => known,
                (None, Some(after)) => ("$", after),
                (None, None) => ("$", after),
            };
            expanded.push_str(value);
            rest = after;
        }
        expanded + rest
    }
}

/// What the downward API gives.
pub(super) fn field(pod: &Value, at: &Pod, path: &str) -> String {
    let status = json!({"podIP": at.v4.to_string(), "hostIP": NODE_V4.to_string(),
        "hostIPs": format!("{NODE_V4},{NODE_V6}"),
        "podIPs": format!("{},{}", at.v4, at.v6)});
    let found = match path.split_once('[') {
        Some((map, key)) => {
            let key = key.trim_matches(['[', ']', '\'', '"']);
            &pod["metadata"][map.trim_start_matches("metadata.")][key]
        }
        None => match path.split_once('.') {
            Some(("status", name)) => &status[name],
            Some((part, name)) => &pod[part][name],
            None => &Value::Null,
        },
    };
    found.as_str().unwrap_or_default().to_owned()
}
