//! Objects, their versions and the history of their changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::failure::Failure;
use super::kinds::Kind;

/// Changes that a watch may still ask for; older ones are answered with 410.
const HISTORY: usize = 20_000;
/// Every object's age. Ages are not this server's matter.
const CREATED: &str = "2026-11-20T00:00:00Z";

/// Kind, namespace (empty: of the cluster), name.
pub(super) type Key = (Kind, String, String);

/// What changed: `before` is absent for a new object, `after` for one that went.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) kind: Kind,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) revision: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
    /// The newest revision that is no longer in the history.
    pub(super) forgotten: u64,
    made: u64,
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All, whatever the kind: a test that puts an object.
    Whole,
    /// All but the status where that is a subresource.
    Object,
    Status,
}

impl Store {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// Objects of a kind, of one namespace or all, in the order of their names.
    pub(super) fn list(&self, kind: Kind, namespace: &str) -> Vec<Arc<Value>> {
        self.objects
            .iter()
            .filter(|((of, at, _), _)| *of == kind && (namespace.is_empty() || at == namespace))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Changes after `revision`, oldest first.
    pub(super) fn changes_since(&self, revision: u64) -> Vec<Change> {
        let from = self
            .history
            .partition_point(|change| change.revision <= revision);
        self.history.range(from..).cloned().collect()
    }

    /// Watches from before now are too old from now on.
    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.revision += 1;
        self.forgotten = self.revision;
    }

    pub(super) fn create(&mut self, kind: Kind, mut object: Value) -> Result<Arc<Value>, Failure> {
        let metadata = &mut object["metadata"];
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            let Some(prefix) = metadata["generateName"].as_str() else {
                return Err(Failure::invalid(
                    "metadata.name: Required value: name or generateName is required",
                ));
            };
            self.made += 1;
            metadata["name"] = json!(format!("{prefix}{:05}", self.made));
        }
        let key = key_of(kind, &object);
        if self.objects.contains_key(&key) {
            return Err(Failure::already_exists(kind, &key.2));
        }
        if kind.status {
            remove(&mut object, "status");
        }
        Ok(self.write(key, object, Part::Whole))
    }

    /// Replaces an object if `object` names no other version than the present one.
    pub(super) fn update(
        &mut self,
        key: Key,
        mut object: Value,
        part: Part,
    ) -> Result<Arc<Value>, Failure> {
        let Some(present) = self.get(&key) else {
            return Err(Failure::not_found(key.0, &key.2));
        };
        let asked = object["metadata"]["resourceVersion"].as_str();
        if asked.is_some_and(|asked| present["metadata"]["resourceVersion"] != asked) {
            return Err(Failure::conflict(key.0, &key.2));
        }
        match part {
            Part::Whole => {}
            Part::Status => {
                let status = object["status"].take();
                object = (*present).clone();
                object["status"] = status;
            }
            Part::Object if key.0.status => match present.get("status") {
                Some(status) => object["status"] = status.clone(),
                None => remove(&mut object, "status"),
            },
            Part::Object => {}
        }
        Ok(self.write(key, object, part))
    }

    /// Stores without asking anything: what a test puts.
    pub(super) fn put(&mut self, kind: Kind, object: Value) -> Arc<Value> {
        self.write(key_of(kind, &object), object, Part::Whole)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.revision += 1;
        let mut last = (*before).clone();
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let last = Arc::new(last);
        self.record(key.0, Some(Arc::clone(&last)), None);
        Some(last)
    }

    fn write(&mut self, key: Key, mut object: Value, part: Part) -> Arc<Value> {
        let before = self.get(&key);
        self.complete(&key, before.as_deref(), &mut object);
        let same = |before: &Arc<Value>| {
            let mut before = (**before).clone();
            before["metadata"]["resourceVersion"] = object["metadata"]["resourceVersion"].clone();
            before == object
        };
        if let Some(before) = before.as_ref().filter(|before| same(before)) {
            return Arc::clone(before);
        }
        if part != Part::Status
            && before
                .as_ref()
                .is_some_and(|old| old["spec"] != object["spec"])
        {
            let generation = before
                .as_ref()
                .and_then(|old| old["metadata"]["generation"].as_u64());
            object["metadata"]["generation"] = json!(generation.unwrap_or(1) + 1);
        }
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        let kind = key.0;
        self.objects.insert(key, Arc::clone(&object));
        self.record(kind, before, Some(Arc::clone(&object)));
        object
    }

    /// Fills in what an API server fills in.
    fn complete(&mut self, key: &Key, before: Option<&Value>, object: &mut Value) {
        object["apiVersion"] = json!(key.0.api_version());
        object["kind"] = json!(key.0.kind);
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(key.2);
        if key.0.namespaced {
            metadata["namespace"] = json!(key.1);
        }
        let kept = |name: &str| before.map(|before| before["metadata"][name].clone());
        if let Some(uid) = kept("uid") {
            metadata["uid"] = uid;
        } else if metadata["uid"].is_null() {
            self.made += 1;
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012}", self.made));
        }
        if metadata["creationTimestamp"].is_null() {
            let created = kept("creationTimestamp").filter(|kept| !kept.is_null());
            metadata["creationTimestamp"] = created.unwrap_or_else(|| json!(CREATED));
        }
        if let Some(generation) = kept("generation").filter(|kept| !kept.is_null()) {
            metadata["generation"] = generation;
        } else if metadata["generation"].is_null() && object.get("spec").is_some() {
            object["metadata"]["generation"] = json!(1);
        }
        if key.0.kind == "Secret" {
            text_into_data(object);
        }
    }

    fn record(&mut self, kind: Kind, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        let revision = self.revision;
        self.history.push_back(Change {
            revision,
            kind,
            before,
            after,
        });
        if self.history.len() > HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }
}

pub(super) fn key_of(kind: Kind, object: &Value) -> Key {
    let text = |name: &str| {
        object["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let namespace = match (kind.namespaced, text("namespace")) {
        (false, _) => String::new(),
        (true, namespace) if namespace.is_empty() => "default".to_owned(),
        (true, namespace) => namespace,
    };
    (kind, namespace, text("name"))
}

fn remove(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

/// `stringData` of a Secret becomes `data`.
fn text_into_data(secret: &mut Value) {
    let Value::Object(texts) = secret["stringData"].take() else {
        remove(secret, "stringData");
        return;
    };
    remove(secret, "stringData");
    for (name, text) in texts {
        secret["data"][name] = json!(base64(text.as_str().unwrap_or_default().as_bytes()));
    }
}

/// RFC 4648, section 4: the form of a Secret's data.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0_u8; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            let at = (number >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() {
                char::from(ALPHABET[at as usize])
            } else {
                '='
            });
        }
    }
    text
}
