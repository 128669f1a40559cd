//! New leaves and keys under traffic.

use mesh_lite_test_support::applications::Client;
use mesh_lite_test_support::envoy::installed;

use crate::scene::{API, Scene, WEB, client, converse, wait_shown};
use crate::traffic::Traffic;

/// Of each side, so that both together make two hundred.
const ROTATIONS: usize = 100;

/// New leaves for both sides, each with a new key, under a connection that lives on
/// and steady new ones. What is pushed is awaited for ten times as long as it may take.
fn rotates_under_traffic(test: &str, api_type: &str) {
    let Some(program) = installed(test) else {
        return;
    };
    let (scene, root) = Scene::with_root(program);
    let pair = scene.pair(&[("API_TYPE", api_type)]);
    let (inbound, outbound) = (pair.inbound.listener(), pair.outbound.listener());
    let mut long_lived = Client::here(outbound).unwrap();
    long_lived.line().unwrap();
    let traffic = Traffic::start(move || converse(outbound));
    let probe = client(&root, WEB);
    for rotation in 0..ROTATIONS {
        for id in [WEB, API] {
            let next = root.leaf(id, |_| ());
            let version = scene.server.set_svid(id, &next);
            scene.server.wait_accepted(&version, 1);
            if id == API {
                wait_shown(inbound, &probe, &next.chain[0]);
            }
        }
        traffic.wait_served(1);
        let text = format!("after rotation {rotation}");
        assert_eq!(long_lived.echo(&text).unwrap(), text);
    }
    traffic.assert_no_failure();
    assert_eq!(pair.rejected(), 0, "{:?}", scene.server.rejections());
    assert!(traffic.served() >= ROTATIONS);
    assert_eq!(pair.inbound.sum("sds.*key_rotation_failed"), 0);
}

/// E2E-E3, SDS-S16, SDS-S30
#[test]
fn two_hundred_rotations_cost_no_connection() {
    rotates_under_traffic(
        concat!(module_path!(), "::two_hundred_rotations_cost_no_connection"),
        "GRPC",
    );
}

/// E2E-E3, SDS-S16, SDS-S30
#[test]
fn two_hundred_rotations_by_delta_cost_no_connection() {
    rotates_under_traffic(
        concat!(
            module_path!(),
            "::two_hundred_rotations_by_delta_cost_no_connection"
        ),
        "DELTA_GRPC",
    );
}
