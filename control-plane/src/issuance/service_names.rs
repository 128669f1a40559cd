//! By which names clients reach a workload through the services of its namespace: what a server's
//! certificate must hold. They come from the cluster's services or the documents, never from the
//! caller.

use std::collections::BTreeMap;

use crate::{
    certificate_authority::svid_template::{MAX_DNS_BYTES, MAX_DNS_NAMES},
    workload_index::{PodHost, ServiceDocument, WorkloadIndex, WorkloadName},
};

/// What nearly every cluster's DNS calls it. With another one `NAME.NAMESPACE.svc` still holds.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Those of the services that select the workload, in order of their names, as many as a leaf has
/// room for. `None`: no such workload is known (yet).
///
/// All end in `SERVICE.NAMESPACE.svc` or that and the cluster's domain. Shorter names, which DNS
/// finds by search domains, are somebody else's in full: `api.shop` of a namespace `shop` may be a
/// host of the internet, and a `shop` in a namespace `svc` has the name of a service of `shop`.
pub(super) fn service_names(index: &WorkloadIndex, workload: &WorkloadName) -> Option<Vec<String>> {
    let host = index.workload(workload)?.host.as_deref();
    let namespace = &workload.namespace;
    let services: BTreeMap<_, _> = index
        .services_selecting(workload)
        .map(|service| (service.name.name.as_str(), is_headless(service)))
        .collect();
    let mut names: Vec<String> = Vec::new();
    for (service, headless) in services {
        if !is_label(service) || !is_label(namespace) {
            continue;
        }
        names.extend(forms(&format!("{service}.{namespace}")));
        if let Some(PodHost {
            hostname,
            subdomain,
        }) = host
            && headless
            && subdomain == service
            && is_label(hostname)
        {
            names.extend(forms(&format!("{hostname}.{service}.{namespace}")));
        }
    }
    let mut room = MAX_DNS_BYTES;
    names.truncate(MAX_DNS_NAMES);
    names.retain(|name| {
        let left = room.checked_sub(name.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    Some(names)
}

fn forms(name: &str) -> [String; 2] {
    [
        format!("{name}.svc"),
        format!("{name}.svc.{CLUSTER_DOMAIN}"),
    ]
}

fn is_headless(service: &ServiceDocument) -> bool {
    service.addresses.is_empty()
}

/// One label of DNS, as names of services, namespaces and hosts are. With a dot in it a name would
/// end as that of another service does. Documents and captured objects may say anything.
fn is_label(text: &str) -> bool {
    const MAX: usize = 63;
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= MAX
        && !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(is_inner)
}

#[cfg(test)]
mod tests;
