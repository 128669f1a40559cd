//! Unmodified applications that know nothing of TLS or of a mesh, through two sidecars, captured
//! transparently, over IPv4 and IPv6; and what somebody on the wire sees of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lite_test_support::applications::{MARKER, refused};
use mesh_lite_test_support::mesh::{API_ID, DOCUMENT_FILE, POLICY, TUNNEL_PORT, WEB_ID};
use mesh_lite_test_support::process::{finish, succeed};
use mesh_lite_test_support::requirements::program;
use mesh_lite_test_support::wire_tap::{Seen, WireTap};
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, NOBODY_UID, Process, eventually, on_each_backend,
};

/// A server in pod b and its client in pod a, as their packages have them.
struct Scene {
    mesh: Mesh,
    tap: WireTap,
    directory: PathBuf,
}

impl Scene {
    fn new(backend: &'static str) -> Self {
        let mesh = MeshSettings::captured_by(env!("CARGO_BIN_EXE_mesh-lite"), backend).start();
        let tap = WireTap::start(&mesh.network);
        let directory = mesh.network.directory("application", NOBODY_UID);
        Self {
            mesh,
            tap,
            directory,
        }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn addresses(&self) -> [IpAddr; 2] {
        [self.mesh.network.b.v4.into(), self.mesh.network.b.v6.into()]
    }

    /// Both addresses as servers take them in one setting.
    fn listen_on(&self) -> String {
        self.addresses()
            .map(|address| address.to_string())
            .join(",")
    }

    /// A program of the server's package, in pod b.
    fn server(&self, program: &str) -> Command {
        self.at_home(self.mesh.network.b.namespace.command(NOBODY_UID, program))
    }

    /// A program of the client's package, in pod a.
    fn client(&self, program: &str) -> Command {
        self.at_home(self.mesh.network.a.namespace.command(NOBODY_UID, program))
    }

    fn at_home(&self, mut command: Command) -> Command {
        command
            .current_dir(&self.directory)
            .env("HOME", &self.directory)
            // mariadbd removes at its start what another one has in a common one
            .env("TMPDIR", &self.directory)
            .env("LC_ALL", "C");
        command
    }

    /// Repeats a client until its server has started, in pod b itself: nothing goes by the wire.
    fn wait_for(&self, name: &str, client: impl Fn() -> Command) {
        eventually(name, || {
            let output = finish(&mut client());
            if output.status.success() {
                return Ok(());
            }
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        });
    }

    /// What the wire and both access logs must say after clients of pod a were answered over
    /// both families on `port`; and that nobody else gets in.
    fn conclude(self, port: u16) {
        let Self { mesh, tap, .. } = self;
        let line = mesh.rule_line("api-from-web");
        for address in [IpAddr::from(mesh.network.b.v4), mesh.network.b.v6.into()] {
            let to = SocketAddr::new(address, port).to_string();
            let place = format!("{DOCUMENT_FILE}:{line}");
            let both = [
                ("event", "open"),
                ("src.identity", WEB_ID),
                ("dst.identity", API_ID),
                ("decision", "allow"),
                ("policy", POLICY),
                ("policy_source", &place),
            ];
            let with = |more: &[(&'static str, &'static str)]| [&both, more].concat();
            let outbound = [
                with(&[("direction", "outbound")]),
                vec![("original_dst", &to)],
            ];
            mesh.a().log().wait_for(&outbound.concat());
            let inbound = [with(&[("direction", "inbound")]), vec![("dst.addr", &to)]];
            mesh.b().log().wait_for(&inbound.concat());
            refused(&mesh.network.c.namespace, APPLICATION_UID, (address, port));
        }
        let seen = tap.stop();
        assert_encrypted(&seen, &mesh);
    }
}

fn assert_encrypted(seen: &Seen, mesh: &Mesh) {
    assert!(
        !seen.shows(MARKER),
        "the payload crossed the bridge readably"
    );
    assert!(
        seen.tls13_handshakes(TUNNEL_PORT) >= 2,
        "fewer than two TLS 1.3 handshakes"
    );
    let (a, b) = (&mesh.network.a, &mesh.network.b);
    for (one, other) in [
        (IpAddr::from(a.v4), IpAddr::from(b.v4)),
        (a.v6.into(), b.v6.into()),
    ] {
        assert!(
            !seen.content_between(one, other, &[]).is_empty(),
            "nothing between {one} and {other}"
        );
        let apart = seen.content_between(one, other, &[TUNNEL_PORT]);
        assert!(apart.is_empty(), "not on the tunnel port: {apart:?}");
    }
}

/// PostgreSQL's server programs are not on anybody's search path.
fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    found.sort();
    found.pop()
}

fn start(scene: &Scene, name: &str, command: Command) -> Process {
    Process::start(name, command, &scene.directory)
}

fn bracketed(address: IpAddr) -> String {
    SocketAddr::new(address, 0)
        .to_string()
        .trim_end_matches(":0")
        .to_owned()
}

on_each_backend! {
    /// curl reaches nginx.
    fn curl_reaches_nginx(backend) {
        if !program("curl_reaches_nginx", "nginx") || !program("curl_reaches_nginx", "curl") {
            return;
        }
        let scene = Scene::new(backend);
        fs::create_dir(scene.directory.join("pages")).unwrap();
        fs::write(scene.directory.join("pages/index.html"), MARKER.repeat(1000)).unwrap();
        let listen: String =
            scene.addresses().map(|address| format!("listen {}:8080;", bracketed(address))).concat();
        let home = scene.directory.display();
        let settings = format!(
            "daemon off; pid {home}/pid; error_log stderr; worker_processes 1;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {home}; proxy_temp_path {home};\n\
             fastcgi_temp_path {home}; uwsgi_temp_path {home}; scgi_temp_path {home};\n\
             server {{ {listen} root {home}/pages; }} }}\n"
        );
        fs::write(scene.directory.join("nginx.conf"), settings).unwrap();
        let mut command = scene.server("nginx");
        command.args(["-e", "stderr", "-c", &scene.path("nginx.conf")]);
        let _nginx = start(&scene, "nginx", command);
        let url = |address| format!("http://{}:8080/", bracketed(address));
        let fetch = |mut curl: Command, address| {
            curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", &url(address)]);
            curl
        };
        scene.wait_for("nginx serves", || fetch(scene.server("curl"), scene.addresses()[0]));
        for address in scene.addresses() {
            let page = succeed(&mut fetch(scene.client("curl"), address));
            assert_eq!(page, MARKER.repeat(1000));
        }
        scene.conclude(8080);
    }

    /// psql reaches PostgreSQL.
    fn psql_reaches_postgresql(backend) {
        if !program("psql_reaches_postgresql", "psql") {
            return;
        }
        let scene = Scene::new(backend);
        let bin = postgresql().expect("PostgreSQL's server is not installed; tests/run installs it");
        let tool = |name: &str| Path::new(&bin).join(name).display().to_string();
        let data = scene.path("data");
        succeed(scene.server(&tool("initdb")).args([
            "-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
        ]));
        // The server sees its own pod's addresses: the sidecar is beside it.
        let rules = "host all all 10.77.0.11/32 trust\nhost all all fd77::11/128 trust\n";
        fs::write(scene.directory.join("data/pg_hba.conf"), rules).unwrap();
        let mut command = scene.server(&tool("postgres"));
        command.args(["-D", &data, "-p", "5432", "-k", &scene.path(""), "-F"]);
        command.args(["-c", &format!("listen_addresses={}", scene.listen_on()), "-c", "ssl=off"]);
        let _postgresql = start(&scene, "postgresql", command);
        let ask = |mut psql: Command, address: IpAddr| {
            psql.args(["-h", &address.to_string(), "-p", "5432", "-U", "postgres", "-tA"]);
            psql.args(["-c", &format!("select repeat('{MARKER}', 1000)")]);
            psql
        };
        scene.wait_for("PostgreSQL serves", || ask(scene.server("psql"), scene.addresses()[0]));
        for address in scene.addresses() {
            let answer = succeed(&mut ask(scene.client("psql"), address));
            assert_eq!(answer.trim_end(), MARKER.repeat(1000));
        }
        scene.conclude(5432);
    }

    /// The MariaDB client reaches MariaDB, whose server speaks first.
    fn the_mariadb_client_reaches_mariadb(backend) {
        if !program("the_mariadb_client_reaches_mariadb", "mariadb")
            || !program("the_mariadb_client_reaches_mariadb", "mariadbd")
        {
            return;
        }
        let scene = Scene::new(backend);
        let data = format!("--datadir={}", scene.path("data"));
        succeed(scene.server("mariadb-install-db").args([
            "--no-defaults",
            &data,
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]));
        let mut command = scene.server("mariadbd");
        command.args(["--no-defaults", &data, "--port=3306", "--skip-name-resolve"]);
        command.args(["--skip-grant-tables", "--skip-networking=0", "--innodb-buffer-pool-size=16M"]);
        command.args(["--innodb-flush-method=fsync", "--innodb-use-native-aio=0"]);
        command.arg(format!("--bind-address={}", scene.listen_on()));
        command.arg(format!("--socket={}", scene.path("socket")));
        command.arg(format!("--pid-file={}", scene.path("pid")));
        let _mariadb = start(&scene, "mariadb", command);
        let ask = |mut client: Command, address: IpAddr| {
            client.args(["--no-defaults", "-h", &address.to_string(), "-P", "3306", "-u", "root"]);
            client.args(["--protocol=tcp", "-N", "-B", "-e"]);
            client.arg(format!("select repeat('{MARKER}', 1000)"));
            client
        };
        scene.wait_for("MariaDB serves", || ask(scene.server("mariadb"), scene.addresses()[0]));
        for address in scene.addresses() {
            let answer = succeed(&mut ask(scene.client("mariadb"), address));
            assert_eq!(answer.trim_end(), MARKER.repeat(1000));
        }
        scene.conclude(3306);
    }

    /// redis-cli reaches Redis.
    fn redis_cli_reaches_redis(backend) {
        if !program("redis_cli_reaches_redis", "redis-server")
            || !program("redis_cli_reaches_redis", "redis-cli")
        {
            return;
        }
        let scene = Scene::new(backend);
        let mut command = scene.server("redis-server");
        command.args(["--port", "6379", "--protected-mode", "no", "--save", "", "--bind"]);
        command.args(scene.addresses().map(|address| address.to_string()));
        command.args(["--dir", &scene.path("")]);
        let _redis = start(&scene, "redis", command);
        let ask = |mut client: Command, address: IpAddr, words: &[&str]| {
            client.args(["-h", &address.to_string(), "-p", "6379"]).args(words);
            client
        };
        scene.wait_for("Redis serves", || {
            ask(scene.server("redis-cli"), scene.addresses()[0], &["ping"])
        });
        for address in scene.addresses() {
            let set = succeed(&mut ask(scene.client("redis-cli"), address, &["set", "key", MARKER]));
            assert_eq!(set.trim_end(), "OK");
            let got = succeed(&mut ask(scene.client("redis-cli"), address, &["get", "key"]));
            assert_eq!(got.trim_end(), MARKER);
        }
        scene.conclude(6379);
    }
}
