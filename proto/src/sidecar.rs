//! Names and numbers that every role must know.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Where captured outbound connections arrive, on loopback only.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where captured inbound plaintext arrives. Never TLS.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Where other sidecars connect. Always TLS 1.3, always mutual.
pub const TUNNEL_PORT: u16 = 15008;
/// Reads only, on loopback only.
pub const ADMIN_PORT: u16 = 15000;
pub const METRICS_PORT: u16 = 15020;
pub const HEALTH_PORT: u16 = 15021;
/// The sidecar's own ports: a peer that asks for one of them is refused (the metrics port
/// excepted, which answers under policy).
pub const OWN_PORTS: [u16; 6] = [
    ADMIN_PORT,
    OUTBOUND_PORT,
    INBOUND_PLAINTEXT_PORT,
    TUNNEL_PORT,
    METRICS_PORT,
    HEALTH_PORT,
];
/// Inbound ports that capture leaves alone: they have listeners of their own on the pod's address.
pub const UNCAPTURED_INBOUND_PORTS: [u16; 3] = [TUNNEL_PORT, METRICS_PORT, HEALTH_PORT];

/// Addresses that no network routes (TEST-NET-1 and the documentation prefix): a connection to
/// one of them can arrive somewhere only if it was captured.
pub const UNROUTED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const UNROUTED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Ports or subnets that capture leaves out are typed by a person; a list beyond this is a mistake
/// that would cost every connection a walk through it.
pub const MAX_EXCLUSIONS: usize = 256;

pub const CONTROL_PLANE_PORT: u16 = 15012;
pub const CONTROL_PLANE_METRICS_PORT: u16 = 15014;
pub const WEBHOOK_PORT: u16 = 15017;

/// Capture exempts connections of this user; nobody else in a pod may have it.
pub const SIDECAR_UID: u32 = 15008;
/// Users that other meshes exempt, and root: never the sidecar's.
pub const FORBIDDEN_UIDS: [u32; 3] = [0, 1337, 2102];

pub const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
pub const DEFAULT_MESH_NAMESPACE: &str = "mesh-lite-system";
pub const CONTROL_PLANE_SERVICE_ACCOUNT: &str = "mesh-lite-control-plane";

/// Greatest schema number this build understands in policies, rules and endpoints.
pub const SCHEMA: u32 = 2;

/// `node.metadata` key under which a sidecar sends its certificate request, PEM.
pub const CSR_METADATA_KEY: &str = "mesh-lite.io/csr";
/// `node.metadata` key beside a certificate request: which DNS names the leaf is to have.
pub const DNS_NAMES_METADATA_KEY: &str = "mesh-lite.io/dns-names";
/// Those of the services that the caller is behind, as the control plane knows them.
pub const DNS_NAMES_OF_SERVICES: &str = "services";
/// `node.metadata` key that asks for a form of bundle: `spiffe` or `trusted_ca`.
pub const VALIDATOR_METADATA_KEY: &str = "mesh-lite.io/validator";

/// An SDS request of Envoy carries 61 KB of node; anything near this is not one.
pub const MAX_GRPC_MESSAGE: usize = 1024 * 1024;
/// Names a sidecar may have asked for at one time; forgotten ones do not count.
pub const MAX_DIRECTORY_NAMES: usize = 8192;
/// New names a second: a pod that scans addresses must not make the control plane work for it.
pub const MAX_NEW_NAMES_PER_SECOND: u32 = 200;
/// A name nobody used for this long is forgotten.
pub const DIRECTORY_IDLE: Duration = Duration::from_secs(600);
/// How long a connection waits for the directory's first answer to a name.
pub const DIRECTORY_WAIT: Duration = Duration::from_secs(2);
