//! A sidecar whose application talks to every service of the cluster.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use mesh_lite_control_plane::clock;
use mesh_lite_test_support::{
    api_server::ApiServer,
    eventually,
    service_account_token::{TokenIssuer, TokenOf},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

/// On loopback a connection is there at once.
const CONNECTED: Duration = Duration::from_secs(1);

pub(crate) struct Sidecar {
    pub(crate) child: Child,
    health: SocketAddr,
    /// One for each service.
    upstreams: Vec<SocketAddr>,
    next: usize,
}

/// The pod that it runs in.
pub(crate) fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": "caller", "uid": "uid-caller"},
        "spec": {"serviceAccountName": "caller", "nodeName": "node-1",
            "initContainers": [{"name": "mesh-lite-proxy"}]},
        "status": {"phase": "Running", "podIP": "10.127.0.1", "podIPs": [{"ip": "10.127.0.1"}]}})
}

impl Sidecar {
    pub(crate) fn start(
        program: &Path,
        server: &ApiServer,
        (control_plane, directory): (SocketAddr, &Path),
        services: usize,
    ) -> anyhow::Result<Self> {
        let issuer = TokenIssuer::new();
        let of = TokenOf::pod(("shop", "caller"), ("caller", "uid-caller"), clock::now());
        let token = directory.join("token");
        fs::write(&token, issuer.accepted_at(server, &of))?;
        let mut upstreams = free(services.saturating_add(4))?;
        let own = upstreams.split_off(services);
        let [tunnel, admin, metrics, health] = own.as_slice() else {
            anyhow::bail!("too few free ports");
        };
        let health = *health;
        let named: Vec<String> = upstreams
            .iter()
            .enumerate()
            .map(|(service, listen)| format!("{listen}=shop/s-{service}:80"))
            .collect();
        let child = Command::new(program)
            .args(["proxy", "--capture", "explicit", "--access-log", "off"])
            .args(["--control-plane", &control_plane.to_string()])
            .args(["--upstreams", &named.join(",")])
            .args(["--tunnel-listen", &tunnel.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--metrics-listen", &metrics.to_string()])
            .args(["--health-listen", &health.to_string()])
            .arg("--service-account-token-file")
            .arg(token)
            .arg("--trust-bundle")
            .arg(directory.join("state/trust-bundle.pem"))
            .arg("--data-dir")
            .arg(directory.join("caller"))
            .stderr(Stdio::null())
            .spawn()?;
        ensure!(!upstreams.is_empty(), "a cluster without a service");
        Ok(Self {
            child,
            health,
            upstreams,
            next: 0,
        })
    }

    pub(crate) fn is_ready(&self) {
        eventually("the sidecar is ready", || {
            let page = format!("http://{}/readyz", self.health);
            let asked = Command::new("curl").args(["-sf", &page]).output();
            let ready = asked.is_ok_and(|output| output.status.success());
            ready.then_some(()).ok_or("not yet")
        });
    }

    /// The application dials the next service, so that the sidecar follows it.
    pub(crate) async fn dial(&mut self) -> anyhow::Result<()> {
        let place = self.next % self.upstreams.len();
        self.next = place.saturating_add(1);
        if let Some(upstream) = self.upstreams.get(place) {
            // reset as soon as the endpoint is out of reach, which all of them are here
            let _ = timeout(CONNECTED, TcpStream::connect(upstream)).await?;
        }
        Ok(())
    }
}

/// Different addresses that nobody listens on.
fn free(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let addresses = held.iter().map(TcpListener::local_addr);
    Ok(addresses.collect::<Result<_, _>>()?)
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
