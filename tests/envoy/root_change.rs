//! Another root: bundle first, then leaves, then the old root goes. The other way round breaks.

use mesh_lite_proto::secret_discovery::{BundleForm, OWN_BUNDLE};
use mesh_lite_test_support::applications::Client;
use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::envoy::installed;
use mesh_lite_test_support::eventually;
use mesh_lite_test_support::peer_certificates::TRUST_DOMAIN;

use crate::scene::{API, Scene, WEB, client, converse, is_let_in};
use crate::traffic::Traffic;

/// Both Envoys of a pair ask for the bundle.
const BUNDLE_STREAMS: usize = 2;

impl Scene {
    fn trust(&self, roots: &[&Authority]) {
        self.server.set_bundles(&[(TRUST_DOMAIN, roots)]);
        let form = BundleForm::SpiffeValidator;
        let version = self.server.bundle_version(OWN_BUNDLE, form);
        self.server.wait_accepted(&version, BUNDLE_STREAMS);
    }

    fn issue_from(&self, root: &Authority) {
        for id in [WEB, API] {
            let version = self.server.set_svid(id, &root.leaf(id, |_| ()));
            self.server.wait_accepted(&version, 1);
        }
    }
}

/// E2E-E4, SDS-S17, SPIFFE-V17
#[test]
fn a_root_change_in_the_right_order_costs_no_connection() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_root_change_in_the_right_order_costs_no_connection"
    );
    let Some(program) = installed(TEST) else {
        return;
    };
    let (scene, old) = Scene::with_root(program);
    let pair = scene.pair(&[]);
    let (inbound, outbound) = (pair.inbound.listener(), pair.outbound.listener());
    let mut long_lived = Client::here(outbound).unwrap();
    long_lived.line().unwrap();
    let traffic = Traffic::start(move || converse(outbound));
    traffic.wait_served(10);
    let new = Authority::root(TRUST_DOMAIN);
    scene.trust(&[&old, &new]);
    traffic.wait_served(10);
    scene.issue_from(&new);
    traffic.wait_served(10);
    scene.trust(&[&new]);
    traffic.wait_served(10);
    assert_eq!(long_lived.echo("still here").unwrap(), "still here");
    traffic.assert_no_failure();
    assert_eq!(pair.rejected(), 0, "{:?}", scene.server.rejections());
    assert!(is_let_in(inbound, &client(&new, WEB)));
    assert!(
        !is_let_in(inbound, &client(&old, WEB)),
        "the old root counts"
    );
}

/// E2E-E4: the control. If this order cost nothing, the test above would prove nothing.
#[test]
fn a_root_change_in_the_wrong_order_is_seen_to_fail() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_root_change_in_the_wrong_order_is_seen_to_fail"
    );
    let Some(program) = installed(TEST) else {
        return;
    };
    let (scene, _old) = Scene::with_root(program);
    let pair = scene.pair(&[]);
    let outbound = pair.outbound.listener();
    let traffic = Traffic::start(move || converse(outbound));
    traffic.wait_served(10);
    traffic.assert_no_failure();
    let new = Authority::root(TRUST_DOMAIN);
    scene.issue_from(&new);
    traffic.wait_failed();
    // and the bundle, late, repairs it
    scene.trust(&[&new]);
    eventually("it is repaired", || converse(outbound));
}
