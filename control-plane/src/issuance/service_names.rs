//! By which names clients reach a workload through the services of its namespace: what a server's
//! certificate must hold. They come from the cluster's services or the documents, never from the
//! caller.

use std::collections::BTreeSet;

use crate::{
    certificate_authority::svid_template::{MAX_DNS_BYTES, MAX_DNS_NAMES},
    workload_index::{ServiceDocument, WorkloadIndex, WorkloadName},
};

/// What nearly every cluster's DNS calls it. With another one `NAME.NAMESPACE.svc` still holds.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// Those of the services that select the workload, in order of their names, as many as a leaf has
/// room for. `None`: no such workload is known (yet).
pub(super) fn service_names(index: &WorkloadIndex, workload: &WorkloadName) -> Option<Vec<String>> {
    index.workload(workload)?;
    let services: BTreeSet<_> = index
        .services_selecting(workload)
        .map(|service| (service.name.name.as_str(), is_headless(service)))
        .collect();
    let mut names: Vec<String> = Vec::new();
    for (service, headless) in services {
        let namespace = &workload.namespace;
        names.extend(forms(&format!("{service}.{namespace}")));
        if headless {
            // as pods of a StatefulSet are called
            let pod = &workload.name;
            names.extend(forms(&format!("{pod}.{service}.{namespace}")));
        }
    }
    let mut room = MAX_DNS_BYTES;
    names.retain(|name| is_dns_name(name));
    names.truncate(MAX_DNS_NAMES);
    names.retain(|name| {
        let left = room.checked_sub(name.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    Some(names)
}

fn forms(name: &str) -> [String; 3] {
    [
        format!("{name}.svc"),
        name.to_owned(),
        format!("{name}.svc.{CLUSTER_DOMAIN}"),
    ]
}

fn is_headless(service: &ServiceDocument) -> bool {
    service.addresses.is_empty()
}

/// A pod's name may be longer than a label of DNS.
fn is_dns_name(name: &str) -> bool {
    const MAX: usize = 253;
    const MAX_LABEL: usize = 63;
    name.len() <= MAX
        && name
            .split('.')
            .all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

#[cfg(test)]
mod tests;
