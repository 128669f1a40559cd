//! What the control plane goes by in Namespace objects.

use std::collections::BTreeMap;

use mesh_lite_proto::workload_directory::OutboundUnmeshed;

/// By name. A namespace that is not here does not exist, or is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Namespaces(pub(crate) BTreeMap<String, Namespace>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Namespace {
    /// It has the label that puts new pods into the mesh.
    pub(crate) injected: bool,
    /// Its own rule for plaintext to workloads outside the mesh.
    pub(crate) outbound_unmeshed: Option<OutboundUnmeshed>,
    /// It is being deleted: nothing can be made in it.
    pub(crate) ending: bool,
}
