//! What applications notice when a part of the mesh dies, and when certificates rotate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use mesh_lite_proxy::identity::state_file::StateFile;
use mesh_lite_test_support::applications::{Client, MARKER, Server, converse, refused};
use mesh_lite_test_support::load::Load;
use mesh_lite_test_support::mesh::API_ID;
use mesh_lite_test_support::wire_tap::WireTap;
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, SIDECAR_UID, eventually, holds_for, needs_namespaces,
    pause,
};

/// How often a sidecar is killed on each side.
const KILLS: usize = 5;
/// What the server sends before it ends by itself: far more than is read before the kill.
const TRANSFER: usize = 64 * 1024 * 1024;

fn settings() -> MeshSettings {
    MeshSettings::captured_by(env!("CARGO_BIN_EXE_mesh-lite"), "auto")
}

fn at_b(mesh: &Mesh, port: u16) -> SocketAddr {
    (mesh.network.b.v4, port).into()
}

/// Sends [`TRANSFER`] bytes of the marker and ends cleanly.
fn sender(mesh: &Mesh) -> Server {
    let block: Arc<[u8]> = MARKER.repeat(2000).into_bytes().into();
    let send = move |mut stream: TcpStream| {
        let mut sent = 0;
        while sent < TRANSFER {
            stream.write_all(&block)?;
            sent += block.len();
        }
        stream.shutdown(std::net::Shutdown::Write)
    };
    Server::start(
        &mesh.network.b.namespace,
        APPLICATION_UID,
        at_b(mesh, 8080),
        send,
    )
}

/// Sidecar killed in mid-transfer, on either side: the application sees a reset, never a short
/// clean end; new connections are refused; nothing goes out in plaintext.
#[test]
fn a_sidecar_killed_in_mid_transfer_is_never_a_clean_end() {
    needs_namespaces!("a_sidecar_killed_in_mid_transfer_is_never_a_clean_end");
    let mut mesh = settings().start();
    let tap = WireTap::start(&mesh.network);
    let _server = sender(&mesh);
    let to = at_b(&mesh, 8080);
    for victim in ['a', 'b'].repeat(KILLS) {
        let client = Client::connect(&mesh.network.a.namespace, to).unwrap();
        let mut some = vec![0; 1024 * 1024];
        let mut socket = client.socket();
        socket.read_exact(&mut some).unwrap();
        let killed = if victim == 'a' {
            mesh.a_mut()
        } else {
            mesh.b_mut()
        };
        killed.kill();
        let mut rest = Vec::new();
        let error = socket
            .read_to_end(&mut rest)
            .expect_err("a short transfer ended cleanly");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{victim}: {error}"
        );
        assert!(
            rest.len() + some.len() < TRANSFER,
            "it was over before the kill"
        );
        refused(&mesh.network.a.namespace, APPLICATION_UID, to);
        mesh.start_sidecar_again(victim);
    }
    let seen = tap.stop();
    assert!(!seen.shows(MARKER));
}

/// The server's side of the same: an upload that a dying sidecar cuts is no complete upload.
#[test]
fn an_upload_cut_by_a_dying_sidecar_is_a_reset_for_the_server() {
    needs_namespaces!("an_upload_cut_by_a_dying_sidecar_is_a_reset_for_the_server");
    let mut mesh = settings().start();
    let (report, reported) = std::sync::mpsc::channel();
    let receive = move |mut stream: TcpStream| {
        let mut taken = vec![0; 1024];
        stream.read_exact(&mut taken)?;
        let _ = report.send(Ok(()));
        let ending = stream.read_to_end(&mut taken).map_err(|error| error.kind());
        let _ = report.send(ending.map(|_| ()));
        Ok(())
    };
    let _server = Server::start(
        &mesh.network.b.namespace,
        APPLICATION_UID,
        at_b(&mesh, 8080),
        receive,
    );
    for victim in ['a', 'b'].repeat(KILLS) {
        let client = Client::connect(&mesh.network.a.namespace, at_b(&mesh, 8080)).unwrap();
        let mut socket = client.socket();
        socket
            .write_all(&MARKER.repeat(10_000).into_bytes())
            .unwrap();
        let next = || reported.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(next(), Ok(()), "the upload has begun");
        let killed = if victim == 'a' {
            mesh.a_mut()
        } else {
            mesh.b_mut()
        };
        killed.kill();
        assert_eq!(
            next(),
            Err(std::io::ErrorKind::ConnectionReset),
            "killed {victim}"
        );
        mesh.start_sidecar_again(victim);
    }
}

/// Both sidecars restart while the control plane is away, and serve from what they saved.
#[test]
fn sidecars_restart_while_the_control_plane_is_away() {
    needs_namespaces!("sidecars_restart_while_the_control_plane_is_away");
    let mut mesh = settings().start();
    let _server = Server::greeting(&mesh.network.b.namespace, at_b(&mesh, 8080), "from b");
    // What was never asked for cannot have been saved: one connection before the outage.
    assert_eq!(
        converse(&mesh.network.a.namespace, at_b(&mesh, 8080)).unwrap(),
        "from b"
    );
    saved(&mesh);
    mesh.kill_control_plane();
    for letter in ['a', 'b'] {
        let sidecar = if letter == 'a' {
            mesh.a_mut()
        } else {
            mesh.b_mut()
        };
        sidecar.kill();
        mesh.start_sidecar_again(letter);
        assert_eq!(
            converse(&mesh.network.a.namespace, at_b(&mesh, 8080)).unwrap(),
            "from b"
        );
    }
    // A stranger gains nothing by the outage.
    refused(
        &mesh.network.c.namespace,
        APPLICATION_UID,
        at_b(&mesh, 8080),
    );
    mesh.start_control_plane_again();
    assert_eq!(
        converse(&mesh.network.a.namespace, at_b(&mesh, 8080)).unwrap(),
        "from b"
    );
}

/// Waits until sidecar a has written down where it has been.
fn saved(mesh: &Mesh) {
    let file = StateFile::in_directory(mesh.a().data_dir());
    eventually("the directory's answers are saved", || {
        // Nobody else may read it.
        let read = mesh.network.a.namespace.run(SIDECAR_UID, || file.read());
        let saved = read
            .map_err(|error| error.to_string())?
            .map(|saved| saved.rest.directory);
        let text = format!("{saved:?}");
        if text.contains(API_ID) {
            Ok(())
        } else {
            Err(text)
        }
    });
}

/// Leaves of 20 s, 2 minutes of new and long-lived connections: 0 failures, and certificates
/// that really changed.
#[test]
fn two_minutes_of_rotating_certificates_fail_nothing() {
    needs_namespaces!("two_minutes_of_rotating_certificates_fail_nothing");
    let mesh = settings()
        .control_plane(&["--leaf-lifetime", "20s"])
        .start();
    let _server = Server::greeting(&mesh.network.b.namespace, at_b(&mesh, 8080), "from b");
    let load = Load::start(&mesh.network.a.namespace, at_b(&mesh, 8080));
    holds_for(Duration::from_secs(120), "both sidecars are ready", || {
        for sidecar in [mesh.a(), mesh.b()] {
            match sidecar.readiness(&mesh.network) {
                Ok((200, _)) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        pause(Duration::from_secs(1));
        Ok(())
    });
    let successes = load.stop();
    let lines = mesh.b().log().lines();
    for field in ["src.serial", "dst.serial"] {
        let serials: BTreeSet<_> = lines
            .iter()
            .filter_map(|line| line[field].as_str())
            .collect();
        assert!(
            serials.len() >= 6,
            "{field}: {} certificates in 2 minutes of 20 s",
            serials.len()
        );
    }
    println!("{successes} successes, 0 failures");
}

/// Leaves of 10 minutes, control plane killed for 60 s under load: 0 failures between known
/// peers, also for new connections.
#[test]
fn a_minute_without_control_plane_fails_nothing() {
    needs_namespaces!("a_minute_without_control_plane_fails_nothing");
    let mut mesh = settings()
        .control_plane(&["--leaf-lifetime", "10m"])
        .start();
    let _server = Server::greeting(&mesh.network.b.namespace, at_b(&mesh, 8080), "from b");
    let load = Load::start(&mesh.network.a.namespace, at_b(&mesh, 8080));
    eventually("the load is there", || {
        let opened = mesh.b().log().count(&[("event", "open")]);
        if opened >= 10 { Ok(()) } else { Err(opened) }
    });
    mesh.kill_control_plane();
    holds_for(Duration::from_secs(60), "both sidecars are ready", || {
        for sidecar in [mesh.a(), mesh.b()] {
            match sidecar.readiness(&mesh.network) {
                Ok((200, _)) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        pause(Duration::from_secs(1));
        Ok(())
    });
    mesh.start_control_plane_again();
    let successes = load.stop();
    println!("{successes} successes, 0 failures");
}
