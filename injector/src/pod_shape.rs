//! Reading a pod that is JSON: first that every place we look at has the type it must have, so that
//! nothing after that takes a wrong type for an absence.

use serde_json::{Map, Value};

/// A place of a pod that has another type than a pod's has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongShape {
    /// As in `spec.containers[0].name`.
    pub(crate) place: String,
    pub(crate) expected: &'static str,
}

/// The lists of containers in a pod's spec.
pub(crate) const CONTAINER_LISTS: [&str; 3] =
    ["initContainers", "containers", "ephemeralContainers"];
/// A pod has at most so many containers, volumes or mounts: an object of the API server would not
/// hold more, and a decision's cost is bounded by it.
const MAX_ENTRIES: usize = 2000;

/// # Errors
/// Names the first place that is not as in a pod.
pub(crate) fn check(pod: &Value) -> Result<(), WrongShape> {
    let wrong = |place: &str, expected| WrongShape {
        place: place.to_owned(),
        expected,
    };
    let pod = pod
        .as_object()
        .ok_or_else(|| wrong("the pod", "an object"))?;
    if let Some(metadata) = object(pod, "metadata", "metadata")? {
        for name in ["labels", "annotations"] {
            let place = format!("metadata.{name}");
            for (key, value) in object(metadata, name, &place)?.into_iter().flatten() {
                if !value.is_string() && !value.is_null() {
                    return Err(wrong(&format!("{place}[{key:?}]"), "a string"));
                }
            }
        }
    }
    let spec = object(pod, "spec", "spec")?.ok_or_else(|| wrong("spec", "an object"))?;
    check_spec(spec)
}

fn check_spec(spec: &Map<String, Value>) -> Result<(), WrongShape> {
    for list in CONTAINER_LISTS {
        let place = format!("spec.{list}");
        let containers = named_entries(spec, list, &place)?;
        if list == "containers" && containers.is_empty() {
            return Err(WrongShape {
                place,
                expected: "a list with at least one container",
            });
        }
        for (index, container) in containers.into_iter().enumerate() {
            check_container(container, &format!("{place}[{index}]"))?;
        }
    }
    named_entries(spec, "volumes", "spec.volumes")?;
    optional(
        spec,
        "hostNetwork",
        "spec",
        "true or false",
        Value::is_boolean,
    )?;
    number(spec, "terminationGracePeriodSeconds", "spec")?;
    if let Some(os) = object(spec, "os", "spec.os")? {
        optional(os, "name", "spec.os", "a string", Value::is_string)?;
    }
    object(spec, "nodeSelector", "spec.nodeSelector")?;
    if let Some(context) = object(spec, "securityContext", "spec.securityContext")? {
        number(context, "runAsUser", "spec.securityContext")?;
        named_entries(context, "sysctls", "spec.securityContext.sysctls")?;
    }
    Ok(())
}

fn check_container(container: &Map<String, Value>, place: &str) -> Result<(), WrongShape> {
    for (list, key) in [("volumeMounts", "name"), ("env", "name")] {
        let place = format!("{place}.{list}");
        for (index, entry) in entries(container, list, &place)?.into_iter().enumerate() {
            required_text(entry, key, &format!("{place}[{index}]"))?;
        }
    }
    let ports = format!("{place}.ports");
    for (index, port) in entries(container, "ports", &ports)?.into_iter().enumerate() {
        let place = format!("{ports}[{index}]");
        number(port, "containerPort", &place)?;
        number(port, "hostPort", &place)?;
        optional(port, "protocol", &place, "a string", Value::is_string)?;
    }
    let context = format!("{place}.securityContext");
    if let Some(security) = object(container, "securityContext", &context)? {
        number(security, "runAsUser", &context)?;
    }
    object(container, "lifecycle", &format!("{place}.lifecycle"))?;
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        object(container, probe, &format!("{place}.{probe}"))?;
    }
    Ok(())
}

fn object<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Option<&'a Map<String, Value>>, WrongShape> {
    match parent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(WrongShape {
            place: place.to_owned(),
            expected: "an object",
        }),
    }
}

/// The entries of a list of objects; none if there is no list.
fn entries<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Vec<&'a Map<String, Value>>, WrongShape> {
    let wrong = |place: String, expected| WrongShape { place, expected };
    let list = match parent.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(wrong(place.to_owned(), "a list")),
    };
    if list.len() > MAX_ENTRIES {
        return Err(wrong(place.to_owned(), "a list of at most 2000 entries"));
    }
    list.iter()
        .enumerate()
        .map(|(index, entry)| {
            entry
                .as_object()
                .ok_or_else(|| wrong(format!("{place}[{index}]"), "an object"))
        })
        .collect()
}

/// As [`entries`], each with a name of its own.
fn named_entries<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Vec<&'a Map<String, Value>>, WrongShape> {
    let list = entries(parent, key, place)?;
    let mut names = std::collections::BTreeSet::new();
    for (index, entry) in list.iter().enumerate() {
        let place = format!("{place}[{index}]");
        if !names.insert(required_text(entry, "name", &place)?) {
            return Err(WrongShape {
                place: format!("{place}.name"),
                expected: "a name that no other entry of the list has",
            });
        }
    }
    Ok(list)
}

fn required_text<'a>(
    entry: &'a Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<&'a str, WrongShape> {
    entry
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| WrongShape {
            place: format!("{place}.{key}"),
            expected: "a string",
        })
}

/// A whole number, as Kubernetes wants it: `15008.0` or `"15008"` would be overlooked.
fn number(parent: &Map<String, Value>, key: &str, place: &str) -> Result<(), WrongShape> {
    optional(parent, key, place, "a whole number", Value::is_i64)
}

fn optional(
    parent: &Map<String, Value>,
    key: &str,
    place: &str,
    expected: &'static str,
    is: impl Fn(&Value) -> bool,
) -> Result<(), WrongShape> {
    match parent.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if is(value) => Ok(()),
        Some(_) => Err(WrongShape {
            place: format!("{place}.{key}"),
            expected,
        }),
    }
}

/// The containers of one list, each with its name.
pub(crate) fn containers<'a>(
    pod: &'a Value,
    list: &str,
) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    array(pod.get("spec").and_then(|spec| spec.get(list)))
        .iter()
        .filter_map(|container| Some((container.get("name")?.as_str()?, container)))
}

/// The containers of all lists.
pub(crate) fn all_containers(pod: &Value) -> impl Iterator<Item = (&str, &Value)> {
    CONTAINER_LISTS
        .into_iter()
        .flat_map(move |list| containers(pod, list))
}

pub(crate) fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A label or annotation of the pod. Null is as Kubernetes reads it: empty.
pub(crate) fn metadata<'a>(pod: &'a Value, map: &str, key: &str) -> Option<&'a str> {
    let value = pod.get("metadata")?.get(map)?.get(key)?;
    Some(value.as_str().unwrap_or_default())
}

pub(crate) fn label<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    metadata(pod, "labels", key)
}

pub(crate) fn annotation<'a>(pod: &'a Value, key: &str) -> Option<&'a str> {
    metadata(pod, "annotations", key)
}
