//! Two control planes in one cluster, behind one address: what sidecars notice when one of them
//! dies, and what pods without a good token get from either.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "replicas/cluster.rs"]
mod cluster;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use mesh_lite_test_support::applications::{Server, converse};
use mesh_lite_test_support::load::Load;
use mesh_lite_test_support::{eventually, eventually_within, holds_for, needs_namespaces};

use cluster::Cluster;

/// Of the load: several lives of a certificate.
const AFTER_THE_KILL: Duration = Duration::from_secs(45);

/// Leaves of 20 s, one of two replicas killed under load: 0 failures, streams come back at the
/// other one, certificates go on being renewed, and a new pod gets its first.
#[test]
fn a_control_plane_killed_under_load_fails_nothing() {
    needs_namespaces!("a_control_plane_killed_under_load_fails_nothing");
    let mut cluster = Cluster::start(2, &["--leaf-lifetime", "20s"], "info");
    cluster.start_pod('a');
    cluster.start_pod('b');
    cluster.wait_ready('a');
    cluster.wait_ready('b');
    let to = (cluster.network.b.v4, 8080).into();
    let _server = Server::greeting(&cluster.network.b.namespace, to, "from b");
    let load = Load::start(&cluster.network.a.namespace, to);
    // each renewal opens a connection, and they take turns
    eventually("a sidecar is at the replica that is to die", || {
        let open = cluster.open_connections(0);
        if open > 0 { Ok(()) } else { Err(open) }
    });
    let before = serials(&cluster, 'b');
    cluster.kill_replica(0);
    #[expect(clippy::disallowed_methods, reason = "a figure, not a condition")]
    let killed = SystemTime::now();
    // three streams of each sidecar
    eventually_within(
        Duration::from_secs(60),
        "all streams are at the other replica",
        || {
            let streams = cluster.streams(1);
            if streams >= 6.0 { Ok(()) } else { Err(streams) }
        },
    );
    let back = killed.elapsed().unwrap();
    cluster.start_pod('c');
    cluster.wait_ready('c');
    holds_for(AFTER_THE_KILL, "both sidecars are ready", || {
        for letter in ['a', 'b'] {
            match cluster.readiness(letter) {
                Ok((200, _)) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        mesh_lite_test_support::pause(Duration::from_secs(1));
        Ok(())
    });
    let successes = load.stop();
    let after = serials(&cluster, 'b');
    assert!(
        after.len() >= before.len() + 4,
        "{before:?} and then {after:?}: certificates were not renewed"
    );
    println!("{successes} successes, 0 failures; all streams were back after {back:?}");
}

/// Serial numbers of the callers' and of our own certificates, as a pod's access log has them.
fn serials(cluster: &Cluster, letter: char) -> BTreeSet<String> {
    let lines = cluster.access_log(letter).lines();
    let fields = ["src.serial", "dst.serial"];
    let of = |line: &serde_json::Value| fields.map(|field| line[field].as_str().map(Into::into));
    lines.iter().flat_map(of).flatten().collect()
}

/// A pod that may have no certificate has none, and its sidecar says what is wrong.
#[test]
fn a_pod_without_a_good_token_stays_outside_and_is_told_why() {
    needs_namespaces!("a_pod_without_a_good_token_stays_outside_and_is_told_why");
    let mut cluster = Cluster::start(1, &[], "trace");
    cluster.start_pod('b');
    cluster.wait_ready('b');
    let to = (cluster.network.b.v4, 8080);
    let _server = Server::greeting(&cluster.network.b.namespace, to, "from b");
    for (token, words) in [
        (cluster.token_for_others('a'), "audience"),
        (cluster.token_of_no_pod('a'), "of no pod"),
        (cluster.token_of_deleted_pod('a'), "invalid bearer token"),
        (
            "mesh-lite-join-00".to_owned(),
            "join tokens are not accepted",
        ),
        ("opaque".to_owned(), "no service-account token"),
    ] {
        cluster.write_token('a', &token);
        cluster.start_sidecar('a');
        eventually(&format!("the sidecar says {words:?}"), || {
            match cluster.readiness('a') {
                Ok((503, page)) if page.contains(words) => {
                    assert!(!page.contains(&token), "{page}");
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        });
        converse(&cluster.network.a.namespace, to).unwrap_err();
    }
    // the kubelet puts a good one there: no restart is needed
    let good = cluster.good_token('a');
    cluster.write_token('a', &good);
    cluster.wait_ready('a');
    assert_eq!(
        converse(&cluster.network.a.namespace, to).unwrap(),
        "from b"
    );
    for output in cluster.outputs() {
        assert!(!output.contains(&good), "a token is in a log");
    }
}
