//! One part of the mesh is of this release and the other of the one before, under load: that is
//! every upgrade, and every way back. The flags for Kubernetes are new in this release: both run
//! from a directory of documents here, over the same streams as in a cluster.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mesh_lite_test_support::applications::{Server, converse, refused};
use mesh_lite_test_support::load::Load;
use mesh_lite_test_support::requirements::previous_release;
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, eventually, eventually_within, holds_for,
    needs_namespaces, pause,
};

const THIS: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// After the control plane was replaced: several lives of a certificate.
const AFTERWARDS: Duration = Duration::from_secs(40);
/// Cuts whoever the policy in force before allowed.
const EVICTION: &str = "\
apiVersion: mesh-lite.io/v1
kind: Eviction
metadata: {name: test, namespace: mesh-lite-system}
spec: {spiffeId: 'spiffe://cluster.local/ns/shop/sa/web'}
";

/// The control plane is upgraded first.
#[test]
fn sidecars_of_the_release_before_live_on_with_a_new_control_plane() {
    let name = "sidecars_of_the_release_before_live_on_with_a_new_control_plane";
    needs_namespaces!(name);
    let Some(previous) = previous_release(name) else {
        return;
    };
    replaced_under_load(&previous, THIS.as_ref(), [&previous, &previous]);
}

/// The control plane is set back.
#[test]
fn sidecars_live_on_with_a_control_plane_of_the_release_before() {
    let name = "sidecars_live_on_with_a_control_plane_of_the_release_before";
    needs_namespaces!(name);
    let Some(previous) = previous_release(name) else {
        return;
    };
    replaced_under_load(THIS.as_ref(), &previous, [THIS.as_ref(); 2]);
}

/// Pods are restarted one after the other.
#[test]
fn sidecars_of_two_releases_talk_to_each_other() {
    let name = "sidecars_of_two_releases_talk_to_each_other";
    needs_namespaces!(name);
    let Some(previous) = previous_release(name) else {
        return;
    };
    let this: &Path = THIS.as_ref();
    for sidecars in [[this, &previous], [&previous, this]] {
        let mesh = started(this, sidecars);
        let to = SocketAddr::from((mesh.network.b.v4, 8080));
        let _server = Server::greeting(&mesh.network.b.namespace, to, "from b");
        let load = Load::start(&mesh.network.a.namespace, to);
        renewed(&mesh, 3);
        println!("{} successes, 0 failures", load.stop());
    }
}

fn started(control_plane: &Path, sidecars: [&Path; 2]) -> Mesh {
    let mut mesh = MeshSettings::captured_by(THIS, "auto")
        .control_plane(&["--leaf-lifetime", "20s"])
        .control_plane_by(control_plane)
        .start_control_plane();
    for (letter, program) in ['a', 'b'].into_iter().zip(sidecars) {
        mesh.sidecars_by(program);
        mesh.capture(letter);
        mesh.start_sidecar(letter);
    }
    mesh.a().wait_ready(&mesh.network);
    mesh.b().wait_ready(&mesh.network);
    mesh
}

/// 0 failures, certificates that are renewed by the other release, and its policy in force.
fn replaced_under_load(before: &Path, after: &Path, sidecars: [&Path; 2]) {
    let mut mesh = started(before, sidecars);
    let to = SocketAddr::from((mesh.network.b.v4, 8080));
    let _server = Server::greeting(&mesh.network.b.namespace, to, "from b");
    let load = Load::start(&mesh.network.a.namespace, to);
    let seen = renewed(&mesh, 2);
    mesh.replace_control_plane(after);
    holds_for(AFTERWARDS, "both sidecars are ready", || {
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
    let serials = serials(&mesh);
    assert!(
        serials.len() >= seen + 4,
        "{serials:?}: not renewed by the other release"
    );
    // what the other release says of policy is understood
    mesh.write_documents("eviction.yaml", EVICTION);
    eventually("the caller is refused", || {
        match converse(&mesh.network.a.namespace, to) {
            Ok(said) => Err(said),
            Err(_) => Ok(()),
        }
    });
    refused(&mesh.network.a.namespace, APPLICATION_UID, to);
    println!("{successes} successes, 0 failures");
}

/// Waits until so many certificates were seen on connections; how many were.
fn renewed(mesh: &Mesh, at_least: usize) -> usize {
    eventually_within(Duration::from_secs(60), "certificates are renewed", || {
        let seen = serials(mesh).len();
        if seen >= at_least {
            Ok(seen)
        } else {
            Err(seen)
        }
    })
}

/// Serial numbers of both sidecars' certificates.
fn serials(mesh: &Mesh) -> BTreeSet<String> {
    let lines = mesh.b().log().lines();
    let fields = ["src.serial", "dst.serial"];
    let of = |line: &serde_json::Value| fields.map(|field| line[field].as_str().map(Into::into));
    lines.iter().flat_map(of).flatten().collect()
}
