//! The workload socket of a real sidecar: who gets a key there, and what becomes of its file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::process::finish;
use mesh_lite_test_support::requirements::program;
use mesh_lite_test_support::{LoopbackMesh, NOBODY_UID, eventually};
use rustix::process::geteuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// No application listens there; nobody calls it.
const NO_APPLICATION: u16 = 1;
/// gRPC's number for PERMISSION_DENIED.
const PERMISSION_DENIED: &str = "7";

/// A place for the socket that other users can reach.
fn place() -> (tempfile::TempDir, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let socket = folder.path().join("socket");
    (folder, socket)
}

fn mesh_with_socket(socket: &Path, arguments: &[&str]) -> LoopbackMesh {
    let mut mesh = LoopbackMesh::start(PROGRAM, NO_APPLICATION, WEB_ONLY);
    start_with_socket(&mut mesh, socket, arguments);
    mesh
}

fn start_with_socket(mesh: &mut LoopbackMesh, socket: &Path, arguments: &[&str]) {
    let token = mesh.token("web");
    let path = socket.display().to_string();
    let arguments = [&["--workload-socket", &path], arguments].concat();
    mesh.start_sidecar_told("web", &token, &arguments)
        .wait_ready();
}

/// FetchSecrets with an empty request, which asks for the SVID and the bundle: headers and body.
fn fetch(socket: &Path, as_user: Option<u32>) -> String {
    let mut command = match as_user {
        Some(uid) => {
            let mut command = Command::new("setpriv");
            let uid = uid.to_string();
            command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "curl"]);
            command
        }
        None => Command::new("curl"),
    };
    let request = tempfile::NamedTempFile::new().unwrap();
    // a gRPC message of no bytes
    std::fs::write(request.path(), [0; 5]).unwrap();
    command.args([
        "--silent",
        "--show-error",
        "--http2-prior-knowledge",
        "--include",
    ]);
    command.args([
        "--header",
        "content-type: application/grpc",
        "--header",
        "te: trailers",
    ]);
    command.arg("--unix-socket").arg(socket);
    command.arg("--data-binary").arg("@-");
    command.arg("http://localhost/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets");
    let file = std::fs::File::open(request.path()).unwrap();
    let output = command.stdin(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// SDS-S24, SDS-S28
#[test]
fn the_sidecars_own_user_gets_key_chain_and_bundle() {
    if !program("the_sidecars_own_user_gets_key_chain_and_bundle", "curl") {
        return;
    }
    let (_folder, socket) = place();
    let _mesh = mesh_with_socket(&socket, &[]);
    let answer = fetch(&socket, None);
    for part in [
        "BEGIN PRIVATE KEY",
        "BEGIN CERTIFICATE",
        "default",
        "ROOTCA",
    ] {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
}

/// SDS-S23, SDS-S24
#[test]
fn another_user_gets_it_only_if_it_is_named() {
    let test = "another_user_gets_it_only_if_it_is_named";
    if !geteuid().is_root() {
        mesh_lite_test_support::requirements::not_run(test, "being several users needs root");
        return;
    }
    let (_folder, socket) = place();
    let named = NOBODY_UID.to_string();
    let mesh = mesh_with_socket(&socket, &["--workload-socket-uids", &named]);
    let answer = fetch(&socket, Some(NOBODY_UID));
    assert!(answer.contains("BEGIN PRIVATE KEY"), "{answer}");
    let status = format!("grpc-status: {PERMISSION_DENIED}");
    // curl drops the answer if it comes before all of the request was sent
    eventually("it hears that it may not", || {
        let refused = fetch(&socket, Some(NOBODY_UID - 1));
        assert!(!refused.contains("PRIVATE KEY"), "{refused}");
        refused.contains(&status).then_some(()).ok_or(refused)
    });
    let words = "refused at the workload socket";
    eventually("it is logged once", || match mesh.sidecar("web").output() {
        output if output.matches(words).count() == 1 => Ok(()),
        output => Err(output),
    });
}

#[test]
fn the_socket_survives_a_kill_and_goes_at_an_orderly_end() {
    let (_folder, socket) = place();
    let mut mesh = mesh_with_socket(&socket, &[]);
    mesh.sidecar_mut("web").kill();
    assert!(socket.exists(), "a killed process removes nothing");
    start_with_socket(&mut mesh, &socket, &[]);
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
    assert!(mesh.sidecar_mut("web").terminate().success());
    assert!(!socket.exists());
}

#[test]
fn a_socket_that_another_sidecar_serves_stops_the_second_one_with_the_reason() {
    let (_folder, socket) = place();
    let mut mesh = mesh_with_socket(&socket, &[]);
    let token = mesh.token("guest");
    let path = socket.display().to_string();
    mesh.start_sidecar_told("guest", &token, &["--workload-socket", &path]);
    eventually("it says why", || match mesh.sidecar("guest").output() {
        output if output.contains("another process serves the workload socket") => Ok(()),
        output => Err(output),
    });
    assert!(!mesh.sidecar_mut("guest").ended().success());
    std::os::unix::net::UnixStream::connect(&socket).unwrap();
}

/// SDS-S25
#[test]
fn an_address_instead_of_a_path_is_wrong_usage() {
    let mut command = Command::new(PROGRAM);
    command.args([
        "proxy",
        "--control-plane",
        "a:1",
        "--trust-bundle",
        "b",
        "--data-dir",
        "d",
    ]);
    let output = finish(command.args(["--workload-socket", "127.0.0.1:15030"]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("never handed out over TCP"), "{said}");
}
