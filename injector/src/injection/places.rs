//! The maps and lists of a pod that injection writes to. Each may be absent or null, and is then
//! made, which is remembered, so that it goes again with what was put there.

use serde_json::{Map, Value};

use super::status::Status;

/// A map or list of a pod, by its place: `metadata/labels`, or `containers/web/volumeMounts` for
/// one of the container `web`.
pub(crate) fn map<'a>(
    pod: &'a mut Value,
    place: &str,
    status: &mut Status,
) -> Option<&'a mut Map<String, Value>> {
    make(pod, place, Value::Object(Map::new()), status)?.as_object_mut()
}

pub(crate) fn list<'a>(
    pod: &'a mut Value,
    place: &str,
    status: &mut Status,
) -> Option<&'a mut Vec<Value>> {
    make(pod, place, Value::Array(Vec::new()), status)?.as_array_mut()
}

fn make<'a>(
    pod: &'a mut Value,
    place: &str,
    empty: Value,
    status: &mut Status,
) -> Option<&'a mut Value> {
    let (parent, key) = parent_and_key(pod, place)?;
    if parent.get(key).is_none_or(Value::is_null) {
        let remembered = if parent.contains_key(key) {
            &mut status.filled
        } else {
            &mut status.made
        };
        remembered.push(place.to_owned());
        parent.insert(key.to_owned(), empty);
    }
    parent.get_mut(key)
}

/// Takes away the maps and lists that injection made, if nothing is left in them; innermost first.
pub(crate) fn unmake(pod: &mut Value, status: &Status) {
    for (places, null) in [(&status.made, false), (&status.filled, true)] {
        for place in places.iter().rev().filter(|place| is_ours(place)) {
            let Some((parent, key)) = parent_and_key(pod, place) else {
                continue;
            };
            let is_empty = match parent.get(key) {
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                _ => false,
            };
            if is_empty && null {
                parent.insert(key.to_owned(), Value::Null);
            } else if is_empty {
                parent.remove(key);
            }
        }
    }
}

/// The places that injection may have made: an annotation could name others.
fn is_ours(place: &str) -> bool {
    const PLACES: [&str; 7] = [
        "metadata",
        "metadata/labels",
        "metadata/annotations",
        "spec/initContainers",
        "spec/volumes",
        "spec/securityContext",
        "spec/securityContext/sysctls",
    ];
    PLACES.contains(&place) || place.ends_with("/volumeMounts")
}

fn parent_and_key<'a, 'b>(
    pod: &'a mut Value,
    place: &'b str,
) -> Option<(&'a mut Map<String, Value>, &'b str)> {
    let (parents, key) = place.rsplit_once('/').unwrap_or(("", place));
    let parent = match parents.split_once('/') {
        Some((list @ ("containers" | "initContainers"), name)) => pod
            .get_mut("spec")?
            .get_mut(list)?
            .as_array_mut()?
            .iter_mut()
            .find(|container| container.get("name").is_some_and(|is| is == name))?,
        _ => parents
            .split('/')
            .filter(|part| !part.is_empty())
            .try_fold(pod, |value, part| value.get_mut(part))?,
    };
    Some((parent.as_object_mut()?, key))
}
