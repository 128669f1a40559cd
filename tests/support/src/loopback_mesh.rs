//! A mesh on loopback with explicit capture: no rights are needed.
//!
//! Each workload has an address of its own in 127.0.0.0/8, unique to the test, so that the
//! sidecars' usual ports are free. The application of `api` listens on 127.0.0.1, as it must.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::Signal;

use crate::access_log::AccessLog;
use crate::applications::{Client, http_get_here};
use crate::eventually::eventually;
use crate::leftovers;
use crate::process::{Process, succeed};

/// Workloads of every such mesh; `api` answers, the others call it.
pub const WORKLOADS: [&str; 3] = ["web", "api", "guest"];
/// The one rule: web may call api.
pub const WEB_ONLY: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/web\"]}
";

#[derive(Debug)]
pub struct LoopbackMesh {
    sidecars: Vec<LoopbackSidecar>,
    control_plane: Option<Process>,
    directory: PathBuf,
    program: PathBuf,
    block: [u8; 3],
    port: u16,
    /// Beyond those that every control plane of a test has.
    control_plane_arguments: Vec<String>,
}

#[derive(Debug)]
pub struct LoopbackSidecar {
    name: &'static str,
    address: Ipv4Addr,
    process: Process,
    folder: PathBuf,
    pub log: AccessLog,
}

impl LoopbackMesh {
    /// Control plane and documents; `port` is where the application of api listens.
    pub fn start(program: &str, port: u16, policy: &str) -> Self {
        let mut mesh = Self::prepare(program, port, policy, &[]);
        mesh.start_control_plane();
        mesh
    }

    /// As [`LoopbackMesh::start`], with a control plane that gets `arguments` too and does not
    /// run yet.
    pub fn prepare(program: &str, port: u16, policy: &str, arguments: &[&str]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        leftovers::sweep();
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let block = [high, low, NEXT.fetch_add(1, Ordering::Relaxed) * 8];
        let directory = std::env::temp_dir().join(leftovers::unique_name());
        let mesh = Self {
            sidecars: Vec::new(),
            control_plane: None,
            directory,
            program: program.into(),
            block,
            port,
            control_plane_arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        };
        for folder in ["", "documents", "control-plane"] {
            make_private(&mesh.directory.join(folder));
        }
        mesh.write_documents("policy.yaml", policy);
        mesh.write_documents("workloads.yaml", &mesh.workloads());
        succeed(
            mesh.command("root")
                .arg("init")
                .arg("--data-dir")
                .arg(mesh.state()),
        );
        mesh
    }

    pub fn start_control_plane(&mut self) {
        let listen = self.control_plane_address();
        let mut command = self.command("control-plane");
        command.arg("--data-dir").arg(self.state());
        command
            .arg("--config-dir")
            .arg(self.directory.join("documents"));
        command.args(["--listen", &listen.to_string()]);
        command.args([
            "--admin-listen",
            &SocketAddr::new(listen.ip(), 15014).to_string(),
        ]);
        command.args(&self.control_plane_arguments);
        let mut process = Process::start("control-plane", command, &self.directory);
        eventually("the control plane listens", || {
            process.assert_runs();
            std::net::TcpStream::connect(listen)
        });
        self.control_plane = Some(process);
    }

    pub fn control_plane_pid(&self) -> Option<u32> {
        self.control_plane.as_ref().map(Process::pid)
    }

    /// Makes another root, in a folder of the control plane's data directory, and its issuing CA.
    pub fn init_root(&self, folder: &str) {
        let mut init = self.command("root");
        init.args(["init", "--data-dir"]).arg(self.state());
        init.arg("--root-dir").arg(self.state().join(folder));
        succeed(&mut init);
    }

    /// Signs the next issuing CA; a running control plane notices.
    pub fn renew_root(&self) {
        let mut renew = self.command("root");
        succeed(renew.arg("renew").arg("--data-dir").arg(self.state()));
    }

    /// SIGTERM, and how it ends.
    pub fn end_control_plane(&mut self) -> ExitStatus {
        let mut process = self.control_plane.take().expect("a control plane");
        process.signal(Signal::TERM);
        process.ended()
    }

    pub fn control_plane_output(&self) -> String {
        self.control_plane
            .as_ref()
            .map_or_else(String::new, Process::output)
    }

    pub fn kill_control_plane(&mut self) {
        self.control_plane = None;
    }

    /// Replaces or adds a document file, as an operator would: whole.
    pub fn write_documents(&self, file: &str, text: &str) {
        let documents = self.directory.join("documents");
        let unfinished = documents.join(format!(".{file}.unfinished"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, documents.join(file)).unwrap();
    }

    /// What the control plane says of its documents.
    pub fn control_plane_readiness(&self) -> std::io::Result<(u16, String)> {
        http_get_here(
            SocketAddr::new(self.control_plane_address().ip(), 15014),
            "/readyz",
        )
    }

    pub fn token(&self, workload: &str) -> String {
        self.token_with(workload, &[])
    }

    pub fn token_with(&self, workload: &str, arguments: &[&str]) -> String {
        let mut create = self.command("token");
        create
            .args(["create", &format!("shop/{workload}"), "--data-dir"])
            .arg(self.state())
            .args(arguments);
        succeed(&mut create)
    }

    /// Starts the sidecar of a workload with a fresh token; does not wait for readiness.
    pub fn start_sidecar(&mut self, name: &'static str) -> &LoopbackSidecar {
        let token = self.token(name);
        self.start_sidecar_with(name, &token)
    }

    pub fn start_sidecar_with(&mut self, name: &'static str, token: &str) -> &LoopbackSidecar {
        self.start_sidecar_told(name, token, &[])
    }

    pub fn start_sidecar_told(
        &mut self,
        name: &'static str,
        token: &str,
        arguments: &[&str],
    ) -> &LoopbackSidecar {
        let folder = self
            .directory
            .join(format!("{name}-{}", self.sidecars.len()));
        make_private(&folder);
        let token_file = folder.join("join-token");
        write_private(&token_file, token);
        let address = self.address(name);
        let at = |port: u16| SocketAddr::from((address, port)).to_string();
        let mut command = self.command("proxy");
        let path = |path: &Path| path.display().to_string();
        for (setting, value) in [
            ("--control-plane", self.control_plane_address().to_string()),
            (
                "--trust-bundle",
                path(&self.state().join("trust-bundle.pem")),
            ),
            ("--join-token-file", path(&token_file)),
            ("--data-dir", path(&folder)),
            ("--capture", "explicit".to_owned()),
            (
                "--upstreams",
                format!("{}=shop/api:80,{}=shop/api:81", at(8081), at(8082)),
            ),
            ("--tunnel-listen", at(15008)),
            ("--admin-listen", at(15000)),
            ("--metrics-listen", at(15020)),
            ("--health-listen", at(15021)),
            ("--access-log", path(&folder.join("access.log"))),
            ("--drain-delay", "0".to_owned()),
        ] {
            command.args([setting, &value]);
        }
        if name == "api" {
            command.args(["--inbound-ports", &self.port.to_string()]);
        }
        command.args(arguments);
        let process = Process::start(&format!("sidecar-{name}"), command, &folder);
        let log = AccessLog {
            path: folder.join("access.log"),
        };
        self.sidecars.push(LoopbackSidecar {
            name,
            address,
            process,
            folder,
            log,
        });
        self.sidecars.last().expect("one was pushed")
    }

    /// The sidecar of a workload that was started last.
    pub fn sidecar(&self, name: &str) -> &LoopbackSidecar {
        let found = self
            .sidecars
            .iter()
            .rev()
            .find(|sidecar| sidecar.name == name);
        found.unwrap_or_else(|| panic!("no sidecar of {name} was started"))
    }

    pub fn sidecar_mut(&mut self, name: &str) -> &mut LoopbackSidecar {
        let found = self
            .sidecars
            .iter_mut()
            .rev()
            .find(|sidecar| sidecar.name == name);
        found.unwrap_or_else(|| panic!("no sidecar of {name} was started"))
    }

    /// Every workload's sidecar, all ready.
    pub fn start_sidecars(&mut self) {
        for name in WORKLOADS {
            self.start_sidecar(name);
        }
        for name in WORKLOADS {
            self.sidecar(name).wait_ready();
        }
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        let index = WORKLOADS
            .iter()
            .position(|workload| *workload == name)
            .expect("a workload");
        let [high, low, first] = self.block;
        Ipv4Addr::new(
            127,
            high,
            low,
            first + 1 + u8::try_from(index).expect("three workloads"),
        )
    }

    pub fn control_plane_address(&self) -> SocketAddr {
        let [high, low, first] = self.block;
        (Ipv4Addr::new(127, high, low, first), 15012).into()
    }

    /// For what a test adds of its own; removed with the mesh.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The control plane's data directory.
    pub fn state(&self) -> PathBuf {
        self.directory.join("control-plane")
    }

    /// The documents of its workloads and of their service, as they are at first.
    pub fn workloads(&self) -> String {
        let workload = |name: &str| {
            format!(
                "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                 metadata: {{name: {name}, namespace: shop}}\n\
                 spec:\n  serviceAccount: {name}\n  addresses: [\"{}\"]\n  \
                 labels: {{app: {name}}}\n---\n",
                self.address(name)
            )
        };
        let (port, unlisted) = (self.port, if self.port == 1 { 2 } else { self.port - 1 });
        WORKLOADS.map(workload).concat()
            + &format!(
                "apiVersion: mesh-lite.io/v1\nkind: Service\n\
                 metadata: {{name: api, namespace: shop}}\n\
                 spec:\n  selector: {{app: api}}\n  \
                 ports: [{{port: 80, targetPort: {port}}}, {{port: 81, targetPort: {unlisted}}}]\n"
            )
    }

    fn command(&self, role: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.program)
            .arg(role);
        command
    }
}

impl Drop for LoopbackMesh {
    fn drop(&mut self) {
        self.sidecars.clear();
        self.control_plane = None;
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl LoopbackSidecar {
    pub fn readiness(&self) -> std::io::Result<(u16, String)> {
        http_get_here((self.address, 15021).into(), "/readyz")
    }

    pub fn wait_ready(&self) {
        eventually(
            &format!("the sidecar of {} is ready", self.name),
            || match self.readiness() {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}: {}", self.process.output())),
            },
        );
    }

    /// A call of the workload's application to api's port 80.
    pub fn call(&self) -> std::io::Result<Client> {
        Client::here((self.address, 8081).into())
    }

    /// A call to api's port 81, which api's sidecar does not serve.
    pub fn call_unserved(&self) -> std::io::Result<Client> {
        Client::here((self.address, 8082).into())
    }

    pub fn output(&self) -> String {
        self.process.output()
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its admin pages are.
    pub fn admin(&self) -> SocketAddr {
        (self.address, 15000).into()
    }

    /// Its data directory, in which its output and its access log are too.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// How it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        self.process.ended()
    }

    /// SIGTERM, and how it ends.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal(Signal::TERM);
        self.process.ended()
    }
}

fn make_private(path: &Path) {
    fs::DirBuilder::new().mode(0o700).create(path).unwrap();
}

fn write_private(path: &Path, text: &str) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
