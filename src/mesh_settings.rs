//! The settings of a mesh from which sidecars are made, as `injector` and `inject` take them.

use mesh_lite_injector::{
    annotations::quantity::{Quantity, Unit},
    mesh_settings::{MeshSettings, PullPolicy, Resources},
};
use mesh_lite_proto::{
    identity::parse_trust_domain,
    sidecar::{DEFAULT_MESH_NAMESPACE, DEFAULT_TRUST_DOMAIN},
};
use spiffe::TrustDomain;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "The mesh")]
pub(crate) struct MeshArgs {
    /// Of the sidecar and of what installs the capture rules.
    #[arg(long, env = "MESH_LITE_IMAGE", default_value_t = format!("mesh-lite:{}", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// When nodes fetch the image: Always, IfNotPresent or Never.
    #[arg(long, env = "MESH_LITE_IMAGE_PULL_POLICY", default_value = PullPolicy::default().as_str(), value_name = "POLICY")]
    image_pull_policy: PullPolicy,
    /// Namespace of the mesh's own workloads.
    #[arg(long, env = "MESH_LITE_MESH_NAMESPACE", default_value = DEFAULT_MESH_NAMESPACE)]
    mesh_namespace: String,
    #[arg(long, env = "MESH_LITE_TRUST_DOMAIN", value_parser = parse_trust_domain, default_value = DEFAULT_TRUST_DOMAIN)]
    trust_domain: TrustDomain,
    /// Where sidecars dial the control plane. Its Service in the mesh's namespace, if not said.
    #[arg(long, env = "MESH_LITE_CONTROL_PLANE", value_name = "HOST:PORT")]
    control_plane: Option<String>,
    /// Of a sidecar, unless its pod or namespace says otherwise.
    #[arg(long, env = "MESH_LITE_PROXY_CPU_REQUEST", value_parser = cpu, default_value = "10m", value_name = "AMOUNT")]
    proxy_cpu_request: Quantity,
    /// Likewise.
    #[arg(long, env = "MESH_LITE_PROXY_CPU_LIMIT", value_parser = cpu, default_value = "2", value_name = "AMOUNT")]
    proxy_cpu_limit: Quantity,
    /// Likewise.
    #[arg(long, env = "MESH_LITE_PROXY_MEMORY_REQUEST", value_parser = memory, default_value = "24Mi", value_name = "AMOUNT")]
    proxy_memory_request: Quantity,
    /// Likewise.
    #[arg(long, env = "MESH_LITE_PROXY_MEMORY_LIMIT", value_parser = memory, default_value = "256Mi", value_name = "AMOUNT")]
    proxy_memory_limit: Quantity,
}

impl MeshArgs {
    pub(crate) fn settings(self) -> anyhow::Result<MeshSettings> {
        let resources = Resources {
            cpu_request: self.proxy_cpu_request,
            cpu_limit: self.proxy_cpu_limit,
            memory_request: self.proxy_memory_request,
            memory_limit: self.proxy_memory_limit,
        };
        if resources.cpu_request.amount() > resources.cpu_limit.amount()
            || resources.memory_request.amount() > resources.memory_limit.amount()
        {
            anyhow::bail!(
                "a sidecar's limit of CPU or memory is below its request: raise the limit"
            );
        }
        Ok(MeshSettings {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            image: self.image,
            pull_policy: self.image_pull_policy,
            control_plane: self
                .control_plane
                .unwrap_or_else(|| MeshSettings::control_plane_of(&self.mesh_namespace)),
            mesh_namespace: self.mesh_namespace,
            trust_domain: self.trust_domain,
            resources,
        })
    }
}

fn cpu(text: &str) -> Result<Quantity, String> {
    Quantity::parse(text, Unit::Cpu)
}

fn memory(text: &str) -> Result<Quantity, String> {
    Quantity::parse(text, Unit::Memory)
}
