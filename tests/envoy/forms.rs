//! Every way to ask: state of the world and delta, SDS and ADS, each name of a secret, both forms
//! of a bundle.

use std::ops::RangeInclusive;

use mesh_lite_test_support::envoy::installed;
use mesh_lite_test_support::peer_certificates::TRUST_DOMAIN;

use crate::scene::{API, GUEST, Scene, WEB, client, is_let_in, wait_shown};

/// Of two secrets, each asked for once and acknowledged twice; of one stream for both, which
/// repeats its names. A client that takes an answer for a new request asks hundreds of times.
const REQUESTS: RangeInclusive<usize> = 6..=9;

/// Starts an inbound Envoy that asks as told, lets it take secrets, and a changed one.
fn takes_its_secrets(test: &str, template: &str, values: &[(&str, &str)]) {
    let Some(program) = installed(test) else {
        return;
    };
    let (scene, root) = Scene::with_root(program);
    scene.server.set_svid("default", &root.leaf(API, |_| ()));
    let mut envoy = scene.inbound(template, "inbound", values);
    envoy.wait_ready();
    let (web, guest) = (client(&root, WEB), client(&root, GUEST));
    let address = envoy.listener();
    assert!(is_let_in(address, &web), "{}", envoy.output());
    assert!(!is_let_in(address, &guest));
    let name = values.iter().find(|(key, _)| *key == "SVID");
    let name = name.map_or("default", |(_, name)| name);
    let next = root.leaf(API, |_| ());
    scene.server.set_svid(name, &next);
    wait_shown(address, &web, &next.chain[0]);
    // a changed bundle too: the only root is another one now
    let other = mesh_lite_test_support::certificates::Authority::root(TRUST_DOMAIN);
    scene.server.set_bundles(&[(TRUST_DOMAIN, &[&other])]);
    let of_other = client(&other, WEB);
    mesh_lite_test_support::eventually("the new root is believed", || {
        if is_let_in(address, &of_other) {
            Ok(())
        } else {
            Err("refused")
        }
    });
    assert!(!is_let_in(address, &web), "the old root is still believed");
    assert_eq!(envoy.rejected(), 0, "{:?}", scene.server.rejections());
    assert!(scene.server.rejections().is_empty());
    let requests = scene.server.requests();
    assert!(REQUESTS.contains(&requests), "{requests} requests");
}

macro_rules! forms {
    ($($(#[doc = $doc:literal])+ $name:ident: $template:literal, $values:expr;)+) => {$(
        $(#[doc = $doc])+
        #[test]
        fn $name() {
            takes_its_secrets(concat!(module_path!(), "::", stringify!($name)), $template, &$values);
        }
    )+};
}

const DELTA: (&str, &str) = ("API_TYPE", "DELTA_GRPC");
const TRUSTED_CA: (&str, &str) = ("VALIDATOR", "trusted_ca");

forms! {
    /// E2E-E2, SDS-S1, SDS-S9, SDS-S12, SDS-S16
    state_of_the_world_with_the_spiffe_validator: "inbound", [];
    /// E2E-E2, SDS-S1, SDS-S9, SDS-S12, SDS-S6
    state_of_the_world_with_a_list_of_roots: "inbound", [TRUSTED_CA];
    /// E2E-E2, SDS-S1, SDS-S9, SDS-S12, SDS-S16
    delta_with_the_spiffe_validator: "inbound", [DELTA];
    /// E2E-E2, SDS-S1, SDS-S9, SDS-S12, SDS-S6
    delta_with_a_list_of_roots: "inbound", [DELTA, TRUSTED_CA];
    /// E2E-E2, SDS-S2, SDS-S9, SDS-S12, SDS-S13
    aggregated_state_of_the_world: "inbound-ads", [];
    /// E2E-E2, SDS-S2, SDS-S9, SDS-S12, SDS-S13
    aggregated_delta: "inbound-ads", [DELTA, TRUSTED_CA];
    /// E2E-E2, SDS-S4
    the_names_in_full: "inbound", [("SVID", API), ("BUNDLE", "spiffe://cluster.local")];
    /// E2E-E2, SDS-S4
    all_bundles: "inbound", [("BUNDLE", "ALL")];
}
