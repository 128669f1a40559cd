//! The kinds of objects that the control plane reads.

use mesh_lite_proto::{
    document::Kind,
    kubernetes::{API_GROUP, API_VERSION},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum WatchedKind {
    Pod,
    Service,
    EndpointSlice,
    Node,
    ServiceCidr,
    Namespace,
    AuthorizationPolicy,
    PeerAuthentication,
    Eviction,
}

impl WatchedKind {
    pub(super) const ALL: [Self; 9] = [
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Node,
        Self::ServiceCidr,
        Self::Namespace,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::Eviction,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
            Self::Namespace => "Namespace",
            Self::AuthorizationPolicy => Kind::AuthorizationPolicy.as_str(),
            Self::PeerAuthentication => Kind::PeerAuthentication.as_str(),
            Self::Eviction => Kind::Eviction.as_str(),
        }
    }

    /// As in paths and in rules of roles.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Pod => "pods",
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::Node => "nodes",
            Self::ServiceCidr => "servicecidrs",
            Self::Namespace => "namespaces",
            Self::AuthorizationPolicy => "authorizationpolicies",
            Self::PeerAuthentication => "peerauthentications",
            Self::Eviction => "evictions",
        }
    }

    pub(super) const fn group_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Pod | Self::Service | Self::Node | Self::Namespace => ("", "v1"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1"),
            Self::ServiceCidr => ("networking.k8s.io", "v1"),
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::Eviction => {
                (API_GROUP, API_VERSION)
            }
        }
    }

    /// The document that an object of this kind is.
    pub(super) const fn document(self) -> Option<Kind> {
        match self {
            Self::AuthorizationPolicy => Some(Kind::AuthorizationPolicy),
            Self::PeerAuthentication => Some(Kind::PeerAuthentication),
            Self::Eviction => Some(Kind::Eviction),
            _ => None,
        }
    }

    pub(super) fn of_document(kind: Kind) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|watched| watched.document() == Some(kind))
    }

    /// Objects in one answer of a list: an object has at most 1.5 MB, a pod has ten kilobytes.
    pub(super) const fn page(self) -> u32 {
        match self.document() {
            Some(_) => 20,
            None => 100,
        }
    }
}
