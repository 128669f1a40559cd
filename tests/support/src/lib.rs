//! What the end-to-end tests stand on.
//!
//! ```text
//!   node (namespace)      control plane on 10.77.0.1, fd77::1; tcpdump on the bridge
//!     │ bridge
//!     ├── pod a           10.77.0.10  fd77::10    shop/web, meshed
//!     ├── pod b           10.77.0.11  fd77::11    shop/api, meshed
//!     └── pod c           10.77.0.12  fd77::12    not meshed
//!                         198.51.100.12, 2001:db8:77::12: pod c again, outside the mesh's networks
//! ```
//! Every test has a network, processes and directories of its own, named after its process:
//! tests run beside each other, and what a killed run left behind is removed by the next one.

pub mod access_log;
pub mod api_server;
pub mod applications;
pub mod certificates;
pub mod credulous_tls;
pub mod envoy;
pub mod envtest;
pub mod eventually;
pub mod kubelet;
pub mod leftovers;
pub mod load;
pub mod loopback_mesh;
pub mod mesh;
pub mod namespace;
pub mod network;
pub mod peer_certificates;
pub mod process;
pub mod requirements;
pub mod service_account_token;
pub mod wire_tap;

pub use api_server::ApiServer;
pub use eventually::{eventually, eventually_within, holds_for, pause};
pub use loopback_mesh::LoopbackMesh;
pub use mesh::{Mesh, MeshSettings, Sidecar};
pub use namespace::Namespace;
pub use network::{Network, Pod};
pub use process::Process;

/// An application's user in a pod.
pub const APPLICATION_UID: u32 = 1000;
/// The user `nobody`, for servers that look their user up by name.
pub const NOBODY_UID: u32 = 65534;
/// The sidecar's user.
pub const SIDECAR_UID: u32 = 15008;
/// The user of a test that plays the node or a person with all rights.
pub const ROOT_UID: u32 = 0;
