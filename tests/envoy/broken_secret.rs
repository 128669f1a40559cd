//! What happens where a broken secret is sent all the same: the control of every test here that
//! finds `update_rejected` at zero, and the reason to check secrets before they are sent.

use mesh_lite_test_support::envoy::installed;
use mesh_lite_test_support::eventually;

use crate::scene::{API, Scene, WEB, call, client, wait_shown};

/// E2E-E5, SDS-S14: the last good pair stays in use, equal bytes are not sent again, and what is
/// good again is taken.
#[test]
fn a_key_of_another_certificate_is_seen_to_be_rejected() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_key_of_another_certificate_is_seen_to_be_rejected"
    );
    let Some(program) = installed(TEST) else {
        return;
    };
    let (scene, root) = Scene::with_root(program);
    let mut envoy = scene.inbound("inbound", "inbound", &[("SVID", API)]);
    envoy.wait_ready();
    let (address, web) = (envoy.listener(), client(&root, WEB));
    let before = call(address, &web).unwrap();
    assert_eq!(envoy.rejected(), 0);
    let (one, another) = (root.leaf(API, |_| ()), root.leaf(API, |_| ()));
    scene.server.set_mismatched(API, &one, &another);
    eventually("the rejection arrives", || {
        let rejections = scene.server.rejections();
        if rejections
            .iter()
            .any(|text| text.contains("KEY_VALUES_MISMATCH"))
        {
            Ok(())
        } else {
            Err(rejections)
        }
    });
    assert_eq!(envoy.rejected(), 1);
    assert_eq!(call(address, &web).unwrap(), before);
    let good = root.leaf(API, |_| ());
    scene.server.set_svid(API, &good);
    wait_shown(address, &web, &good.chain[0]);
    assert_eq!(scene.server.rejections().len(), 1);
    assert_eq!(envoy.rejected(), 1);
}
