//! What is the same for every pod of a mesh: the operator's settings of the injector.

use mesh_lite_proto::{
    identity::parse_trust_domain,
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};

use crate::annotations::quantity::{Quantity, Unit};

/// The settings of a mesh from which the sidecar of each pod is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Stamped on every injected pod.
    pub version: String,
    /// Image of both our containers. Its entry point is the binary.
    pub image: String,
    pub pull_policy: PullPolicy,
    pub mesh_namespace: String,
    pub trust_domain: spiffe::TrustDomain,
    /// `host:port`, as a pod anywhere in the cluster dials it.
    pub control_plane: String,
    /// Of a sidecar whose pod and namespace do not say otherwise.
    pub resources: Resources,
}

/// As in a container. Never left to the cluster's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

impl PullPolicy {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl std::str::FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Always, Self::IfNotPresent, Self::Never]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not Always, IfNotPresent or Never"))
    }
}

/// Requests and limits of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resources {
    pub cpu_request: Quantity,
    pub cpu_limit: Quantity,
    pub memory_request: Quantity,
    pub memory_limit: Quantity,
}

/// Measured: an idle sidecar takes below 10 MiB and no CPU to speak of. The limits leave room for
/// 10,000 connections (16 KiB each above 24 MiB) and for two busy cores.
impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: Quantity::new(10, Unit::Cpu),
            cpu_limit: Quantity::new(2000, Unit::Cpu),
            memory_request: Quantity::new(24 << 20, Unit::Memory),
            memory_limit: Quantity::new(256 << 20, Unit::Memory),
        }
    }
}

impl MeshSettings {
    /// The settings of a mesh that was installed with nothing but an image.
    ///
    /// # Errors
    /// Never: the default trust domain is one.
    pub fn with_image(image: &str) -> Result<Self, String> {
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            image: image.to_owned(),
            pull_policy: PullPolicy::default(),
            mesh_namespace: DEFAULT_MESH_NAMESPACE.to_owned(),
            trust_domain: parse_trust_domain(DEFAULT_TRUST_DOMAIN)
                .map_err(|error| error.to_string())?,
            control_plane: Self::control_plane_of(DEFAULT_MESH_NAMESPACE),
            resources: Resources::default(),
        })
    }

    /// Where the control plane of a mesh in this namespace is dialled.
    #[must_use]
    pub fn control_plane_of(mesh_namespace: &str) -> String {
        use mesh_lite_proto::{kubernetes::CONTROL_PLANE_SERVICE, sidecar::CONTROL_PLANE_PORT};
        format!("{CONTROL_PLANE_SERVICE}.{mesh_namespace}.svc:{CONTROL_PLANE_PORT}")
    }
}
