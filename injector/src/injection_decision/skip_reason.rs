//! Why a pod stays out of the mesh although nothing is wrong with it.

use std::fmt;

use mesh_lite_proto::kubernetes::{INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL};

/// Closed: each is stamped, warned about and counted by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SkipReason {
    /// The request is not the creation of a pod.
    NotAPod,
    /// `kube-system`, or the mesh's own namespace: the mesh must never keep itself from starting.
    ReservedNamespace,
    /// A kubelet's picture of a pod that runs already.
    Mirror,
    Windows,
    /// It has the node's network, which capture would change for the node.
    HostNetwork,
    /// The pod's label says so.
    OptedOut,
    /// The namespace's label does not say that its pods are in the mesh.
    NamespaceNotEnabled,
}

impl SkipReason {
    pub const ALL: [Self; 7] = [
        Self::NotAPod,
        Self::ReservedNamespace,
        Self::Mirror,
        Self::Windows,
        Self::HostNetwork,
        Self::OptedOut,
        Self::NamespaceNotEnabled,
    ];

    /// Whether it is written on the pod. Not on what is no pod of the mesh's at all, and not on a
    /// mirror: a kubelet would take a changed one for another.
    #[must_use]
    pub(super) const fn is_stamped(self) -> bool {
        matches!(self, Self::Windows | Self::HostNetwork | Self::OptedOut)
    }

    /// As stamped on pods and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAPod => "not-a-pod",
            Self::ReservedNamespace => "reserved-namespace",
            Self::Mirror => "mirror",
            Self::Windows => "windows",
            Self::HostNetwork => "host-network",
            Self::OptedOut => "opted-out",
            Self::NamespaceNotEnabled => "namespace-not-enabled",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("this is not the creation of a pod"),
            Self::ReservedNamespace => {
                f.write_str("pods of this namespace must start without the mesh")
            }
            Self::Mirror => f.write_str("it is the mirror of a static pod"),
            Self::Windows => f.write_str("its containers run on Windows"),
            Self::HostNetwork => f.write_str("it uses the node's network (hostNetwork: true)"),
            Self::OptedOut => write!(f, "its label says {INJECT_LABEL}: {INJECT_DISABLED}"),
            Self::NamespaceNotEnabled => write!(
                f,
                "its namespace is not labelled {INJECT_LABEL}: {INJECT_ENABLED}"
            ),
        }
    }
}
