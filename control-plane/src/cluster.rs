//! What the parts that speak to a cluster's API server have in common.
//!
//! The API server may go away at any time: what is known goes on being served, and every part
//! tries again for ever.

use std::{path::Path, sync::Arc, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use spiffe::TrustDomain;
use tokio::sync::watch;

use crate::{
    certificate_authority::{CertificateAuthority, rotation::Trust},
    clock::Clock,
    condition::Conditions,
    policy_index::PolicyIndex,
    source::kubernetes::namespaces::Namespaces,
    workload_attestation::service_account_token::ServiceAccountTokens,
    workload_index::WorkloadIndex,
};

/// An API server is near; one that takes longer is away, and is tried again.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The API server, and the facts that parts which write to it, or ask it, go by. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// What attests pods.
    pub(crate) tokens: ServiceAccountTokens,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) mesh_namespace: Arc<str>,
    /// Issuing CA and trust bundle; announced roots are in the bundle.
    pub(crate) trust: watch::Receiver<Arc<Trust>>,
    pub(crate) authority: CertificateAuthority,
    /// Pods are its workloads. What it says before `known` is not the whole truth.
    pub(crate) workloads: watch::Receiver<Arc<WorkloadIndex>>,
    pub(crate) policies: watch::Receiver<PolicyIndex>,
    pub(crate) namespaces: watch::Receiver<Arc<Namespaces>>,
    /// True once every kind of object was read once.
    pub(crate) known: watch::Receiver<bool>,
    /// Whether this replica does what only one should. Ask again before each step.
    pub(crate) leads: watch::Receiver<bool>,
    pub(crate) conditions: Conditions,
    pub(crate) clock: Clock,
}

/// Returns once the fact is so; never if nobody says so any more, which is when the process ends.
pub(crate) async fn wait_until(fact: &mut watch::Receiver<bool>, wanted: bool) {
    if fact.wait_for(|is| *is == wanted).await.is_err() {
        std::future::pending().await
    }
}

/// # Errors
/// If nothing says where the API server is, or what says it can't be used. Whether it answers is
/// not asked.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ClusterError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).map_err(ClusterError::kubeconfig(path))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(ClusterError::kubeconfig(path))?
        }
        None => Config::infer()
            .await
            .map_err(|error| ClusterError::NoApiServer(Box::new(error)))?,
    };
    if config.accept_invalid_certs {
        return Err(ClusterError::AnyCertificate);
    }
    config.connect_timeout = Some(CONNECT_DEADLINE);
    Client::try_from(config).map_err(|error| ClusterError::Client(Box::new(error)))
}

/// Why the API server can't be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    #[error(
        "nothing says where the API server is: run in a pod of the cluster, or set KUBECONFIG. {0}"
    )]
    NoApiServer(Box<kube::config::InferConfigError>),
    #[error("the kubeconfig {file:?} can't be used: {error}")]
    Kubeconfig {
        file: std::path::PathBuf,
        error: Box<kube::config::KubeconfigError>,
    },
    #[error(
        "the kubeconfig says insecure-skip-tls-verify: whoever answers in the API server's place would say who \
         every pod is; state certificate-authority instead"
    )]
    AnyCertificate,
    #[error("the client of the API server can't be made: {0}")]
    Client(Box<kube::Error>),
}

impl ClusterError {
    fn kubeconfig(path: &Path) -> impl Fn(kube::config::KubeconfigError) -> Self + '_ {
        |error| Self::Kubeconfig {
            file: path.to_owned(),
            error: Box::new(error),
        }
    }
}
