//! A whole mesh: control plane on the node, sidecars in pods a and b.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::access_log::AccessLog;
use crate::eventually::eventually;
use crate::leftovers;
use crate::network::{NODE_V4, Network, Pod};
use crate::process::{Process, fail, succeed};
use crate::{ROOT_UID, SIDECAR_UID};

mod sidecar;

pub use sidecar::Sidecar;

pub const TRUST_DOMAIN: &str = "cluster.local";
pub const OUTBOUND_PORT: u16 = 15001;
pub const INBOUND_PORT: u16 = 15006;
pub const TUNNEL_PORT: u16 = 15008;
pub const HEALTH_PORT: u16 = 15021;
pub const METRICS_PORT: u16 = 15020;
const CONTROL_PLANE_PORT: u16 = 15012;
/// The control plane's user: neither root nor the sidecar's.
const CONTROL_PLANE_UID: u32 = 1500;

/// Workloads as the tests have them: a calls, b answers. `caller` may reach every port of b.
pub const DOCUMENTS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web-1, namespace: shop}
spec:
  serviceAccount: web
  addresses: [10.77.0.10, \"fd77::10\"]
  labels: {app: web}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api-1, namespace: shop}
spec:
  serviceAccount: api
  addresses: [10.77.0.11, \"fd77::11\"]
  labels: {app: api}
---
apiVersion: mesh-lite.io/v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  addresses: [10.96.0.11, \"fd96::11\"]
  selector: {app: api}
  ports: [{port: 8080}]
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [\"cluster.local/ns/shop/sa/web\", \"cluster.local/ns/shop/sa/api\"]
";

/// Identity of the workload in pod a, and of the one in pod b.
pub const WEB_ID: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub const API_ID: &str = "spiffe://cluster.local/ns/shop/sa/api";
/// Where [`DOCUMENTS`] go.
pub const DOCUMENT_FILE: &str = "shop.yaml";
/// The policy in [`DOCUMENTS`], as access logs name it.
pub const POLICY: &str = "shop/api-from-web";
/// A service address of b, which no interface has.
pub const API_VIPS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 11)),
    IpAddr::V6(std::net::Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x11)),
];

/// How a test wants its mesh.
#[derive(Debug, Clone)]
pub struct MeshSettings {
    program: PathBuf,
    /// Of another release than `program`, if a test wants that.
    control_plane_program: Option<PathBuf>,
    backend: &'static str,
    redirect: Vec<String>,
    control_plane: Vec<String>,
    proxy: Vec<String>,
    documents: Vec<String>,
}

impl MeshSettings {
    /// `program` is the binary under test, `backend` what `redirect` is told.
    pub fn captured_by(program: &str, backend: &'static str) -> Self {
        Self {
            program: program.into(),
            control_plane_program: None,
            backend,
            redirect: Vec::new(),
            control_plane: Vec::new(),
            proxy: Vec::new(),
            documents: vec![DOCUMENTS.to_owned()],
        }
    }

    #[must_use]
    pub fn redirect(mut self, arguments: &[&str]) -> Self {
        self.redirect
            .extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    #[must_use]
    pub fn control_plane(mut self, arguments: &[&str]) -> Self {
        self.control_plane
            .extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    #[must_use]
    pub fn proxy(mut self, arguments: &[&str]) -> Self {
        self.proxy
            .extend(arguments.iter().map(|text| (*text).to_owned()));
        self
    }

    /// The control plane begins as another release.
    #[must_use]
    pub fn control_plane_by(mut self, program: &Path) -> Self {
        self.control_plane_program = Some(program.to_owned());
        self
    }

    /// One more document.
    #[must_use]
    pub fn document(mut self, text: &str) -> Self {
        self.documents.push(text.to_owned());
        self
    }

    /// Control plane, rules in pods a and b, sidecars in both, all ready.
    pub fn start(self) -> Mesh {
        let mut mesh = self.start_control_plane();
        for letter in ['a', 'b'] {
            mesh.capture(letter);
            mesh.start_sidecar(letter);
        }
        mesh.a().wait_ready(&mesh.network);
        mesh.b().wait_ready(&mesh.network);
        mesh
    }

    /// Only the control plane: for tests about what comes before.
    pub fn start_control_plane(self) -> Mesh {
        let network = Network::new();
        let program = place_program(&self.program);
        let control_plane_program = match &self.control_plane_program {
            Some(other) => place_beside(&network, other),
            None => program.clone(),
        };
        let data = network.directory("control-plane", CONTROL_PLANE_UID);
        let config = network.directory("documents", CONTROL_PLANE_UID);
        fs::write(config.join(DOCUMENT_FILE), self.documents.join("---\n")).unwrap();
        let mut mesh = Mesh {
            settings: self,
            program,
            control_plane_program,
            data,
            config,
            sidecars: [None, None, None],
            control_plane: None,
            network,
        };
        let mut init = mesh.control_plane_command("root");
        init.args(["init", "--trust-domain", TRUST_DOMAIN, "--data-dir"])
            .arg(&mesh.data);
        succeed(&mut init);
        mesh.start_control_plane_again();
        mesh
    }
}

/// Dropped in this order: sidecars, control plane, then the network under them.
#[derive(Debug)]
pub struct Mesh {
    sidecars: [Option<Sidecar>; 3],
    control_plane: Option<Process>,
    settings: MeshSettings,
    program: PathBuf,
    control_plane_program: PathBuf,
    data: PathBuf,
    config: PathBuf,
    pub network: Network,
}

impl Mesh {
    /// The caller's sidecar.
    pub fn a(&self) -> &Sidecar {
        self.sidecars[0].as_ref().expect("sidecar a was started")
    }

    /// The answerer's sidecar.
    pub fn b(&self) -> &Sidecar {
        self.sidecars[1].as_ref().expect("sidecar b was started")
    }

    pub fn a_mut(&mut self) -> &mut Sidecar {
        self.sidecars[0].as_mut().expect("sidecar a was started")
    }

    pub fn b_mut(&mut self) -> &mut Sidecar {
        self.sidecars[1].as_mut().expect("sidecar b was started")
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn control_plane(&self) -> &Process {
        self.control_plane
            .as_ref()
            .expect("the control plane was started")
    }

    /// SIGKILL to the control plane.
    pub fn kill_control_plane(&mut self) {
        self.control_plane = None;
    }

    /// SIGTERM to the control plane, and another release of it on the same directories.
    pub fn replace_control_plane(&mut self, program: &Path) {
        let mut running = self.control_plane.take().expect("a control plane");
        running.signal(Signal::TERM);
        assert!(running.ended().success(), "{}", running.output());
        self.control_plane_program = place_beside(&self.network, program);
        self.start_control_plane_again();
    }

    /// Sidecars, and their rules, are of another release from now on.
    pub fn sidecars_by(&mut self, program: &Path) {
        self.program = place_beside(&self.network, program);
    }

    pub fn start_control_plane_again(&mut self) {
        let mut command = self.control_plane_command("control-plane");
        command.arg("--data-dir").arg(&self.data);
        command.arg("--config-dir").arg(&self.config);
        command.args(["--listen", &format!("{NODE_V4}:{CONTROL_PLANE_PORT}")]);
        command.args(["--admin-listen", &format!("{NODE_V4}:15014")]);
        command.args(&self.settings.control_plane);
        let mut process = Process::start("control-plane", command, self.network.home());
        eventually("the control plane listens", || {
            process.assert_runs();
            let address = SocketAddr::from((NODE_V4, CONTROL_PLANE_PORT));
            self.network
                .node
                .run(ROOT_UID, || std::net::TcpStream::connect(address))
        });
        self.control_plane = Some(process);
    }

    /// Where documents lie that are in force.
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// Replaces or adds a document file, as an operator would: whole.
    pub fn write_documents(&self, file: &str, text: &str) {
        let unfinished = self.config.join(format!(".{file}.unfinished"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.config.join(file)).unwrap();
    }

    fn control_plane_command(&self, role: &str) -> Command {
        let program = self.control_plane_program.to_str();
        let program = program.expect("a path of our own making");
        let mut command = self.network.node.command(CONTROL_PLANE_UID, program);
        command.arg(role);
        command
    }

    fn pod(&self, letter: char) -> &Pod {
        match letter {
            'a' => &self.network.a,
            'b' => &self.network.b,
            _ => &self.network.c,
        }
    }

    /// Runs `mesh-lite redirect` in a pod; what it printed.
    pub fn capture(&self, letter: char) -> String {
        let state = self.state_dir(letter);
        if !state.exists() {
            self.network.directory(&state_name(letter), ROOT_UID);
        }
        let arguments: Vec<&str> = self.settings.redirect.iter().map(String::as_str).collect();
        succeed(&mut self.redirect_command(letter, &arguments))
    }

    /// `mesh-lite redirect` as an init container has it: root with NET_ADMIN alone.
    pub fn redirect_command(&self, letter: char, arguments: &[&str]) -> Command {
        redirect_command(
            &self.pod(letter).namespace,
            &self.program,
            self.settings.backend,
            &self.state_dir(letter),
            arguments,
        )
    }

    pub fn state_dir(&self, letter: char) -> PathBuf {
        self.network.home().join(state_name(letter))
    }

    /// Starts a pod's sidecar with a join token of its workload; does not wait for readiness.
    /// Pod c is `shop/guest-1`, which [`DOCUMENTS`] don't have: it is in the mesh if a test says so.
    pub fn start_sidecar(&mut self, letter: char) {
        let workload = match letter {
            'a' => "shop/web-1",
            'b' => "shop/api-1",
            _ => "shop/guest-1",
        };
        let command = self.sidecar_command(letter, workload, SIDECAR_UID);
        self.start_sidecar_as(letter, command);
    }

    /// As [`Mesh::start_sidecar`], with another command.
    pub fn start_sidecar_as(&mut self, letter: char, command: (Vec<String>, PathBuf, u32)) {
        let (arguments, data, uid) = command;
        let pod = self.pod(letter);
        let mut sidecar = Sidecar {
            process: None,
            name: format!("sidecar-{letter}"),
            namespace: pod.namespace.name().to_owned(),
            health: (pod.v4, HEALTH_PORT).into(),
            log: AccessLog {
                path: data.join("access.log"),
            },
            home: self.network.home().to_owned(),
            program: self.program.clone(),
            arguments,
            uid,
        };
        sidecar.start(&self.network);
        self.sidecars[place(letter)] = Some(sidecar);
    }

    /// Starts a pod's sidecar again with what it had: same user, same directories.
    pub fn start_sidecar_again(&mut self, letter: char) {
        self.start_sidecar_unready(letter);
        self.sidecar(letter).wait_ready(&self.network);
    }

    /// As [`Mesh::start_sidecar_again`], for one that is not expected to become ready.
    pub fn start_sidecar_unready(&mut self, letter: char) {
        let sidecar = self.sidecars[place(letter)].as_mut();
        sidecar
            .expect("the sidecar was started before")
            .start(&self.network);
    }

    pub fn sidecar(&self, letter: char) -> &Sidecar {
        let sidecar = self.sidecars[place(letter)].as_ref();
        sidecar.expect("the sidecar was started")
    }

    /// What the sidecar of a pod is run with, its data directory, its user.
    pub fn sidecar_command(
        &self,
        letter: char,
        workload: &str,
        uid: u32,
    ) -> (Vec<String>, PathBuf, u32) {
        let data = self.network.directory(&format!("sidecar-{letter}"), uid);
        let token = data.join("join-token");
        fs::write(&token, self.join_token(workload)).unwrap();
        chown(&token, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let bundle = self.network.home().join("trust-bundle.pem");
        fs::copy(self.data.join("trust-bundle.pem"), &bundle).unwrap();
        fs::set_permissions(&bundle, fs::Permissions::from_mode(0o644)).unwrap();
        let path = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> =
            ["proxy", "--capture", "transparent"].map(Into::into).into();
        for (name, value) in [
            ("--control-plane", format!("{NODE_V4}:{CONTROL_PLANE_PORT}")),
            ("--trust-domain", TRUST_DOMAIN.to_owned()),
            ("--trust-bundle", path(&bundle)),
            ("--join-token-file", path(&token)),
            ("--data-dir", path(&data)),
            ("--capture-state-dir", path(&self.state_dir(letter))),
            ("--access-log", path(&data.join("access.log"))),
        ] {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(self.settings.proxy.iter().cloned());
        (arguments, data, uid)
    }

    /// A fresh join token for a workload.
    pub fn join_token(&self, workload: &str) -> String {
        let mut create = self.control_plane_command("token");
        create
            .args(["create", workload, "--data-dir"])
            .arg(&self.data);
        succeed(&mut create)
    }

    pub fn trust_bundle(&self) -> Vec<u8> {
        fs::read(self.data.join("trust-bundle.pem")).unwrap()
    }

    /// The line of the first rule of the policy named: what sidecars report that it decided.
    pub fn rule_line(&self, policy: &str) -> usize {
        let text = fs::read_to_string(self.config.join(DOCUMENT_FILE)).unwrap();
        let named = |line: &str| line.contains(&format!("name: {policy},"));
        let mut from_policy = text
            .lines()
            .enumerate()
            .skip_while(|(_, line)| !named(line));
        let rule = from_policy.find(|(_, line)| line.starts_with("  - "));
        let (before, _) = rule.expect("a policy has rules");
        before + 1
    }
}

/// Among the sidecars.
fn place(letter: char) -> usize {
    match letter {
        'a' => 0,
        'b' => 1,
        _ => 2,
    }
}

fn state_name(letter: char) -> String {
    format!("capture-{letter}")
}

/// `mesh-lite redirect` as an init container has it: root with NET_ADMIN alone.
pub fn redirect_command(
    namespace: &crate::Namespace,
    program: &Path,
    backend: &str,
    state_dir: &Path,
    arguments: &[&str],
) -> Command {
    let program = program.to_str().expect("a path of our own making");
    // The older interface opens a raw socket to talk to the kernel.
    let rights: &[&str] = if backend == "iptables-legacy" {
        &["net_admin", "net_raw"]
    } else {
        &["net_admin"]
    };
    let mut command = namespace.command_with_capabilities(ROOT_UID, rights, program);
    command
        .args(["redirect", "--backend", backend, "--state-dir"])
        .arg(state_dir);
    command.args(arguments);
    command
}

/// Puts the binary where every user may run it. Shared by all tests of one run, and removed by
/// the next one: a run beside this one may test another build.
pub fn place_program(program: &Path) -> PathBuf {
    let directory = std::env::temp_dir().join(leftovers::name_of_the_run());
    let placed = directory.join("mesh-lite");
    let same = |placed: &Path| {
        let (placed, built) = (fs::metadata(placed).ok()?, fs::metadata(program).ok()?);
        (placed.len() == built.len() && placed.modified().ok()? >= built.modified().ok()?)
            .then_some(())
    };
    if same(&placed).is_none() {
        leftovers::sweep();
        let _ = fs::create_dir(&directory);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        // Tests start beside each other: each copies, the last rename wins, all are the same.
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let unfinished = directory.join(format!("unfinished-{process}-{thread:?}"));
        fs::copy(program, &unfinished)
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&unfinished, &placed).unwrap();
    }
    placed
}

/// Another release's binary, for one network alone: [`place_program`] has place for one.
fn place_beside(network: &Network, program: &Path) -> PathBuf {
    let numbers = 0_u32..;
    let mut places = numbers.map(|number| network.home().join(format!("mesh-lite-{number}")));
    let placed = places
        .find(|place| !place.exists())
        .expect("numbers go on for ever");
    fs::copy(program, &placed).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    fs::set_permissions(&placed, fs::Permissions::from_mode(0o755)).unwrap();
    placed
}

/// The complaint of a `redirect` that must fail.
pub fn redirect_fails(mesh: &Mesh, letter: char, arguments: &[&str]) -> String {
    fail(&mut mesh.redirect_command(letter, arguments))
}
