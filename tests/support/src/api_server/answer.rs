//! What the API server answers to a request: paths, verbs, reviews.

use std::sync::Arc;

use serde_json::{Value, json};

use super::State;
use super::failure::Failure;
use super::kinds::{self, Kind};
use super::patch::{metadata_only, patched};
use super::selector::Selector;
use super::store::{Key, Part, key_of};

/// One request, read to its end.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) accept: String,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let mut named = pairs.filter(|(key, _)| *key == name);
        named.next().map(|(_, value)| unescaped(value))
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.parameter(name).as_deref(), Some("true" | "1"))
    }

    pub(super) fn selector(&self) -> Selector {
        Selector {
            labels: self.parameter("labelSelector").unwrap_or_default(),
            fields: self.parameter("fieldSelector").unwrap_or_default(),
        }
    }

    pub(super) fn metadata_only(&self) -> bool {
        self.accept.contains("as=PartialObjectMetadata")
    }

    fn document(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::bad_request(format!("the body is no JSON: {error}")))
    }
}

/// Percent-encoding and `+`, as query strings have them.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) enum Answer {
    Document(u16, Value),
    Text(String),
    /// Changes of a kind in a namespace (empty: all).
    Watch(Kind, String),
}

/// What a path names.
struct Target {
    kind: Kind,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn key(&self) -> Key {
        let name = self.name.clone().unwrap_or_default();
        (self.kind, self.namespace.clone(), name)
    }
}

pub(super) fn answer(state: &mut State, asked: &Asked) -> Result<Answer, Failure> {
    let parts: Vec<&str> = asked
        .path
        .split('/')
        .filter(|part| !part.is_empty())
        .collect();
    if let Some(page) = state.pages.get(&asked.path) {
        return Ok(Answer::Document(200, page.clone()));
    }
    match parts.as_slice() {
        ["healthz" | "livez" | "readyz", ..] => return Ok(Answer::Text("ok".to_owned())),
        ["version"] => {
            let version = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2",
                "gitCommit": "", "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z",
                "goVersion": "", "compiler": "gc", "platform": "linux/amd64"});
            return Ok(Answer::Document(200, version));
        }
        [.., "tokenreviews"] => return review_token(state, &asked.document()?),
        [.., "selfsubjectaccessreviews"] => {
            let mut review = asked.document()?;
            review["status"] = json!({"allowed": true});
            return Ok(Answer::Document(201, review));
        }
        _ => {}
    }
    if let Some(document) = kinds::discovery(&parts, &state.unserved) {
        return Ok(Answer::Document(200, document));
    }
    let target = target(&parts, &state.unserved).ok_or_else(|| {
        Failure::plain(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    })?;
    match asked.method.as_str() {
        "GET" if target.name.is_some() => read(state, asked, &target),
        "GET" if asked.is_true("watch") => Ok(Answer::Watch(target.kind, target.namespace)),
        "GET" => list(state, asked, &target),
        "POST" => create(state, asked, &target),
        "PUT" => replace(state, asked, &target),
        "PATCH" => patch(state, asked, &target),
        "DELETE" => delete(state, asked, &target),
        method => Err(Failure::plain(405, "MethodNotAllowed", method)),
    }
}

fn target(parts: &[&str], unserved: &[String]) -> Option<Target> {
    let (api_version, rest) = match parts {
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let find = |plural: &str, namespaced: bool| {
        kinds::all().into_iter().find(|kind| {
            kind.plural == plural
                && kind.api_version() == api_version
                && (kind.namespaced || !namespaced)
                && !unserved.iter().any(|hidden| hidden == plural)
        })
    };
    if let ["namespaces", namespace, plural, rest @ ..] = rest
        && let Some(kind) = find(plural, true).filter(|kind| kind.namespaced)
    {
        return Some(Target {
            kind,
            namespace: (*namespace).to_owned(),
            name: rest.first().map(|name| (*name).to_owned()),
            subresource: rest.get(1).map(|name| (*name).to_owned()),
        });
    }
    let (plural, rest) = rest.split_first()?;
    Some(Target {
        kind: find(plural, false)?,
        namespace: String::new(),
        name: rest.first().map(|name| (*name).to_owned()),
        subresource: rest.get(1).map(|name| (*name).to_owned()),
    })
}

fn read(state: &State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let key = target.key();
    let object = state.store.get(&key);
    let object = object.ok_or_else(|| Failure::not_found(key.0, &key.2))?;
    let object = match asked.metadata_only() {
        true => metadata_only(&object),
        false => (*object).clone(),
    };
    Ok(Answer::Document(200, object))
}

/// Pages as `limit` asks for them; the token names the last object given.
fn list(state: &State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let selector = asked.selector();
    let after = asked
        .parameter("continue")
        .filter(|token| !token.is_empty());
    let limit = asked
        .parameter("limit")
        .and_then(|limit| limit.parse().ok());
    let limit: usize = limit.filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let place = |object: &Value| {
        let key = key_of(target.kind, object);
        format!("{}/{}", key.1, key.2)
    };
    let mut objects: Vec<Arc<Value>> = state
        .store
        .list(target.kind, &target.namespace)
        .into_iter()
        .filter(|object| selector.matches(object))
        .collect();
    objects.sort_by_key(|object| place(object));
    objects.retain(|object| after.as_ref().is_none_or(|after| place(object) > *after));
    let more = objects.len() > limit;
    objects.truncate(limit);
    let mut metadata = json!({"resourceVersion": state.store.revision.to_string()});
    if let Some(last) = objects.last().filter(|_| more) {
        metadata["continue"] = json!(place(last));
    }
    let items: Vec<Value> = match asked.metadata_only() {
        true => objects.iter().map(|object| metadata_only(object)).collect(),
        false => objects.iter().map(|object| item(object)).collect(),
    };
    let (api_version, kind) = match asked.metadata_only() {
        true => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadata"),
        false => (target.kind.api_version(), target.kind.kind),
    };
    let list = json!({"apiVersion": api_version, "kind": format!("{kind}List"),
        "metadata": metadata, "items": items});
    Ok(Answer::Document(200, list))
}

/// An item of a list names neither its kind nor its version: the list does.
fn item(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    item
}

fn create(state: &mut State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let mut object = asked.document()?;
    if target.kind.namespaced {
        let named = object["metadata"]["namespace"].as_str();
        if named.is_some_and(|named| named != target.namespace) {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        object["metadata"]["namespace"] = json!(target.namespace);
    }
    if dry_run(asked) {
        return Ok(Answer::Document(201, object));
    }
    let object = state.store.create(target.kind, object)?;
    Ok(Answer::Document(201, (*object).clone()))
}

fn replace(state: &mut State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let object = asked.document()?;
    if dry_run(asked) {
        return Ok(Answer::Document(200, object));
    }
    let object = state.store.update(target.key(), object, part(target))?;
    finished(state, target, &object)
}

fn patch(state: &mut State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let apply = asked.content_type.starts_with("application/apply-patch");
    if apply && asked.parameter("fieldManager").is_none() {
        return Err(Failure::bad_request(
            "fieldManager is required for apply patch",
        ));
    }
    let key = target.key();
    let Some(before) = state.store.get(&key) else {
        if !apply || target.subresource.is_some() {
            return Err(Failure::not_found(key.0, &key.2));
        }
        return create(state, asked, target);
    };
    let mut object = patched(&asked.content_type, &before, &asked.body)?;
    let asks_version = serde_json::from_slice::<Value>(&asked.body)
        .is_ok_and(|patch| !patch["metadata"]["resourceVersion"].is_null());
    if !asks_version {
        object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    }
    if dry_run(asked) {
        return Ok(Answer::Document(200, object));
    }
    let object = state.store.update(key, object, part(target))?;
    finished(state, target, &object)
}

fn delete(state: &mut State, asked: &Asked, target: &Target) -> Result<Answer, Failure> {
    let key = target.key();
    let Some(object) = state.store.get(&key) else {
        return Err(Failure::not_found(key.0, &key.2));
    };
    let options = asked.document().unwrap_or_default();
    for condition in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][condition];
        if !wanted.is_null() && *wanted != object["metadata"][condition] {
            return Err(Failure::conflict(key.0, &key.2));
        }
    }
    if dry_run(asked) {
        return Ok(Answer::Document(200, (*object).clone()));
    }
    if has_finalizers(&object) {
        let mut object = (*object).clone();
        object["metadata"]["deletionTimestamp"] = json!("2026-11-21T00:00:00Z");
        let object = state.store.put(key.0, object);
        return Ok(Answer::Document(200, (*object).clone()));
    }
    state.store.remove(&key);
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Success", "details": {"name": key.2, "kind": key.0.plural}});
    Ok(Answer::Document(200, done))
}

/// After a write: an object that waited for its last finalizer goes.
fn finished(state: &mut State, target: &Target, object: &Value) -> Result<Answer, Failure> {
    if !object["metadata"]["deletionTimestamp"].is_null() && !has_finalizers(object) {
        state.store.remove(&target.key());
    }
    Ok(Answer::Document(200, object.clone()))
}

fn has_finalizers(object: &Value) -> bool {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

fn part(target: &Target) -> Part {
    match target.subresource.as_deref() {
        Some("status" | "approval") => Part::Status,
        _ => Part::Object,
    }
}

fn dry_run(asked: &Asked) -> bool {
    asked.parameter("dryRun").is_some()
}

/// By script: a token nobody wrote down is none, and one for another audience neither.
fn review_token(state: &State, asked: &Value) -> Result<Answer, Failure> {
    let mut review = asked.clone();
    let token = asked["spec"]["token"].as_str().unwrap_or_default();
    let scripted = state.tokens.get(token);
    let status = scripted.map(|scripted| scripted.get("status").unwrap_or(scripted).clone());
    let wanted = asked["spec"]["audiences"].as_array();
    let refused = |why: String| json!({"user": {}, "error": why});
    review["status"] = match status {
        None => refused("invalid bearer token".to_owned()),
        Some(status) => {
            let known = status["audiences"].as_array().cloned().unwrap_or_default();
            let meant =
                |wanted: &Vec<Value>| wanted.iter().any(|audience| known.contains(audience));
            if status["authenticated"] != true || wanted.is_none_or(meant) {
                status
            } else {
                refused(format!(
                    "[invalid bearer token, token audiences {} is invalid for the target audiences {}]",
                    Value::from(known),
                    asked["spec"]["audiences"]
                ))
            }
        }
    };
    Ok(Answer::Document(201, review))
}
