//! What the control plane is told at its start. Everything wrong with it is said at once.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mesh_lite_proto::identity::WorkloadId;
use spiffe::TrustDomain;

use crate::{
    outbound_rules::OutboundRules, policy_index::ShippedDefaults,
    serving_identity::control_plane_id, workload_index::is_name,
};

/// A day.
pub const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shorter leaves leave no room for a control plane that is away for a minute.
pub const SHORT_LEAF: Duration = Duration::from_secs(300);
/// Below this not even renewal has room. For demonstrations and tests.
pub const SHORTEST_LEAF: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Settings {
    /// In a cluster a projected volume, which is read only.
    pub data_dir: PathBuf,
    pub documents: DocumentSource,
    /// What holds where no policy says anything.
    pub shipped: ShippedDefaults,
    pub trust_domain: TrustDomain,
    pub mesh_namespace: String,
    /// Take Istio's documents as they are; those in this namespace are for the whole mesh.
    pub istio_root_namespace: Option<String>,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub leaf_lifetime: Duration,
    pub outbound: OutboundRules,
    /// Make keys here for SDS clients that bring no certificate request.
    pub allow_remote_keys: bool,
}

/// Where workloads, services and policy come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentSource {
    /// Documents in the files of a directory.
    Directory(PathBuf),
    /// Objects of the cluster's API server; workloads are attested by their service-account
    /// tokens.
    Kubernetes {
        /// `None`: as every client finds it, by KUBECONFIG or from within the cluster.
        kubeconfig: Option<PathBuf>,
    },
}

/// Settings that make sense together.
pub(crate) struct Checked {
    pub(crate) settings: Settings,
    pub(crate) own_id: WorkloadId,
    pub(crate) warnings: Vec<String>,
}

impl Settings {
    pub(crate) fn check(self) -> Result<Checked, InvalidSettings> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let own_id = control_plane_id(&self.trust_domain, &self.mesh_namespace);
        if !is_name(&self.mesh_namespace) {
            problems.push(format!(
                "--mesh-namespace {:?}: use 1 to 63 lower-case letters, digits, dashes and dots",
                self.mesh_namespace
            ));
        }
        problems.extend(self.wrong_root_of_istio());
        if self.leaf_lifetime < SHORTEST_LEAF {
            problems.push(format!(
                "--leaf-lifetime {:?} is shorter than {SHORTEST_LEAF:?}, the least that can be renewed in time",
                self.leaf_lifetime
            ));
        } else if self.leaf_lifetime < SHORT_LEAF {
            warnings.push(format!(
                "--leaf-lifetime {:?} is shorter than {SHORT_LEAF:?}: a control plane that is away for a \
                 moment breaks the mesh. Not for production",
                self.leaf_lifetime
            ));
        }
        if self.allow_remote_keys {
            warnings.push(
                "--allow-remote-keys: private keys of SDS clients without a certificate request are made in this \
                 process and sent to them; whoever holds this process or a reusable token holds those keys"
                    .to_owned(),
            );
        }
        problems.extend(self.missing_directories());
        problems.extend(self.wrong_addresses_and_names());
        match own_id {
            Ok(own_id) if problems.is_empty() => Ok(Checked {
                settings: self,
                own_id,
                warnings,
            }),
            Ok(_) => Err(InvalidSettings(problems)),
            Err(error) => {
                problems.push(format!("--mesh-namespace: {error}"));
                Err(InvalidSettings(problems))
            }
        }
    }

    fn wrong_root_of_istio(&self) -> Vec<String> {
        let Some(name) = &self.istio_root_namespace else {
            return Vec::new();
        };
        let mut problems = Vec::new();
        if !is_name(name) {
            problems.push(format!(
                "--istio-root-namespace {name:?}: that is not a namespace; Istio's is istio-system \
                 unless its meshConfig.rootNamespace says otherwise"
            ));
        }
        if matches!(self.documents, DocumentSource::Kubernetes { .. }) {
            problems.push(
                "--istio-root-namespace is for files: with --kubernetes only objects of mesh-lite.io/v1 are read"
                    .to_owned(),
            );
        }
        problems
    }

    fn missing_directories(&self) -> impl Iterator<Item = String> {
        let (config_dir, remedy) = match &self.documents {
            DocumentSource::Directory(path) => (Some(path), "run `mesh-lite root init` with it"),
            DocumentSource::Kubernetes { .. } => {
                let remedy =
                    "mount the trust bundle and the issuing CA there, as `mesh-lite install` does";
                (None, remedy)
            }
        };
        let data_dir = ("--data-dir", &self.data_dir, remedy);
        let config_dir = config_dir.map(|path| ("--config-dir", path, "create it"));
        let needed = [Some(data_dir), config_dir].into_iter().flatten();
        let missing = needed.filter(|(_, path, _)| !path.is_dir());
        missing.map(|(flag, path, remedy)| {
            format!(
                "{flag} {}: there is no such directory; {remedy}",
                path.display()
            )
        })
    }

    fn wrong_addresses_and_names(&self) -> impl Iterator<Item = String> {
        let doubled = self.listen == self.admin_listen && self.listen.port() != 0;
        let doubled =
            doubled.then(|| format!("--listen and --admin-listen are both {}", self.listen));
        let namespaces = self.outbound.unmeshed_by_namespace.keys();
        let wrong = namespaces
            .filter(|name| !is_name(name))
            .map(|name| format!("--outbound-unmeshed {name:?}=...: that is not a namespace"));
        doubled.into_iter().chain(wrong)
    }
}

/// Everything that is wrong, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidSettings(pub Vec<String>);

impl std::fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for InvalidSettings {}

#[cfg(test)]
mod tests;
