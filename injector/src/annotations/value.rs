//! What stands in annotations, parsed. Errors are the second half of a sentence about the value,
//! and say what to do.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use mesh_lite_proto::sidecar::{MAX_EXCLUSIONS, OWN_PORTS, UNROUTED_V4, UNROUTED_V6};

use super::{AccessLog, CaptureKind};
use crate::injection_decision::Quoted;

/// Nobody waits an hour for the end of a pod.
const MAX_SECONDS: u32 = 3600;
/// Characters of a log filter: a level, or a handful of targets.
const MAX_LOG_FILTER: usize = 256;
/// Of a name in Kubernetes.
const MAX_NAME: usize = 63;

/// Entries of a list that is written with commas; spaces around them do not count.
fn entries(text: &str) -> Result<Vec<&str>, String> {
    let entries: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .take(MAX_EXCLUSIONS + 1)
        .collect();
    if entries.len() > MAX_EXCLUSIONS {
        return Err(format!(
            "has more than {MAX_EXCLUSIONS} entries: name fewer, or a range as one subnet"
        ));
    }
    Ok(entries)
}

/// Ports that none of the sidecar's own is among.
pub(super) fn ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let mut ports = BTreeSet::new();
    for entry in entries(text)? {
        let port = entry
            .parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{} is not a port (1 to 65535): correct it", Quoted(entry)))?;
        if OWN_PORTS.contains(&port) {
            return Err(format!(
                "{port} is one of the sidecar's own ports: leave it out"
            ));
        }
        ports.insert(port);
    }
    Ok(ports)
}

/// Subnets that leave something to be captured, and the addresses to which capture is proved.
pub(super) fn subnets(text: &str) -> Result<Vec<IpNet>, String> {
    let mut subnets = Vec::new();
    for entry in entries(text)? {
        let subnet = entry
            .parse::<IpNet>()
            .or_else(|_| entry.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| {
                format!(
                    "{} is not a subnet, as in 10.9.0.0/16: correct it",
                    Quoted(entry)
                )
            })?
            .trunc();
        if subnet.prefix_len() == 0 {
            return Err(format!(
                "{subnet} is every address, which is no capture at all: name what is to be left out"
            ));
        }
        let probes: [IpAddr; 2] = [UNROUTED_V4.into(), UNROUTED_V6.into()];
        if let Some(probe) = probes.iter().find(|probe| subnet.contains(*probe)) {
            return Err(format!(
                "{subnet} contains {probe}, to which capture is proved: leave that address in"
            ));
        }
        subnets.push(subnet);
    }
    subnets.sort_unstable();
    subnets.dedup();
    Ok(subnets)
}

pub(super) fn capture(text: &str) -> Result<CaptureKind, String> {
    match text {
        "transparent" => Ok(CaptureKind::Transparent),
        "explicit" => Ok(CaptureKind::Explicit),
        "none" => Err(
            "would leave a sidecar that nothing goes through: keep the pod out of the mesh \
             (label mesh-lite.io/inject: disabled), or write explicit"
                .to_owned(),
        ),
        _ => Err("is neither transparent nor explicit: write one of them".to_owned()),
    }
}

/// `PORT=NAMESPACE/SERVICE:PORT`, each listening on a port of its own, as the sidecar reads them.
pub(super) fn upstreams(text: &str) -> Result<Vec<String>, String> {
    let mut listening = BTreeSet::new();
    let mut upstreams = Vec::new();
    for entry in entries(text)? {
        let (listen, canonical) = upstream(entry).ok_or_else(|| {
            format!(
                "{} is not PORT=NAMESPACE/SERVICE:PORT, as in 8081=shop/api:8080: correct it",
                Quoted(entry)
            )
        })?;
        if OWN_PORTS.contains(&listen) {
            return Err(format!(
                "{listen} is one of the sidecar's own ports: listen on another one"
            ));
        }
        if !listening.insert(listen) {
            return Err(format!(
                "port {listen} leads to two services: give each a port of its own"
            ));
        }
        upstreams.push(canonical);
    }
    Ok(upstreams)
}

fn upstream(entry: &str) -> Option<(u16, String)> {
    let (listen, target) = entry.split_once('=')?;
    let (service, port) = target.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (listen, port) = (number(listen)?, number(port)?);
    (is_label(namespace) && is_label(name))
        .then(|| (listen, format!("{listen}={namespace}/{name}:{port}")))
}

/// A name in Kubernetes that is a DNS label.
fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What `RUST_LOG` takes: levels and targets, nothing that could be something else.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let known = |char: char| char.is_ascii_alphanumeric() || "_=,:.-".contains(char);
    if text.is_empty() || text.len() > MAX_LOG_FILTER || !text.chars().all(known) {
        return Err("is not a level (debug) or targets with levels \
                    (info,mesh_lite_proxy=debug): correct it"
            .to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn access_log(text: &str) -> Result<AccessLog, String> {
    match text {
        "off" => Ok(AccessLog::Off),
        "stdout" => Ok(AccessLog::Stdout),
        _ => Err(
            "is neither off nor stdout: a sidecar in a pod has no files to write to; write one \
             of them"
                .to_owned(),
        ),
    }
}

/// Whole seconds, with or without an `s`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    text.strip_suffix('s')
        .unwrap_or(text)
        .parse::<u32>()
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)
        .ok_or_else(|| {
            format!("is not a number of seconds from 0 to {MAX_SECONDS}, as in 5 or 5s: correct it")
        })
}

pub(super) fn refuse_or_allow(text: &str) -> Result<(), String> {
    match text {
        "refuse" | "allow" => Ok(()),
        _ => Err("is neither refuse nor allow: write one of them".to_owned()),
    }
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is neither \"true\" nor \"false\": write one of them".to_owned()),
    }
}

/// Names of containers.
pub(super) fn containers(text: &str) -> Result<BTreeSet<String>, String> {
    let names = entries(text)?;
    if names.is_empty() {
        return Err("names no container: name those that get the files, or remove it".to_owned());
    }
    names
        .into_iter()
        .map(|name| {
            if is_label(name) {
                Ok(name.to_owned())
            } else {
                Err(format!(
                    "{} is not a container's name: correct it",
                    Quoted(name)
                ))
            }
        })
        .collect()
}
