//! Istio's documents, unchanged, in a mesh that runs.

use std::net::Ipv4Addr;

use mesh_lite_test_support::{
    LoopbackMesh,
    applications::{Client, Ending, MARKER, Server},
    eventually,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// For the whole mesh, as it stands in Istio's root namespace.
const WEB_ONLY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web-only, namespace: istio-system}
spec:
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/web\"]}
";

fn mesh(server: &Server, arguments: &[&str]) -> LoopbackMesh {
    let port = server.address().port();
    let mut mesh = LoopbackMesh::prepare(PROGRAM, port, WEB_ONLY, arguments);
    mesh.start_control_plane();
    mesh.start_sidecars();
    mesh
}

fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

fn is_served(client: std::io::Result<Client>) -> bool {
    let Ok(mut client) = client else { return false };
    match client.line() {
        Ok(line) => line == format!("{MARKER} api"),
        Err(_) => {
            assert_eq!(client.ending_after_hello(), Ending::Reset(Vec::new()));
            false
        }
    }
}

#[test]
fn a_policy_of_istios_root_namespace_decides_in_every_namespace() {
    let server = application();
    let mesh = mesh(&server, &["--istio-root-namespace", "istio-system"]);
    assert!(is_served(mesh.sidecar("web").call()));
    assert!(!is_served(mesh.sidecar("guest").call()));
    let denied = [("direction", "inbound"), ("decision", "deny")];
    let line = mesh.sidecar("api").log.wait_for(&denied).to_string();
    assert!(line.contains("istio-system/web-only"), "{line}");
    assert_eq!(mesh.control_plane_readiness().unwrap().0, 200);
}

#[test]
fn without_the_setting_it_lets_nobody_through_and_readiness_says_what_to_do() {
    let server = application();
    let mesh = mesh(&server, &[]);
    assert!(!is_served(mesh.sidecar("web").call()));
    let (_, told) = mesh.control_plane_readiness().unwrap();
    for way in [
        "write apiVersion: mesh-lite.io/v1",
        "--istio-root-namespace",
    ] {
        assert!(told.contains(way), "{told}");
    }
}

#[test]
fn a_policy_of_istios_root_namespace_whose_version_alone_was_changed_is_warned_of_in_the_log() {
    let server = application();
    let changed = WEB_ONLY.replace("security.istio.io", "mesh-lite.io");
    let port = server.address().port();
    let permissive = ["--shipped", "permissive"];
    let mut mesh = LoopbackMesh::prepare(PROGRAM, port, &changed, &permissive);
    mesh.start_control_plane();
    let told = mesh.control_plane_output();
    let words = "AuthorizationPolicy istio-system/web-only (policy.yaml:1): this is for workloads \
                 of the namespace istio-system alone";
    assert!(told.contains(words) && told.contains("WARN"), "{told}");
    assert!(
        told.contains("move it to the namespace mesh-lite-system"),
        "{told}"
    );
    // it is in force as it is written
    assert_eq!(mesh.control_plane_readiness().unwrap().0, 200);
    mesh.write_documents(
        "policy.yaml",
        &changed.replace("istio-system", "mesh-lite-system"),
    );
    mesh.start_sidecars();
    eventually("moved, it is for the whole mesh", || {
        if is_served(mesh.sidecar("guest").call()) {
            Err("guest is served")
        } else {
            Ok(())
        }
    });
    assert!(is_served(mesh.sidecar("web").call()));
}
