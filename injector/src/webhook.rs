//! The webhook as a server.
//!
//! ```text
//! API server ── 15017, TLS 1.3, HTTP/1.1 ──▶ listener ─▶ review ─▶ injection_decision ─▶ answer
//! kubelet, Prometheus ── 15014, plain ─────▶ admin: /livez, /readyz, /metrics
//! serving_certificate ─▶ what listener shows;  namespaces ─▶ what review goes by
//! ```
//! What does not know what it must know answers nobody: a pod that can't be judged is refused, and
//! its author told why.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use mesh_lite_proto::kubernetes::INJECTOR_SERVICE;
use tokio::{net::TcpListener, sync::watch, time};

use self::{admin::Admin, listener::Listener, review::Reviews};
pub use crate::serving_certificate::keeper::Pace;
use crate::{
    clock::Clock,
    mesh_settings::MeshSettings,
    metrics::Metrics,
    namespaces::Namespaces,
    registration::{self, Registration},
    serving_certificate::{
        ServerName,
        keeper::{Keeper, Serving},
    },
};

mod admin;
mod body;
mod listener;
mod places;
mod review;

/// After this and [`DRAIN`] the process ends whatever is still open. The API server gives a call
/// three seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// Between SIGTERM and the end of listening: until every node knows that this replica is no
/// endpoint of the Service any more.
pub const DRAIN: Duration = Duration::from_secs(5);

/// An API server is near; one that takes longer is away, and is tried again.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// What the injector is told at its start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the webhook, TLS. An unspecified IPv6 address becomes IPv4's where there is no IPv6.
    pub listen: SocketAddr,
    /// Of health, readiness and metrics, plain HTTP.
    pub admin_listen: SocketAddr,
    pub mesh: MeshSettings,
    pub drain: Duration,
    pub pace: Pace,
}

/// Where it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub webhook: SocketAddr,
    pub admin: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(
        "no API server is known: the injector runs in a pod with a service account's token, or with KUBECONFIG \
         ({0})"
    )]
    NoCluster(String),
    #[error(
        "the kubeconfig says insecure-skip-tls-verify: whoever answers in the API server's place would get the \
         webhook's key; state certificate-authority instead"
    )]
    AnyCertificate,
    #[error("{flag} {address} can't be listened on: {error}")]
    Listen {
        flag: &'static str,
        address: SocketAddr,
        error: io::Error,
    },
}

/// Whether the injector goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    NotYet,
    /// It answers, and asks those who call to call another replica.
    Draining,
    /// Nothing new is accepted.
    Now,
}

/// The client of the cluster that this pod is in, or of `KUBECONFIG`.
///
/// # Errors
/// If there is neither, or it can't be used. Whether the API server answers is not asked.
pub async fn client() -> Result<Client, RunError> {
    let no_cluster = |error: String| RunError::NoCluster(error.escape_debug().to_string());
    let config = kube::Config::infer()
        .await
        .map_err(|error| no_cluster(error.to_string()))?;
    Client::try_from(careful(config)?).map_err(|error| no_cluster(error.to_string()))
}

/// As the control plane takes it too.
fn careful(mut config: kube::Config) -> Result<kube::Config, RunError> {
    if config.accept_invalid_certs {
        return Err(RunError::AnyCertificate);
    }
    config.connect_timeout = Some(CONNECT_DEADLINE);
    Ok(config)
}

/// Serves until `ended` is ready, then until the last answers are given. `bound` hears where it
/// listens.
///
/// # Errors
/// If it can't listen. An API server that is away is waited for.
pub async fn run(
    settings: Settings,
    client: Client,
    clock: Clock,
    ended: impl Future<Output = ()>,
    bound: impl FnOnce(Bound),
) -> Result<(), RunError> {
    let webhook = listen("--listen", settings.listen).await?;
    let admin = listen("--admin-listen", settings.admin_listen).await?;
    let at = Bound {
        webhook: address(&webhook, settings.listen),
        admin: address(&admin, settings.admin_listen),
    };
    let metrics = Metrics::new();
    let (seen, registration) = watch::channel(Registration::default());
    let (publish, serving) = watch::channel(Serving::default());
    let (namespaces, following) = Namespaces::follow(client.clone());
    let (end, ending) = watch::channel(Ending::NotYet);
    let keeper = Keeper {
        client: client.clone(),
        name: ServerName::new(INJECTOR_SERVICE, &settings.mesh.mesh_namespace),
        mesh_namespace: settings.mesh.mesh_namespace.clone(),
        clock,
        pace: settings.pace,
        registration,
        serving: publish,
    };
    let admin_page = Admin {
        metrics: metrics.clone(),
        serving: serving.clone(),
        namespaces: namespaces.clone(),
        ending: ending.clone(),
        clock,
    };
    let listener = Listener {
        serving,
        reviews: Arc::new(Reviews::new(settings.mesh, namespaces, metrics.clone())),
        metrics,
        ending,
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(following);
    tasks.spawn(registration::follow(client, seen));
    tasks.spawn(keeper.run());
    tasks.spawn(admin_page.run(admin));
    let answering = tokio::spawn(listener.run(webhook));
    tracing::info!(webhook = %at.webhook, admin = %at.admin, "the injector listens");
    bound(at);
    ended.await;
    tracing::info!("ending: answering for {:?} more", settings.drain);
    end.send_replace(Ending::Draining);
    time::sleep(settings.drain).await;
    end.send_replace(Ending::Now);
    let _ = time::timeout(LAST_ANSWERS, answering).await;
    Ok(())
}

async fn listen(flag: &'static str, at: SocketAddr) -> Result<TcpListener, RunError> {
    let failed = |error| RunError::Listen {
        flag,
        address: at,
        error,
    };
    match TcpListener::bind(at).await {
        Err(error)
            if is_without_ipv6(&error)
                && at.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED) =>
        {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, at.port()));
            TcpListener::bind(v4).await.map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

/// EAFNOSUPPORT or EADDRNOTAVAIL: a node that was started without IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error() == Some(97)
}

fn address(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> kube::Config {
        kube::Config::new("https://127.0.0.1:1".parse().unwrap())
    }

    #[test]
    fn an_api_server_that_anybody_can_play_is_not_asked() {
        let mut anybody = config();
        anybody.accept_invalid_certs = true;
        let error = careful(anybody).unwrap_err().to_string();
        assert!(error.contains("certificate-authority"), "{error}");
    }

    #[test]
    fn an_api_server_that_says_nothing_is_away_after_seconds() {
        let deadline = careful(config()).unwrap().connect_timeout;
        assert_eq!(deadline, Some(CONNECT_DEADLINE));
    }
}
