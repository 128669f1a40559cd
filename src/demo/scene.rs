//! Three applications, their sidecars, one control plane: all on loopback, all real processes.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use mesh_lite_proto::decision_record::ConnectionId;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::{
    application::Server,
    processes::{Running, run_role},
    wire::{Seen, Wire},
};
use crate::{explain, terminal::Paint};

const NAMESPACE: &str = "shop";
/// Everything here takes milliseconds; a slow machine gets this long.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

const POLICY: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/web\"]}
    to:
    - operation: {ports: [\"PORT\"]}
";

pub(super) struct Scene {
    directory: Directory,
    control_plane: Running,
    sidecars: [Sidecar; 3],
    application: Server,
    wire: Wire,
}

/// One workload's sidecar.
pub(super) struct Sidecar {
    name: &'static str,
    address: Ipv4Addr,
    tunnel: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
    folder: PathBuf,
    running: Option<Running>,
}

pub(super) struct ShownIdentity {
    pub(super) spiffe_id: String,
    pub(super) serial: String,
    pub(super) seconds_left: u64,
}

impl Scene {
    pub(super) async fn start(leaf_lifetime: Duration) -> anyhow::Result<Self> {
        let directory = Directory::create()?;
        let documents = directory.folder("documents")?;
        let sidecars = [
            Sidecar::plan(&directory, "web", [127, 0, 0, 2])?,
            Sidecar::plan(&directory, "api", [127, 0, 0, 3])?,
            Sidecar::plan(&directory, "guest", [127, 0, 0, 4])?,
        ];
        let [_, api, _] = &sidecars;
        let application = free_address(Ipv4Addr::LOCALHOST)?;
        // other sidecars find api behind the wire, which passes everything on
        let wire_end = free_address(api.address)?;
        let wire = Wire::between(wire_end, api.tunnel)
            .await
            .context("can't make the wire")?;
        let port = application.port();
        let server = Server::start(application)
            .await
            .context("can't start the application")?;
        write(
            &documents.join("policy.yaml"),
            &POLICY.replace("PORT", &port.to_string()),
        )?;
        write(
            &documents.join("workloads.yaml"),
            &workloads(&sidecars, wire_end, port),
        )?;
        let state = directory.folder("control-plane")?;
        run_role(&[
            "root".as_ref(),
            "init".as_ref(),
            "--data-dir".as_ref(),
            state.as_os_str(),
        ])?;
        let (control_plane, listen) =
            start_control_plane(&directory, &state, &documents, leaf_lifetime)?;
        let mut scene = Self {
            directory,
            control_plane,
            sidecars,
            application: server,
            wire,
        };
        for index in 0..scene.sidecars.len() {
            if let Some(sidecar) = scene.sidecars.get_mut(index) {
                sidecar.start(&state, listen, application.port())?;
            }
        }
        scene.ready().await?;
        Ok(scene)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        for sidecar in &mut self.sidecars {
            let deadline = Instant::now() + PATIENCE;
            loop {
                self.control_plane.check()?;
                if let Some(running) = &mut sidecar.running {
                    running.check()?;
                }
                let state = sidecar.get("/readyz").await;
                match state {
                    Ok((200, _)) => break,
                    other if Instant::now() > deadline => {
                        bail!("the sidecar of {} is not ready: {other:?}", sidecar.name)
                    }
                    _ => sleep(LOOK_AGAIN).await,
                }
            }
        }
        Ok(())
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory.0
    }

    pub(super) fn policy_file(&self) -> PathBuf {
        self.directory.0.join("documents/policy.yaml")
    }

    pub(super) fn sidecars(&self) -> &[Sidecar] {
        &self.sidecars
    }

    pub(super) fn web(&self) -> &Sidecar {
        let [web, _, _] = &self.sidecars;
        web
    }

    pub(super) fn api(&self) -> &Sidecar {
        let [_, api, _] = &self.sidecars;
        api
    }

    pub(super) fn guest(&self) -> &Sidecar {
        let [_, _, guest] = &self.sidecars;
        guest
    }

    pub(super) fn requests_of_guest(&self) -> usize {
        self.application.guests()
    }

    pub(super) fn wire_seen(&self) -> Seen {
        self.wire.seen()
    }

    /// The connection that was denied, as api's sidecar names it.
    async fn denied(&self) -> anyhow::Result<ConnectionId> {
        let line = self.api().access_log_line(r#""decision":"deny""#).await?;
        let id = field(&line, "conn_id");
        id.parse().context("the access log names no connection")
    }

    /// What a person types to be told why it was denied.
    pub(super) async fn explain_command(&self) -> anyhow::Result<String> {
        let (id, admin) = (self.denied().await?, self.api().admin());
        Ok(format!("mesh-lite explain {id} --admin {admin}"))
    }

    /// What that command says.
    pub(super) async fn explain_denial(&self, paint: Paint) -> anyhow::Result<String> {
        let (id, admin) = (self.denied().await?, self.api().admin());
        let now = mesh_lite_proxy::clock::now();
        let told = move || explain::told_by_sidecar(id, admin, paint, now);
        tokio::task::spawn_blocking(told).await?
    }

    pub(super) async fn serials(&self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let mut serials = BTreeMap::new();
        for sidecar in &self.sidecars {
            serials.insert(sidecar.name, sidecar.identity().await?.serial);
        }
        Ok(serials)
    }

    /// Waits until every sidecar has another certificate than `before`.
    pub(super) async fn rotated(
        &self,
        before: &BTreeMap<&'static str, String>,
    ) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.serials().await?;
            if now
                .iter()
                .all(|(name, serial)| before.get(name) != Some(serial))
            {
                return Ok(now);
            }
            ensure!(
                Instant::now() < deadline,
                "certificates did not rotate: {now:?}"
            );
            sleep(LOOK_AGAIN).await;
        }
    }
}

fn start_control_plane(
    directory: &Directory,
    state: &Path,
    documents: &Path,
    leaf_lifetime: Duration,
) -> anyhow::Result<(Running, SocketAddr)> {
    let listen = free_address(Ipv4Addr::LOCALHOST)?;
    let admin = free_address(Ipv4Addr::LOCALHOST)?;
    let lifetime = format!("{}s", leaf_lifetime.as_secs());
    let running = Running::start(
        &directory.0.join("control-plane.log"),
        &[
            "control-plane".as_ref(),
            "--data-dir".as_ref(),
            state.as_os_str(),
            "--config-dir".as_ref(),
            documents.as_os_str(),
            "--listen".as_ref(),
            listen.to_string().as_ref(),
            "--admin-listen".as_ref(),
            admin.to_string().as_ref(),
            "--leaf-lifetime".as_ref(),
            lifetime.as_ref(),
        ],
    )?;
    Ok((running, listen))
}

fn workloads(sidecars: &[Sidecar; 3], wire_end: SocketAddr, port: u16) -> String {
    let mut text = String::new();
    for sidecar in sidecars {
        let (name, address) = (sidecar.name, sidecar.address);
        let tunnel = if name == "api" {
            wire_end.port()
        } else {
            sidecar.tunnel.port()
        };
        text += &format!(
            "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
             metadata: {{name: {name}, namespace: {NAMESPACE}}}\n\
             spec:\n  serviceAccount: {name}\n  addresses: [\"{address}\"]\n  \
             labels: {{app: {name}}}\n  tunnelPort: {tunnel}\n---\n"
        );
    }
    text + &format!(
        "apiVersion: mesh-lite.io/v1\nkind: Service\n\
         metadata: {{name: api, namespace: {NAMESPACE}}}\n\
         spec:\n  selector: {{app: api}}\n  ports: [{{port: 80, targetPort: {port}}}]\n"
    )
}

impl Sidecar {
    fn plan(directory: &Directory, name: &'static str, address: [u8; 4]) -> anyhow::Result<Self> {
        let address = Ipv4Addr::from(address);
        Ok(Self {
            name,
            address,
            tunnel: free_address(address)?,
            admin: free_address(Ipv4Addr::LOCALHOST)?,
            upstream: free_address(Ipv4Addr::LOCALHOST)?,
            folder: directory.folder(name)?,
            running: None,
        })
    }

    fn start(&mut self, state: &Path, control_plane: SocketAddr, port: u16) -> anyhow::Result<()> {
        let workload = format!("{NAMESPACE}/{}", self.name);
        let token = run_role(&[
            "token".as_ref(),
            "create".as_ref(),
            workload.as_ref(),
            "--data-dir".as_ref(),
            state.as_os_str(),
        ])?;
        let token_file = self.folder.join("join-token");
        write(&token_file, token.trim_end())?;
        let inbound = if self.name == "api" {
            port.to_string()
        } else {
            String::new()
        };
        let mut arguments = vec!["proxy".to_owned()];
        let mut set = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        set("--control-plane", control_plane.to_string());
        set(
            "--trust-bundle",
            state.join("trust-bundle.pem").display().to_string(),
        );
        set("--join-token-file", token_file.display().to_string());
        set("--data-dir", self.folder.display().to_string());
        set("--capture", "explicit".to_owned());
        set(
            "--upstreams",
            format!("{}={NAMESPACE}/api:80", self.upstream.port()),
        );
        if !inbound.is_empty() {
            set("--inbound-ports", inbound);
        }
        set("--tunnel-listen", self.tunnel.to_string());
        set("--admin-listen", self.admin.to_string());
        set(
            "--metrics-listen",
            SocketAddr::from((self.address, 0)).to_string(),
        );
        set(
            "--health-listen",
            SocketAddr::from((self.address, 0)).to_string(),
        );
        set("--access-log", self.access_log().display().to_string());
        set("--workers", "1".to_owned());
        self.running = Some(Running::start(
            &self.folder.join("sidecar.log"),
            &arguments,
        )?);
        Ok(())
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub(super) fn access_log(&self) -> PathBuf {
        self.folder.join("access.log")
    }

    pub(super) async fn identity(&self) -> anyhow::Result<ShownIdentity> {
        let (_, body) = self.get("/identity").await?;
        let page: Value = serde_json::from_str(&body).context("the identity page is not JSON")?;
        let certificate = page.get("certificate").unwrap_or(&Value::Null);
        let text = |key: &str| {
            certificate
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or("?")
                .to_owned()
        };
        let ends = certificate
            .get("not_after")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        let now = mesh_lite_proxy::clock::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(ShownIdentity {
            spiffe_id: text("spiffe_id"),
            serial: text("serial"),
            seconds_left: ends.saturating_sub(now.as_secs()),
        })
    }

    /// The first line of the access log that holds `part`.
    pub(super) async fn access_log_line(&self, part: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.access_log()).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| line.contains(part)) {
                return Ok(line.to_owned());
            }
            ensure!(
                Instant::now() < deadline,
                "{} never logged {part}",
                self.name
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut socket = TcpStream::connect(self.admin).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.admin
        );
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Ok((status.context("no status")?, body.to_owned()))
    }
}

/// One field of an access log line.
pub(super) fn field(line: &str, name: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap_or_default();
    match value.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    }
}

/// Who called whom, and by which line of which policy.
pub(super) fn summary(line: &str) -> String {
    format!(
        "{} -> {}, {} by {} ({})",
        field(line, "src.identity"),
        field(line, "dst.identity"),
        field(line, "decision"),
        field(line, "policy"),
        field(line, "policy_source"),
    )
}

/// The demo's own folder; removed with everything in it.
struct Directory(PathBuf);

impl Directory {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("mesh-lite-demo-{}", std::process::id()));
        // never a folder that somebody else has prepared
        private_folder(&path)?;
        Ok(Self(path))
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        private_folder(&path)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
}

/// A port of `address` that nobody uses now.
fn free_address(address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .with_context(|| format!("no port of {address} is free"))
}

/// A new folder that nobody else may look into.
fn private_folder(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can't make {}", path.display()))
}
