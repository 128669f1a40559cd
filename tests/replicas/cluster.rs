//! A cluster without Kubernetes: a scripted API server, control planes that read it, behind one
//! address, and sidecars in pods that have their tokens from the test.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mesh_lite_test_support::access_log::AccessLog;
use mesh_lite_test_support::applications::http_get;
use mesh_lite_test_support::mesh::{HEALTH_PORT, TRUST_DOMAIN, place_program, redirect_command};
use mesh_lite_test_support::network::NODE_V4;
use mesh_lite_test_support::process::succeed;
use mesh_lite_test_support::service_account_token::{TokenIssuer, TokenOf};
use mesh_lite_test_support::{
    ApiServer, Network, Pod, Process, ROOT_UID, SIDECAR_UID, eventually, eventually_within,
};
use serde_json::json;

const API_SERVER_PORT: u16 = 6443;
/// Where sidecars find the control plane, whichever answers.
const SERVICE_PORT: u16 = 15012;
/// Neither root nor the sidecar's.
const CONTROL_PLANE_UID: u32 = 1500;

struct Replica {
    grpc: SocketAddr,
    admin: SocketAddr,
    /// Connections that the service passed on to it.
    open: Arc<AtomicUsize>,
    process: Option<Process>,
}

/// Dropped in this order: sidecars, control planes, the API server, then the network under them.
pub(crate) struct Cluster {
    sidecars: Vec<(char, Process)>,
    replicas: Vec<Replica>,
    server: ApiServer,
    issuer: TokenIssuer,
    program: PathBuf,
    data: PathBuf,
    arguments: Vec<String>,
    /// What `RUST_LOG` says.
    log: &'static str,
    pub(crate) network: Network,
}

impl Cluster {
    /// So many control planes that serve, and the objects of pods a (`web-1`), b (`api-1`) and c
    /// (`guest-1`); a may call b.
    pub(crate) fn start(replicas: u16, arguments: &[&str], log: &'static str) -> Self {
        let network = Network::new();
        let program = place_program(env!("CARGO_BIN_EXE_mesh-lite").as_ref());
        let data = network.directory("authority", CONTROL_PLANE_UID);
        let address = (NODE_V4, API_SERVER_PORT);
        let listener = network
            .node
            .run(ROOT_UID, || TcpListener::bind(address).unwrap());
        let server = ApiServer::on(listener);
        let issuer = TokenIssuer::new();
        issuer.publish_at(&server);
        let mut cluster = Self {
            sidecars: Vec::new(),
            replicas: (0..replicas).map(Replica::number).collect(),
            server,
            issuer,
            program,
            data,
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            log,
            network,
        };
        cluster.put_objects();
        let mut init = cluster.command(CONTROL_PLANE_UID, "root");
        init.args(["init", "--trust-domain", TRUST_DOMAIN, "--data-dir"])
            .arg(&cluster.data);
        succeed(&mut init);
        for number in 0..cluster.replicas.len() {
            cluster.start_replica(number);
        }
        cluster.serve();
        cluster
    }

    fn put_objects(&self) {
        for namespace in ["shop", "mesh-lite-system"] {
            self.server
                .put(json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": {"mesh-lite.io/inject": "enabled"}}}));
        }
        for letter in ['a', 'b', 'c'] {
            let (app, name) = named(letter);
            let address = self.pod(letter).v4.to_string();
            self.server.put(json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop", "uid": uid(letter),
                    "labels": {"app": app}},
                "spec": {"serviceAccountName": app, "nodeName": "node1",
                    "initContainers": [{"name": "mesh-lite-proxy", "image": "mesh-lite",
                        "restartPolicy": "Always"}],
                    "containers": [{"name": "app", "image": "app"}]},
                "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}));
        }
        self.server.put(
            json!({"apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": "api-from-web", "namespace": "shop"},
                "spec": {"selector": {"matchLabels": {"app": "api"}}, "action": "ALLOW",
                    "rules": [{"from": [{"source":
                        {"principals": ["cluster.local/ns/shop/sa/web"]}}]}]}}),
        );
    }

    fn command(&self, user: u32, role: &str) -> Command {
        let program = self.program.to_str().unwrap();
        let mut command = self.network.node.command(user, program);
        command.arg(role);
        command
    }

    fn start_replica(&mut self, number: usize) {
        let mut command = self.command(CONTROL_PLANE_UID, "control-plane");
        let replica = &mut self.replicas[number];
        command.env("KUBECONFIG", self.server.kubeconfig());
        command.env("RUST_LOG", self.log);
        command.args(["--kubernetes", "--data-dir"]).arg(&self.data);
        command.args(["--trust-domain", TRUST_DOMAIN]);
        command.args(["--listen", &replica.grpc.to_string()]);
        command.args(["--admin-listen", &replica.admin.to_string()]);
        command.args(&self.arguments);
        let name = format!("control-plane-{number}");
        let mut process = Process::start(&name, command, self.network.home());
        eventually(&format!("{name} serves"), || {
            process.assert_runs();
            let address = replica.grpc;
            self.network
                .node
                .run(ROOT_UID, || TcpStream::connect(address))
        });
        replica.process = Some(process);
    }

    /// As a service's address does: connections take turns, whether there is an answer or not.
    fn serve(&self) {
        let backends: Vec<_> = self
            .replicas
            .iter()
            .map(|replica| (replica.grpc, Arc::clone(&replica.open)))
            .collect();
        let address = (NODE_V4, SERVICE_PORT);
        let listener = self
            .network
            .node
            .run(ROOT_UID, || TcpListener::bind(address).unwrap());
        // its threads end with the test's process
        self.network.node.spawn(ROOT_UID, move || {
            let mut turns = backends.iter().cycle();
            while let (Ok((client, _)), Some((backend, open))) = (listener.accept(), turns.next()) {
                // one that refuses is a client's closed connection
                if let Ok(server) = TcpStream::connect(backend) {
                    pass(client, server, open);
                }
            }
        });
    }

    /// SIGKILL.
    pub(crate) fn kill_replica(&mut self, number: usize) {
        self.replicas[number].process = None;
    }

    pub(crate) fn open_connections(&self, number: usize) -> usize {
        self.replicas[number].open.load(Ordering::Relaxed)
    }

    /// Streams of sidecars at a replica, by its own count.
    pub(crate) fn streams(&self, number: usize) -> f64 {
        let admin = self.replicas[number].admin;
        let (status, page) = http_get(&self.network.node, admin, "/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        page.lines()
            .filter(|line| line.starts_with("mesh_lite_control_plane_streams{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// What the processes printed.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let planes = self.replicas.iter().filter_map(|it| it.process.as_ref());
        let sidecars = self.sidecars.iter().map(|(_, process)| process);
        planes.chain(sidecars).map(Process::output).collect()
    }

    fn pod(&self, letter: char) -> &Pod {
        match letter {
            'a' => &self.network.a,
            'b' => &self.network.b,
            _ => &self.network.c,
        }
    }

    fn token_of(&self, letter: char) -> TokenOf {
        let (app, name) = named(letter);
        #[expect(clippy::disallowed_methods, reason = "tokens are of now")]
        let now = SystemTime::now() - Duration::from_secs(1);
        TokenOf::pod(("shop", app), (name, &uid(letter)), now)
    }

    pub(crate) fn good_token(&self, letter: char) -> String {
        let of = self.token_of(letter);
        self.issuer.accepted_at(&self.server, &of)
    }

    pub(crate) fn token_for_others(&self, letter: char) -> String {
        let audience = "https://kubernetes.default.svc".to_owned();
        let of = self.token_of(letter);
        self.issuer
            .accepted_at(&self.server, &TokenOf { audience, ..of })
    }

    pub(crate) fn token_of_no_pod(&self, letter: char) -> String {
        let of = self.token_of(letter);
        self.issuer.token(&TokenOf { pod: None, ..of })
    }

    /// Signed well, and no longer accepted.
    pub(crate) fn token_of_deleted_pod(&self, letter: char) -> String {
        let mut of = self.token_of(letter);
        of.pod = Some(("gone".to_owned(), "uid-gone".to_owned()));
        self.issuer.token(&of)
    }

    /// As the kubelet does, whole.
    pub(crate) fn write_token(&self, letter: char, token: &str) {
        let directory = self.directory(&format!("token-{letter}"), ROOT_UID);
        let unfinished = directory.join("unfinished");
        fs::write(&unfinished, token).unwrap();
        fs::rename(unfinished, directory.join("token")).unwrap();
    }

    /// Made when it is first asked for.
    fn directory(&self, name: &str, uid: u32) -> PathBuf {
        let path = self.network.home().join(name);
        if !path.exists() {
            self.network.directory(name, uid);
        }
        path
    }

    /// Rules, token and sidecar of a pod; does not wait for readiness.
    pub(crate) fn start_pod(&mut self, letter: char) {
        let token = self.good_token(letter);
        self.write_token(letter, &token);
        self.start_sidecar(letter);
    }

    /// With the token that is there.
    pub(crate) fn start_sidecar(&mut self, letter: char) {
        self.sidecars.retain(|(started, _)| *started != letter);
        let state = self.directory(&format!("capture-{letter}"), ROOT_UID);
        let namespace = &self.pod(letter).namespace;
        succeed(&mut redirect_command(
            namespace,
            &self.program,
            "auto",
            &state,
            &[],
        ));
        let data = self.directory(&format!("sidecar-{letter}"), SIDECAR_UID);
        let bundle = data.join("trust-bundle.pem");
        fs::copy(self.data.join("trust-bundle.pem"), &bundle).unwrap();
        chown(&bundle, Some(SIDECAR_UID), Some(SIDECAR_UID)).unwrap();
        let token = self.network.home().join(format!("token-{letter}/token"));
        let mut command = namespace.command(SIDECAR_UID, self.program.to_str().unwrap());
        command.env("RUST_LOG", self.log);
        command.args(["proxy", "--trust-domain", TRUST_DOMAIN]);
        command.args(["--control-plane", &format!("{NODE_V4}:{SERVICE_PORT}")]);
        command.args(["--pod-uid", &uid(letter)]);
        for (flag, path) in [
            ("--trust-bundle", bundle),
            ("--service-account-token-file", token),
            ("--data-dir", data.clone()),
            ("--capture-state-dir", state),
            ("--access-log", data.join("access.log")),
        ] {
            command.arg(flag).arg(path);
        }
        let name = format!("sidecar-{letter}");
        let process = Process::start(&name, command, self.network.home());
        self.sidecars.push((letter, process));
    }

    pub(crate) fn readiness(&self, letter: char) -> io::Result<(u16, String)> {
        let health = SocketAddr::from((self.pod(letter).v4, HEALTH_PORT));
        http_get(&self.network.node, health, "/readyz")
    }

    pub(crate) fn wait_ready(&self, letter: char) {
        eventually_within(
            Duration::from_secs(60),
            &format!("sidecar {letter} is ready"),
            || match self.readiness(letter) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }

    pub(crate) fn access_log(&self, letter: char) -> AccessLog {
        let home = self.network.home();
        AccessLog::at(home.join(format!("sidecar-{letter}/access.log")))
    }
}

impl Replica {
    fn number(number: u16) -> Self {
        let at = |port: u16| SocketAddr::from((NODE_V4, port + number));
        Self {
            grpc: at(15112),
            admin: at(15214),
            open: Arc::default(),
            process: None,
        }
    }
}

/// The app and service account, and the name of a pod.
fn named(letter: char) -> (&'static str, &'static str) {
    match letter {
        'a' => ("web", "web-1"),
        'b' => ("api", "api-1"),
        _ => ("guest", "guest-1"),
    }
}

fn uid(letter: char) -> String {
    format!("00000000-0000-4000-8000-00000000000{letter}")
}

/// Both ways, until one side ends; then the other is ended too.
fn pass(client: TcpStream, server: TcpStream, open: &Arc<AtomicUsize>) {
    open.fetch_add(1, Ordering::Relaxed);
    let ends = [
        (client.try_clone().unwrap(), server.try_clone().unwrap()),
        (server, client),
    ];
    let copies = ends.map(|(mut from, mut to)| {
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
            let _ = from.shutdown(std::net::Shutdown::Both);
        })
    });
    let open = Arc::clone(open);
    std::thread::spawn(move || {
        copies.into_iter().for_each(|copy| copy.join().unwrap());
        open.fetch_sub(1, Ordering::Relaxed);
    });
}
