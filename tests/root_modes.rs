//! `mesh-lite root` and the control plane as the operator runs them: two users, two processes,
//! one data directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mesh_lite_test_support::applications::http_get_here;
use mesh_lite_test_support::process::{Process, succeed};
use mesh_lite_test_support::requirements::program;
use mesh_lite_test_support::{APPLICATION_UID, eventually, needs_namespaces};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

fn mesh_lite(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--data-dir");
    command.arg(directory.join("state"));
    command
}

/// What the control plane says of itself when it does not start.
fn refusal(directory: &Path, arguments: &[&str]) -> String {
    std::fs::create_dir_all(directory.join("documents")).unwrap();
    let output: Output = mesh_lite(&["control-plane"], directory)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .arg("--config-dir")
        .arg(directory.join("documents"))
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn an_issuing_ca_of_less_than_two_leaves_keeps_the_control_plane_from_starting() {
    let directory = TempDir::new().unwrap();
    succeed(&mut mesh_lite(&["root", "init"], directory.path()));
    let said = refusal(directory.path(), &["--leaf-lifetime", "16d"]);
    assert!(
        said.contains("must live at least 2 times as long"),
        "{said}"
    );
    assert!(said.contains("lower --leaf-lifetime"), "{said}");
}

#[test]
fn a_certificate_that_is_no_ca_keeps_the_control_plane_from_starting_and_from_import() {
    if !program("a_certificate_that_is_no_ca", "openssl") {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    succeed(&mut mesh_lite(&["root", "init"], path));
    let leaf = path.join("leaf.pem");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args([
            "-nodes",
            "-subj",
            "/CN=leaf",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&leaf)
        .arg("-out")
        .arg(path.join("certificate.pem"))
        .output();
    assert!(made.unwrap().status.success());
    let certificate = std::fs::read_to_string(path.join("certificate.pem")).unwrap();
    let both = std::fs::read_to_string(&leaf).unwrap() + &certificate;
    std::fs::write(&leaf, both).unwrap();
    let refused = mesh_lite(&["root", "import"], path)
        .arg("--chain")
        .arg(&leaf)
        .arg("--key")
        .arg(&leaf)
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("basic constraints say CA:TRUE"), "{said}");

    std::fs::copy(&leaf, path.join("state/issuing/issuing-ca.pem")).unwrap();
    let said = refusal(path, &[]);
    assert!(said.contains("basic constraints say CA:TRUE"), "{said}");
}

/// What it prints is a command line that works.
#[test]
fn root_mode_offline_says_what_to_do_and_that_works() {
    let directory = TempDir::new().unwrap();
    let (path, stick) = (directory.path(), directory.path().join("stick"));
    let mut init = mesh_lite(&["root", "init", "--root-mode", "offline"], path);
    let said = succeed(init.arg("--root-dir").arg(&stick));
    assert!(
        said.contains("Root mode offline. What to do now:"),
        "{said}"
    );
    let line = said
        .lines()
        .find(|line| line.trim_start().starts_with("mesh-lite root renew"))
        .unwrap();
    let place = stick.display().to_string();
    let line = line.replace("DIRECTORY_OF_THE_ROOT", &place);
    let mut words = line.split_whitespace().skip(1);
    let renewed = succeed(Command::new(PROGRAM).args(words.by_ref()));
    assert!(renewed.contains("Root mode offline"), "{renewed}");
    // and without the root it says what is missing
    std::fs::rename(&stick, path.join("drawer")).unwrap();
    let output = Command::new(PROGRAM)
        .args(line.split_whitespace().skip(1))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("root.pem"), "{said}");
}

/// A control plane of an ordinary user, and a directory that root alone may enter.
struct Kept {
    directory: TempDir,
    admin: SocketAddr,
    control_plane: Process,
}

impl Kept {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["state", "documents"] {
            let folder = path.join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::os::unix::fs::chown(folder, Some(APPLICATION_UID), Some(APPLICATION_UID)).unwrap();
        }
        let mut init = mesh_lite(&["root", "init"], path);
        succeed(init.arg("--root-dir").arg(path.join("mesh-root")));
        let admin = free_address();
        let mut command = as_its_user();
        command.arg(PROGRAM).args(["control-plane", "--listen"]);
        command.arg(free_address().to_string());
        command.args(["--admin-listen", &admin.to_string()]);
        for (flag, folder) in [("--data-dir", "state"), ("--config-dir", "documents")] {
            command.arg(flag).arg(path.join(folder));
        }
        let mut control_plane = Process::start("control-plane", command, path);
        eventually("the control plane is ready", || {
            control_plane.assert_runs();
            http_get_here(admin, "/readyz")
        });
        Self {
            directory,
            admin,
            control_plane,
        }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("mesh-root")
    }

    fn days_left(&self) -> Result<f64, String> {
        const SERIES: &str =
            "mesh_lite_control_plane_time_to_breakage_seconds{cause=\"issuing_ca\"} ";
        let (_, text) = http_get_here(self.admin, "/metrics").map_err(|error| error.to_string())?;
        let value = text.lines().find_map(|line| line.strip_prefix(SERIES));
        let seconds: f64 = value.ok_or("no such series")?.trim().parse().unwrap();
        Ok(seconds / 86_400.0)
    }
}

fn as_its_user() -> Command {
    let user = APPLICATION_UID.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--clear-groups", "--no-new-privs"]);
    command.args(["--reuid", &user, "--regid", &user, "--"]);
    command
}

/// Free a moment ago: on a loopback address that no other test uses.
fn free_address() -> SocketAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = Ipv4Addr::new(127, high, low, 250);
    let socket = TcpListener::bind((address, 0)).unwrap();
    socket.local_addr().unwrap()
}

/// Design §3: only the timer's user may read the root's key, and what it signs the control plane
/// takes over.
#[test]
fn root_mode_kept_renews_for_a_control_plane_that_can_not_read_the_root() {
    needs_namespaces!("root_mode_kept_renews");
    let mesh = Kept::start();
    let root = mesh.root().join("root.pem");
    let reads = |path: PathBuf| {
        let output = as_its_user().arg("cat").arg(path).output().unwrap();
        output.status.success()
    };
    let state = mesh.directory.path().join("state");
    assert!(reads(state.join("issuing/issuing-ca.pem")) && !reads(root));
    eventually("thirty days", || match mesh.days_left()? {
        29.9..=30.0 => Ok(()),
        other => Err(other.to_string()),
    });

    let mut renew = mesh_lite(&["root", "renew"], mesh.directory.path());
    renew.arg("--root-dir").arg(mesh.root());
    let said = succeed(&mut renew);
    assert!(said.contains("Root mode kept"), "{said}");
    renew.arg("--if-due");
    let output = renew.output().unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "not due"
    );
    let mut longer = mesh_lite(&["root", "renew"], mesh.directory.path());
    longer.arg("--root-dir").arg(mesh.root());
    succeed(longer.args(["--issuing-lifetime", "60d"]));
    eventually("sixty days", || match mesh.days_left()? {
        59.9..=60.0 => Ok(()),
        other => Err(format!("{other}: {}", mesh.control_plane.output())),
    });
    let (_, ready) = http_get_here(mesh.admin, "/readyz").unwrap();
    assert!(ready.ends_with("ok\n"), "{ready}");
}

/// The superuser's timer, and a control plane that was taken over: it owns the data directory, and
/// would own whatever the timer follows its links to.
#[test]
fn the_roots_timer_gives_nothing_away_to_the_owner_of_the_data_directory() {
    needs_namespaces!("the_roots_timer_gives_nothing_away");
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, open.clone()).unwrap();
    let (state, precious) = (path.join("state"), path.join("precious"));
    for folder in [&state, &precious] {
        std::fs::create_dir(folder).unwrap();
        std::fs::set_permissions(folder, open.clone()).unwrap();
    }
    std::os::unix::fs::chown(&state, Some(APPLICATION_UID), Some(APPLICATION_UID)).unwrap();
    let secret = precious.join("secret");
    std::fs::write(&secret, "hunter2").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let root = path.join("mesh-root");
    succeed(
        mesh_lite(&["root", "init"], path)
            .arg("--root-dir")
            .arg(&root),
    );
    let refused = || {
        let mut renew = mesh_lite(&["root", "renew", "--if-due"], path);
        let output = renew.arg("--root-dir").arg(&root).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let metadata = std::fs::metadata(&precious).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o755));
        let entries = std::fs::read_dir(&precious).unwrap();
        assert_eq!(entries.count(), 1, "nothing was left there");
        said
    };
    let issuing = state.join("issuing");
    std::fs::rename(&issuing, state.join("aside")).unwrap();
    symlink(&precious, &issuing).unwrap();
    refused();

    std::fs::remove_file(&issuing).unwrap();
    std::fs::rename(state.join("aside"), &issuing).unwrap();
    std::fs::remove_file(issuing.join("issuing-ca.pem")).unwrap();
    std::fs::remove_file(issuing.join("root-mode")).unwrap();
    symlink(&secret, issuing.join("root-mode")).unwrap();
    let said = refused();
    assert!(!said.contains("hunter2"), "{said}");
}
