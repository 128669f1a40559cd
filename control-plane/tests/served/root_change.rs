//! From one root to the next: in the right order nobody notices, in the wrong one nothing
//! happens.

use std::time::Duration;

use mesh_lite_control_plane::root_commands::RootMode;
use mesh_lite_proto::trust_bundle::TrustBundle;
use tokio::time::{self, Instant};

use super::{
    mesh_by_clock::{A_WHILE, DAY, STEP, Sidecar, readiness, start, verify},
    running::{eventually, trust_domain},
};

/// Shorter than a root needs to settle.
const SECONDS: Duration = Duration::from_secs(10);

fn without(bundle: &TrustBundle, dropped: &TrustBundle) -> TrustBundle {
    let kept = bundle.authorities().iter();
    let kept = kept.filter(|root| !dropped.authorities().contains(root));
    TrustBundle::new(trust_domain(), kept.cloned().collect()).unwrap()
}

/// SDS-S17, SPIFFE-V17: the next root is announced, settles, its issuing CA signs, the last leaf
/// under the old root ends, the old root goes. Nobody refuses anybody at any time.
#[tokio::test(start_paused = true)]
async fn changes_roots_in_the_right_order_without_a_failure() {
    let running = start(RootMode::Kept).await;
    let old = running.directories.trust_bundle();
    let file = running.directories.data.join("trust-bundle.pem");
    let mut web = Sidecar::new(&running, "shop/web").await;
    let mut api = Sidecar::new(&running, "shop/api").await;
    let first = web.svid.chain[1].clone();
    assert_eq!(running.directories.init_root("next-root").roots, 2);
    let both = running.directories.trust_bundle();
    let next = without(&both, &old);

    let (mut announced, mut signs, mut dropped) = (None, None, None);
    for step in 0..40_u32 {
        time::advance(if step < 10 { SECONDS } else { STEP / 2 }).await;
        let old_web = web.renew(&running).await;
        let old_api = api.renew(&running).await;
        for (chain, peer) in [
            (&old_web.chain, &api),
            (&old_api.chain, &web),
            (&web.svid.chain, &api),
            (&api.svid.chain, &web),
        ] {
            assert_eq!(verify(chain, &peer.bundle), Ok(()), "step {step}");
        }
        assert_eq!(readiness(&running).await, "ok\n", "step {step}");
        if announced.is_none() && web.bundle == both {
            announced = Some(Instant::now());
        }
        if signs.is_none() && web.svid.chain[1] != first {
            signs = Some(Instant::now());
        }
        let leaves_ended = signs.is_some_and(|since| since.elapsed() > DAY);
        if dropped.is_none() && leaves_ended {
            std::fs::write(&file, next.to_pem()).unwrap();
            dropped = Some(Instant::now());
            time::sleep(A_WHILE).await;
        }
    }
    let settled = signs.unwrap() - announced.unwrap();
    assert!(settled >= Duration::from_secs(35 - 10), "{settled:?}");
    assert!(dropped.is_some());
    assert_eq!(web.bundle, next);
    assert_eq!(verify(&web.svid.chain, &next), Ok(()));
    running.end().await;
}

/// SDS-S17: the wrong order is refused, said, and harmless: sidecars go on with the old root.
#[tokio::test(start_paused = true)]
async fn keeps_a_root_that_is_dropped_while_its_issuing_ca_signs() {
    let running = start(RootMode::Kept).await;
    let old = running.directories.trust_bundle();
    let file = running.directories.data.join("trust-bundle.pem");
    let mut web = Sidecar::new(&running, "shop/web").await;
    running.directories.init_root("next-root");
    let both = running.directories.trust_bundle();
    // in place of both: the control plane has not looked yet, time stands still
    std::fs::write(&file, without(&both, &old).to_pem()).unwrap();
    let said = eventually("it is refused", async || {
        let text = readiness(&running).await;
        text.contains("is missing in the trust bundle")
            .then_some(text)
    })
    .await;
    assert!(said.contains("Put it back"), "{said}");
    for _ in 0..10 {
        time::advance(SECONDS).await;
        let before = web.renew(&running).await;
        assert_eq!(web.bundle, old);
        assert_eq!(verify(&before.chain, &old), Ok(()));
        assert_eq!(verify(&web.svid.chain, &old), Ok(()));
    }

    std::fs::write(&file, both.to_pem()).unwrap();
    eventually("the next root is announced", async || {
        time::advance(SECONDS).await;
        web.renew(&running).await;
        (web.bundle == both).then_some(())
    })
    .await;
    assert_eq!(readiness(&running).await, "ok\n");
    running.end().await;
}
