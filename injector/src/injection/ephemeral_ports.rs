//! Room for inbound connections. The sidecar dials the application from the pod's own address to
//! one port of it: every connection, and each closed one for a minute, takes a local port. The
//! kernel's 28,232 are 470 new connections a second; these are 819.

use mesh_lite_proto::sidecar::OWN_PORTS;
use serde_json::{Value, json};

use super::{places, status::Status};
use crate::pod_shape::{all_containers, array};

/// A safe sysctl: every Pod Security level and every kubelet allows it.
const RANGE: &str = "net.ipv4.ip_local_port_range";
/// Also safe (since 1.27). Ports that are never given to whoever dials.
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// Above the sidecar's own ports, and above what most programs listen on. The kernel wants one
/// even and one odd end.
const FIRST: u16 = 16384;
const LAST: u16 = 65535;
/// What usual programs listen on within the range, also where their pods don't declare it: a port
/// that somebody dialled from can't be listened on. Jaeger, Spark, Netdata, Dubbo, Minecraft,
/// RabbitMQ, CockroachDB, Redis Sentinel, MongoDB, RethinkDB, Kafka, Flink, gRPC, Hadoop, STOMP
/// and ActiveMQ.
const USUAL: &str = "16686,18080,19999,20880,25565,25672,26257,26379,27017-27020,28015,28017,\
                     29015,29092,33060,50010,50051,50070,50075,50090,61613-61617";

const _: () = {
    let mut index = 0;
    while index < OWN_PORTS.len() {
        #[expect(
            clippy::indexing_slicing,
            reason = "const: checked when it is compiled"
        )]
        let port = OWN_PORTS[index];
        assert!(port < FIRST, "the sidecar's ports are outside the range");
        index += 1;
    }
};

/// Only where the pod sets neither: whoever does knows its ports.
pub(super) fn add(pod: &mut Value, status: &mut Status) {
    let is_set = array(pod.pointer("/spec/securityContext/sysctls"))
        .iter()
        .filter_map(|sysctl| sysctl.get("name"))
        .any(|name| name == RANGE || name == RESERVED);
    if is_set {
        return;
    }
    let reserved = reserved(pod);
    let _ = places::map(pod, "spec/securityContext", status);
    if let Some(sysctls) = places::list(pod, "spec/securityContext/sysctls", status) {
        sysctls.push(json!({"name": RANGE, "value": format!("{FIRST} {LAST}")}));
        sysctls.push(json!({"name": RESERVED, "value": reserved}));
        status.sysctls = vec![RANGE.to_owned(), RESERVED.to_owned()];
    }
}

/// Those, and what the pod's containers declare.
fn reserved(pod: &Value) -> String {
    let declared: std::collections::BTreeSet<u16> = all_containers(pod)
        .flat_map(|(_, container)| array(container.get("ports")))
        .filter_map(|port| u16::try_from(port.get("containerPort")?.as_u64()?).ok())
        .filter(|port| *port >= FIRST)
        .collect();
    declared
        .iter()
        .fold(USUAL.to_owned(), |list, port| format!("{list},{port}"))
}

/// Takes ours away again.
pub(super) fn remove(pod: &mut Value, status: &Status) {
    if let Some(sysctls) = pod
        .pointer_mut("/spec/securityContext/sysctls")
        .and_then(Value::as_array_mut)
    {
        sysctls.retain(|sysctl| {
            let name = sysctl.get("name").and_then(Value::as_str);
            !name.is_some_and(|name| {
                [RANGE, RESERVED].contains(&name) && status.sysctls.iter().any(|ours| ours == name)
            })
        });
    }
}
