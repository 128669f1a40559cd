//! What an eviction does to whom: the evicted workload loses its connections, new ones and its
//! next certificate; nobody else notices. (How fast is measured by `bench`.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{Ipv4Addr, SocketAddr};

use mesh_lite_test_support::applications::{Client, Ending, MARKER, Server, http_get_here};
use mesh_lite_test_support::mesh::{API_ID, WEB_ID};
use mesh_lite_test_support::{LoopbackMesh, eventually};

/// web and guest may call api.
const BOTH: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-shop, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {namespaces: [shop]}
";

fn evicting(id: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\n\
         metadata: {{name: stolen, namespace: mesh-lite-system}}\nspec: {{spiffeId: '{id}'}}\n"
    )
}

const NOBODY_EVICTED: &str = "# empty\n";

/// Sidecars spread their renewals over a twentieth of a leaf's life.
const LEAVES: [&str; 2] = ["--leaf-lifetime", "60s"];

fn mesh(server: &Server) -> LoopbackMesh {
    let program = env!("CARGO_BIN_EXE_mesh-lite");
    let mut mesh = LoopbackMesh::prepare(program, server.address().port(), BOTH, &LEAVES);
    mesh.start_control_plane();
    mesh.start_sidecars();
    mesh
}

fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

fn called(mesh: &LoopbackMesh, caller: &str) -> Client {
    let mut client = mesh.sidecar(caller).call().unwrap();
    assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
    client
}

fn refused(mesh: &LoopbackMesh, caller: &str) {
    let Ok(mut client) = mesh.sidecar(caller).call() else {
        return;
    };
    assert_eq!(client.ending_after_hello(), Ending::Reset(Vec::new()));
}

fn issuances(mesh: &LoopbackMesh, outcome: &str) -> f64 {
    let admin = SocketAddr::new(mesh.control_plane_address().ip(), 15014);
    let (_, text) = http_get_here(admin, "/metrics").unwrap();
    let series = format!("mesh_lite_control_plane_issuances_total{{outcome=\"{outcome}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&series))
        .map_or(0.0, |value| value.trim().parse().unwrap())
}

#[test]
fn an_evicted_caller_is_cut_off_and_nobody_else_notices() {
    let server = application();
    let mut mesh = mesh(&server);
    let (mut web, mut guest) = (called(&mesh, "web"), called(&mesh, "guest"));
    assert_eq!(web.echo("before").unwrap(), "before");
    mesh.write_documents("evictions.yaml", &evicting(WEB_ID));
    assert_eq!(web.ending(), Ending::Reset(Vec::new()));
    refused(&mesh, "web");
    let api = &mesh.sidecar("api").log;
    let cut = api.wait_for(&[("event", "close"), ("end", "evicted")]);
    let again = api.wait_for(&[("decision", "refuse"), ("src.identity", WEB_ID)]);
    for line in [cut, again] {
        let reason = line["error"].as_str().unwrap();
        assert!(
            reason.contains("mesh-lite-system/stolen (evictions.yaml:1)"),
            "{line}"
        );
    }
    assert_eq!(guest.echo("still here").unwrap(), "still here");
    drop(called(&mesh, "guest"));

    // started anew it gets no certificate, while a new issuing CA has the others renew
    let before = issuances(&mesh, "granted");
    mesh.sidecar_mut("web").kill();
    mesh.start_sidecar("web");
    eventually("web is refused a certificate", || {
        let refused = issuances(&mesh, "evicted");
        if refused >= 1.0 { Ok(()) } else { Err(refused) }
    });
    mesh.renew_root();
    eventually("the others renew", || {
        let granted = issuances(&mesh, "granted") - before;
        if granted >= 2.0 { Ok(()) } else { Err(granted) }
    });
    assert!(mesh.sidecar("web").readiness().unwrap().0 != 200);
    assert_eq!(guest.echo("all the time").unwrap(), "all the time");

    // what was done by a document is undone by its removal
    mesh.write_documents("evictions.yaml", NOBODY_EVICTED);
    eventually("web is served again", || {
        mesh.sidecar("web")
            .call()
            .and_then(|mut client| client.line())
    });
    assert_eq!(guest.echo("to the end").unwrap(), "to the end");
}

#[test]
fn callers_leave_an_evicted_server() {
    let server = application();
    let mesh = mesh(&server);
    let mut web = called(&mesh, "web");
    mesh.write_documents("evictions.yaml", &evicting(API_ID));
    assert_eq!(web.ending(), Ending::Reset(Vec::new()));
    refused(&mesh, "web");
    refused(&mesh, "guest");
    mesh.write_documents("evictions.yaml", NOBODY_EVICTED);
    eventually("api is called again", || {
        mesh.sidecar("guest")
            .call()
            .and_then(|mut client| client.line())
    });
}
