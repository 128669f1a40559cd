//! What is not served, or no longer: Envoy keeps what it had, or stays closed.

use mesh_lite_test_support::eventually;
use mesh_lite_test_support::eventually::eventually_within;

use crate::control_plane::{Scene, connected};
use crate::scene::{RECONNECTS, call};

const EVICTION: &str = "\
apiVersion: mesh-lite.io/v1
kind: Eviction
metadata: {name: api-goes, namespace: shop}
spec: {spiffeId: spiffe://cluster.local/ns/shop/sa/api}
";

/// SDS-S26: the streams of a workload that is evicted end. Envoy keeps its SVID all the same until
/// that expires: what cuts it off is its peers' policy.
#[test]
fn an_eviction_ends_the_streams_and_envoy_keeps_what_it_had() {
    const TEST: &str = concat!(
        module_path!(),
        "::an_eviction_ends_the_streams_and_envoy_keeps_what_it_had"
    );
    let Some(scene) = Scene::start(TEST) else {
        return;
    };
    let (envoy, address, before) = scene.served(&[]);
    scene.mesh.write_documents("eviction.yaml", EVICTION);
    eventually("the streams end", || match connected(&envoy) {
        0 => Ok(()),
        streams => Err(streams),
    });
    // it asks again, for both secrets, and gets nothing
    let asked = || envoy.sum("cluster.secrets.upstream_rq_total");
    let (asked_before, had) = (asked(), envoy.sum("sds.*update_success"));
    eventually_within(RECONNECTS, "Envoy asks again", || match asked() {
        more if more >= asked_before + 2 => Ok(()),
        fewer => Err(fewer),
    });
    scene.mesh.renew_root();
    let asked_before = asked();
    eventually_within(RECONNECTS, "Envoy asks after the renewal", || {
        match asked() {
            more if more > asked_before => Ok(()),
            same => Err(same),
        }
    });
    assert_eq!(envoy.sum("sds.*update_success"), had);
    assert_eq!(call(address, &scene.web).unwrap(), before);
    assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
}

/// SDS-S22: a control plane that is told to end says so on every stream; what it served stays.
#[test]
fn a_control_plane_that_ends_takes_nothing_with_it() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_control_plane_that_ends_takes_nothing_with_it"
    );
    let Some(mut scene) = Scene::start(TEST) else {
        return;
    };
    let (envoy, address, before) = scene.served(&[]);
    let status = scene.mesh.end_control_plane();
    assert!(status.success(), "{status}");
    eventually("the streams end", || match connected(&envoy) {
        0 => Ok(()),
        streams => Err(streams),
    });
    assert_eq!(call(address, &scene.web).unwrap(), before);
}

/// SDS-S8, SDS-S28: without --allow-remote-keys no key is made for anybody, and the log says what
/// to do instead.
#[test]
fn an_envoy_gets_no_key_from_a_control_plane_that_may_not_make_any() {
    const TEST: &str = concat!(
        module_path!(),
        "::an_envoy_gets_no_key_from_a_control_plane_that_may_not_make_any"
    );
    let Some(scene) = Scene::start_with(TEST, &[]) else {
        return;
    };
    let tokens = scene.token_folder("tokens", "1h");
    let envoy = scene.envoy("inbound", &tokens, &[]);
    eventually("the control plane says what to do", || {
        let said = scene.mesh.control_plane_output();
        let remedy = said.contains("--workload-socket") && said.contains("--allow-remote-keys");
        if remedy { Ok(()) } else { Err(said) }
    });
    // the bundle is not a secret: it comes
    eventually("the bundle comes", || {
        match envoy.sum("sds.ROOTCA.update_success") {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    });
    assert_eq!(envoy.sum("sds.default.update_success"), 0);
    assert!(!envoy.is_ready());
}
