//! A name that nobody knows yet.

use std::time::Duration;

use mesh_lite_test_support::envoy::installed;
use mesh_lite_test_support::eventually::eventually_within;

use crate::scene::{API, Scene, WEB, client, is_let_in};

/// Ten times the second that it should take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A state-of-the-world client hears nothing and goes on waiting; a delta client hears that there
/// is none, opens its port, and lets nobody in.
fn served_once_registered(test: &str, api_type: &str) {
    let Some(program) = installed(test) else {
        return;
    };
    let (scene, root) = Scene::with_root(program);
    const LATE: &str = "spiffe://cluster.local/ns/shop/sa/late";
    let mut envoy = scene.inbound(
        "inbound",
        "inbound",
        &[("SVID", LATE), ("API_TYPE", api_type)],
    );
    scene.server.wait_unknown(LATE);
    let web = client(&root, WEB);
    if api_type == "GRPC" {
        assert!(!envoy.is_ready(), "it is ready without a certificate");
    } else {
        envoy.wait_ready();
        assert!(!is_let_in(envoy.listener(), &web));
    }
    scene.server.set_svid(LATE, &root.leaf(API, |_| ()));
    eventually_within(PATIENCE, "the late one is served", || {
        if envoy.is_ready() && is_let_in(envoy.listener(), &web) {
            Ok(())
        } else {
            Err(envoy.stats("update_|connected_state"))
        }
    });
    assert_eq!(envoy.rejected(), 0);
    let lost = envoy.sum("update_failure");
    assert_eq!(lost, 0, "the stream was ended where the name was unknown");
}

/// E2E-E8, SDS-S8
#[test]
fn an_unknown_name_is_served_once_it_is_registered() {
    served_once_registered(
        concat!(
            module_path!(),
            "::an_unknown_name_is_served_once_it_is_registered"
        ),
        "GRPC",
    );
}

/// E2E-E8, SDS-S8
#[test]
fn an_unknown_name_is_served_by_delta_once_it_is_registered() {
    served_once_registered(
        concat!(
            module_path!(),
            "::an_unknown_name_is_served_by_delta_once_it_is_registered"
        ),
        "DELTA_GRPC",
    );
}
