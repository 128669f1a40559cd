//! What one probe asks of the application, read from the pod.

use std::num::NonZeroU16;

use mesh_lite_proto::{
    app_probes::{GrpcProbe, HttpProbe, MAX_TIMEOUT, ProbeAction, ProbeKind, ProbePort, Scheme},
    sidecar::HEALTH_PORT,
};
use serde_json::{Map, Value};

/// Why a probe stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unchanged {
    /// Nothing to say: it works, or the API server refuses the pod anyway.
    #[error("it needs no help")]
    NeedsNoHelp,
    #[error(
        "host {0:?} is not the pod, so the kubelet asks there itself; remove `host` if the pod is meant, \
         and put the name of a virtual host into httpHeaders as Host"
    )]
    Host(String),
    #[error(
        "port {0:?} is no name of a port of this container: add it to its ports, or write the number"
    )]
    PortName(String),
    #[error(
        "it asks port {HEALTH_PORT} as a rewritten probe does, but no table says what it was: write the \
         application's own probe"
    )]
    NotOurs,
    #[error("the sidecar can't ask for it ({0}); where its port is STRICT it will fail")]
    Action(#[from] mesh_lite_proto::app_probes::InvalidAction),
    #[error("the sidecar can't ask for it ({0}); where its port is STRICT it will fail")]
    Table(String),
}

/// Seconds of one try; the kubelet's default is 1. A hook may take as long as the kubelet lets it:
/// it ends the request when the pod's grace period ends.
pub(super) fn timeout(probe: &Map<String, Value>, kind: ProbeKind) -> NonZeroU16 {
    let longest = NonZeroU16::new(MAX_TIMEOUT).unwrap_or(NonZeroU16::MIN);
    if kind.is_hook() {
        return longest;
    }
    let seconds = probe
        .get("timeoutSeconds")
        .and_then(Value::as_u64)
        .unwrap_or(1);
    let seconds = u16::try_from(seconds).unwrap_or(MAX_TIMEOUT);
    NonZeroU16::new(seconds)
        .unwrap_or(NonZeroU16::MIN)
        .min(longest)
}

/// Every way to ask that a probe or a hook may have, of which the API server takes one.
const WAYS: [&str; 5] = ["exec", "sleep", "httpGet", "tcpSocket", "grpc"];

/// What a probe asks for as it is written, with fields that are `null`.
pub(super) fn all(probe: &Map<String, Value>) -> Map<String, Value> {
    let written = WAYS.into_iter().map(|way| (way, probe.get(way)));
    written
        .filter_map(|(way, value)| Some((way.to_owned(), value?.clone())))
        .collect()
}

/// The one thing a probe asks for, unless it is `exec` or no probe the API server takes.
pub(super) fn only_one(
    probe: &Map<String, Value>,
    kind: ProbeKind,
) -> Result<(&'static str, &Value), Unchanged> {
    // the kubelet refuses a hook by tcpSocket
    let known: &[&'static str] = if kind.is_hook() {
        &["httpGet"]
    } else {
        &["httpGet", "tcpSocket", "grpc"]
    };
    let present = |key: &&str| probe.get(*key).is_some_and(|value| !value.is_null());
    let mut asked = known
        .iter()
        .copied()
        .filter(|key| present(key))
        .filter_map(|key| Some((key, probe.get(key)?)));
    match asked.next() {
        Some(first) if WAYS.iter().filter(|key| present(key)).count() == 1 => Ok(first),
        _ => Err(Unchanged::NeedsNoHelp),
    }
}

pub(super) fn parse(
    key: &str,
    value: &Value,
    ports: &Value,
    uncaptured: &[u16],
) -> Result<ProbeAction, Unchanged> {
    if let Some(host) = text(value, "host").filter(|host| !host.is_empty()) {
        return Err(Unchanged::Host(host.chars().take(80).collect()));
    }
    let number = port(value.get("port"), ports)?;
    if uncaptured.contains(&number) {
        return Err(Unchanged::NeedsNoHelp);
    }
    let port = ProbePort::new(number)?;
    Ok(match key {
        "httpGet" => ProbeAction::Http(HttpProbe::new(
            scheme(value)?,
            port,
            text(value, "path").unwrap_or_default(),
            headers(value),
        )?),
        "tcpSocket" => ProbeAction::Tcp(port),
        _ => ProbeAction::Grpc(GrpcProbe::new(
            port,
            text(value, "service").unwrap_or_default(),
        )?),
    })
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key)?.as_str()
}

fn scheme(value: &Value) -> Result<Scheme, Unchanged> {
    match text(value, "scheme").unwrap_or("HTTP") {
        "" | "HTTP" => Ok(Scheme::Http),
        "HTTPS" => Ok(Scheme::Https),
        // the API server knows no other
        _ => Err(Unchanged::NeedsNoHelp),
    }
}

fn headers(value: &Value) -> Vec<(String, String)> {
    let list = value.get("httpHeaders").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|header| {
            let of = |key| text(header, key).unwrap_or_default().to_owned();
            (of("name"), of("value"))
        })
        .collect()
}

/// A number, a number as text, or the name of one of the container's ports.
fn port(port: Option<&Value>, ports: &Value) -> Result<u16, Unchanged> {
    let number = match port {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(name)) => {
            let declared = ports.as_array().into_iter().flatten();
            let named = declared
                .filter(|port| text(port, "name") == Some(name))
                .find_map(|port| port.get("containerPort")?.as_u64());
            let wrong = || Unchanged::PortName(name.chars().take(80).collect());
            Some(named.or_else(|| name.parse().ok()).ok_or_else(wrong)?)
        }
        _ => None,
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .ok_or(Unchanged::NeedsNoHelp)
}
