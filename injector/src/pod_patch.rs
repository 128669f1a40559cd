//! From the pod that came to the pod that shall be: a JSON Patch, seen to work before it is sent.
//!
//! Lists of named things (containers, volumes, variables) are compared by name: what we put before
//! the application's containers never looks like a change of theirs. Fields that nobody here knows
//! are compared like all others, and survive.

use std::collections::BTreeSet;

use json_patch::{
    AddOperation, MoveOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation,
    jsonptr::PointerBuf,
};
use serde_json::{Map, Value};

/// The patch that makes `before` into `after`.
///
/// # Errors
/// In words, if what was made does not do that: a bug, and nothing that may be sent.
pub(crate) fn patch(before: &Value, after: &Value) -> Result<Patch, String> {
    let mut operations = Vec::new();
    compare(before, after, &mut PointerBuf::new(), &mut operations);
    let patch = Patch(operations);
    let mut patched = before.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| error.to_string())?;
    if patched == *after {
        Ok(patch)
    } else {
        Err("it gives another pod than was meant".to_owned())
    }
}

fn compare(
    before: &Value,
    after: &Value,
    path: &mut PointerBuf,
    operations: &mut Vec<PatchOperation>,
) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(before), Value::Object(after)) => maps(before, after, path, operations),
        (Value::Array(before), Value::Array(after))
            if names(before).is_some() && names(after).is_some() =>
        {
            named_lists(before, after, path, operations);
        }
        (Value::Array(before), Value::Array(after)) if after.starts_with(before) => {
            for (index, value) in after.iter().enumerate().skip(before.len()) {
                within(path, index, |path| operations.push(add(path, value)));
            }
        }
        _ => operations.push(PatchOperation::Replace(ReplaceOperation {
            path: path.clone(),
            value: after.clone(),
        })),
    }
}

fn maps(
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    path: &mut PointerBuf,
    operations: &mut Vec<PatchOperation>,
) {
    for (key, value) in after {
        path.push_back(key.as_str());
        match before.get(key) {
            Some(before) => compare(before, value, path, operations),
            None => operations.push(add(path, value)),
        }
        path.pop_back();
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        path.push_back(key.as_str());
        operations.push(remove(path));
        path.pop_back();
    }
}

/// Takes away what is gone, from the end; then puts everything in its place, from the start.
fn named_lists(
    before: &[Value],
    after: &[Value],
    path: &mut PointerBuf,
    operations: &mut Vec<PatchOperation>,
) {
    let wanted: BTreeSet<&str> = after.iter().filter_map(name).collect();
    let is_wanted = |value: &Value| name(value).is_some_and(|name| wanted.contains(name));
    for (index, _) in before
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, value)| !is_wanted(value))
    {
        within(path, index, |path| operations.push(remove(path)));
    }
    let mut now: Vec<&Value> = before.iter().filter(|value| is_wanted(value)).collect();
    for (index, value) in after.iter().enumerate() {
        let at = now.iter().position(|entry| name(entry) == name(value));
        match at {
            None => {
                now.insert(index.min(now.len()), value);
                within(path, index, |path| operations.push(add(path, value)));
            }
            Some(at) => {
                let entry = now.remove(at);
                now.insert(index.min(now.len()), entry);
                if at != index {
                    let mut from = path.clone();
                    from.push_back(at);
                    within(path, index, |path| {
                        operations.push(PatchOperation::Move(MoveOperation {
                            from,
                            path: path.clone(),
                        }));
                    });
                }
                within(path, index, |path| compare(entry, value, path, operations));
            }
        }
    }
}

/// The names of a list's entries, if each has one of its own.
fn names(list: &[Value]) -> Option<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    list.iter()
        .all(|entry| name(entry).is_some_and(|name| names.insert(name)))
        .then_some(names)
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name")?.as_str()
}

fn within<T>(path: &mut PointerBuf, index: usize, then: impl FnOnce(&mut PointerBuf) -> T) -> T {
    path.push_back(index);
    let out = then(path);
    path.pop_back();
    out
}

fn add(path: &PointerBuf, value: &Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: path.clone(),
        value: value.clone(),
    })
}

fn remove(path: &PointerBuf) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: path.clone() })
}

#[cfg(test)]
mod tests;
