//! A mesh on loopback with explicit capture, by an ordinary user: no rights, no namespaces.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{Ipv4Addr, SocketAddr};

use mesh_lite_test_support::applications::{Client, Ending, MARKER, Server};
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::mesh::{API_ID, WEB_ID};
use mesh_lite_test_support::{LoopbackMesh, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const NOBODY: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/somebody-else\"]}
";

/// The application of api, on loopback only, on a port of the system's choice.
fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

fn mesh(server: &Server, policy: &str) -> LoopbackMesh {
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), policy);
    mesh.start_sidecars();
    mesh
}

fn greeted(mut client: Client) -> Client {
    assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
    client
}

/// A call that must be reset without a byte of an answer.
fn reset(client: std::io::Result<Client>) {
    let Ok(mut client) = client else { return };
    assert_eq!(client.ending_after_hello(), Ending::Reset(Vec::new()));
}

#[test]
fn an_allowed_caller_is_served_and_both_sides_log_it() {
    let server = application();
    let mesh = mesh(&server, WEB_ONLY);
    let mut client = greeted(mesh.sidecar("web").call().unwrap());
    assert_eq!(client.echo("hello").unwrap(), "hello");
    client.finish().unwrap();
    assert_eq!(client.ending(), Ending::End(b"bye\n".to_vec()));
    for (sidecar, direction) in [("web", "outbound"), ("api", "inbound")] {
        mesh.sidecar(sidecar).log.wait_for(&[
            ("event", "open"),
            ("direction", direction),
            ("src.identity", WEB_ID),
            ("dst.identity", API_ID),
        ]);
        mesh.sidecar(sidecar)
            .log
            .wait_for(&[("event", "close"), ("direction", direction)]);
    }
}

#[test]
fn a_caller_that_no_rule_names_is_denied_with_the_reason_and_never_seen() {
    let server = application();
    let mesh = mesh(&server, WEB_ONLY);
    reset(mesh.sidecar("guest").call());
    let line = mesh
        .sidecar("api")
        .log
        .wait_for(&[("direction", "inbound"), ("decision", "deny")]);
    let text = line.to_string();
    for named in ["sa/guest", "api-from-web", "policy.yaml"] {
        assert!(text.contains(named), "{named} is not in {text}");
    }
    let told = mesh
        .sidecar("guest")
        .log
        .wait_for(&[("direction", "outbound"), ("decision", "deny")]);
    assert_eq!(told["decided_by"], "peer", "{told}");
    for field in ["policy", "policy_source", "src.identity", "dst.identity"] {
        assert!(told[field].is_string(), "{field}: {told}");
        assert_eq!(told[field], line[field], "{field}");
    }
    // whom the policy names instead is not for the caller to know
    assert!(!told.to_string().contains("sa/web"), "{told}");
    assert_eq!(server.peers(), []);
}

#[test]
fn a_port_that_is_not_listed_is_not_dialled() {
    let server = application();
    let mesh = mesh(&server, WEB_ONLY);
    reset(mesh.sidecar("web").call_unserved());
    mesh.sidecar("api")
        .log
        .wait_for(&[("direction", "inbound"), ("decision", "refuse")]);
    assert_eq!(server.peers(), []);
}

#[test]
fn an_application_that_the_network_can_reach_keeps_its_sidecar_unready() {
    let open = Server::greeting_here((Ipv4Addr::UNSPECIFIED, 0).into(), "api");
    let port = open.address().port();
    let mut mesh = LoopbackMesh::start(PROGRAM, port, WEB_ONLY);
    mesh.start_sidecar("web").wait_ready();
    mesh.start_sidecar("api");
    let says_why = |mesh: &LoopbackMesh| match mesh.sidecar("api").readiness() {
        Ok((503, text)) if text.contains(&port.to_string()) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("it names the port", || says_why(&mesh));
    // Put right, it becomes ready without a restart; gone wrong again, it is not ready again.
    drop(open);
    let confined = Server::greeting_here((Ipv4Addr::LOCALHOST, port).into(), "api");
    mesh.sidecar("api").wait_ready();
    drop(greeted(mesh.sidecar("web").call().unwrap()));
    drop(confined);
    let _open = Server::greeting_here((Ipv4Addr::UNSPECIFIED, port).into(), "api");
    eventually("it names the port again", || says_why(&mesh));
}

#[test]
fn a_policy_change_cuts_the_connection_it_forbids() {
    let server = application();
    let mesh = mesh(&server, WEB_ONLY);
    let mut client = greeted(mesh.sidecar("web").call().unwrap());
    mesh.write_documents("policy.yaml", NOBODY);
    assert_eq!(client.ending(), Ending::Reset(Vec::new()));
    reset(mesh.sidecar("web").call());
    mesh.write_documents("policy.yaml", WEB_ONLY);
    eventually("it is allowed again", || {
        mesh.sidecar("web")
            .call()
            .and_then(|mut client| client.line())
    });
}

#[test]
fn a_policy_broken_at_the_control_planes_start_denies_in_its_scope() {
    let server = application();
    let broken = WEB_ONLY
        .replace("principals", "princpals")
        .replace("api-from-web", "broken");
    let both = format!("{WEB_ONLY}---\n{broken}");
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), &both);
    mesh.start_sidecar("web").wait_ready();
    mesh.start_sidecar("api");
    eventually("the control plane names the document", || {
        match mesh.control_plane_readiness() {
            Ok((_, text)) if text.contains("princpals") && text.contains("policy.yaml") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let denied = eventually("api's sidecar denies", || {
        reset(mesh.sidecar("web").call());
        let lines = mesh.sidecar("api").log.lines();
        lines
            .iter()
            .find(|line| line["decision"] == "deny")
            .cloned()
            .ok_or(lines)
    });
    assert!(denied.to_string().contains("broken"), "{denied}");
    assert_eq!(server.peers(), []);
    mesh.write_documents("policy.yaml", WEB_ONLY);
    eventually("repaired, it allows", || {
        mesh.sidecar("web")
            .call()
            .and_then(|mut client| client.line())
    });
}

#[test]
fn a_join_token_works_for_one_key_only() {
    let server = application();
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), WEB_ONLY);
    let token = mesh.token("web");
    mesh.start_sidecar_with("web", &token).wait_ready();
    mesh.sidecar_mut("web").kill();
    let thief = mesh.start_sidecar_with("web", &token);
    eventually("the second key is refused", || match thief.readiness() {
        Ok((503, text)) if text.contains("token") || thief.output().contains("token") => Ok(()),
        other => Err(format!("{other:?}: {}", thief.output())),
    });
    assert!(!matches!(thief.readiness(), Ok((200, _))));
}

#[test]
fn a_sidecar_told_to_end_drains_and_ends_well() {
    let server = application();
    let mut mesh = mesh(&server, WEB_ONLY);
    let mut client = greeted(mesh.sidecar("web").call().unwrap());
    let address: SocketAddr = client.socket().peer_addr().unwrap();
    let finishing = std::thread::spawn(move || {
        let echoed = client.echo("still served");
        client.finish().unwrap();
        (echoed, client.ending())
    });
    let status = mesh.sidecar_mut("web").terminate();
    assert!(status.success(), "{status}");
    let (echoed, ending) = finishing.join().unwrap();
    assert_eq!(echoed.unwrap(), "still served");
    assert_eq!(ending, Ending::End(b"bye\n".to_vec()));
    assert!(Client::here(address).is_err(), "it still listens");
}
