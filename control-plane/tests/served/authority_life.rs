//! The authority over months, in both root modes. Time stands still but where it is moved or
//! waited for.

use std::time::Duration;

use mesh_lite_control_plane::{
    clock as wall,
    root_commands::{Renewal, RootMode, renew_root, renewal_is_due},
};
use tokio::time::{self, Instant};

use super::{
    log::heard,
    mesh_by_clock::{
        A_WHILE, DAY, STEP, Sidecar, clock, days_to_breakage, readiness, start, verify,
    },
    running::{Directories, Running, eventually, trust_domain},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What a daily timer runs. True if it signed.
fn renew_if_due(running: &Running) -> bool {
    let places = running.directories.places("root");
    let due = renewal_is_due(&places, &trust_domain(), clock()).unwrap();
    if due {
        running.directories.renew_root();
    }
    due
}

/// SDS-S17, SDS-S30. Default lifetimes, steps of half a leaf's life: every request is answered, every leaf that
/// is not past its end verifies under the roots its peer was told of, nothing warns.
#[tokio::test(start_paused = true)]
async fn sixty_days_pass_in_root_mode_kept_without_a_failure_or_a_human_step() {
    let running = start(RootMode::Kept).await;
    let mut web = Sidecar::new(&running, "shop/web").await;
    let mut api = Sidecar::new(&running, "shop/api").await;
    let mut renewals = 0;
    let mut issuers = vec![web.svid.chain[1].clone()];
    for step in 1..=120_u32 {
        time::advance(STEP).await;
        if renew_if_due(&running) {
            renewals += 1;
        }
        // the control plane's own certificate is good too, or no sidecar would connect
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
        let left = web.svid.facts.not_after.duration_since(clock()).unwrap();
        assert!(
            left > DAY - A_WHILE,
            "step {step}: not a whole life: {left:?}"
        );
        time::sleep(A_WHILE).await;
        assert_eq!(readiness(&running).await, "ok\n", "step {step}");
        assert!(days_to_breakage(&running, "issuing_ca").await > 14.0);
        assert!(days_to_breakage(&running, "serving_certificate").await > 0.4);
        if !issuers.contains(&web.svid.chain[1]) {
            issuers.push(web.svid.chain[1].clone());
        }
    }
    // at days 15, 30, 45 and 60; the last one signs from the next step on
    assert_eq!(renewals, 4);
    let last = Sidecar::new(&running, "shop/web").await.svid.chain[1].clone();
    assert!(
        !issuers.contains(&last),
        "the last renewal is in use by now"
    );
    assert_eq!(issuers.len(), 4);
    running.end().await;
}

/// The test above would notice: without the timer the issuing CA ends at day 30.
#[tokio::test(start_paused = true)]
async fn without_its_timer_root_mode_kept_warns_in_the_last_quarter_and_then_issues_nothing() {
    let running = start(RootMode::Kept).await;
    time::advance(22 * DAY).await;
    time::sleep(A_WHILE).await;
    assert_eq!(readiness(&running).await, "ok\n");
    time::advance(DAY).await;
    let said = eventually("it warns", async || {
        let text = readiness(&running).await;
        text.contains("the issuing CA ends at").then_some(text)
    })
    .await;
    assert!(said.contains("look why its timer did not"), "{said}");
    assert!(days_to_breakage(&running, "issuing_ca").await < 7.5);
    assert!(days_to_breakage(&running, "root").await > 3600.0);

    time::advance(6 * DAY + HOUR).await;
    let svid = running.issue("shop/web").await;
    let end = svid.facts.not_after.duration_since(clock()).unwrap();
    assert!(
        end < DAY,
        "SPIFFE-L8: it would outlive its issuer by {end:?}"
    );
    time::advance(DAY).await;
    assert!(verify(&svid.chain, &running.directories.trust_bundle()).is_err());
    assert!(
        running.connect(None).await.is_err(),
        "its own has ended too"
    );
    assert!(days_to_breakage(&running, "issuing_ca").await < 0.0);
    // a renewal, late as it is, heals all
    assert!(renew_if_due(&running));
    eventually("it serves again", async || running.connect(None).await.ok()).await;
    running.issue("shop/web").await;
    eventually("all is well", async || {
        (readiness(&running).await == "ok\n").then_some(())
    })
    .await;
    running.end().await;
}

/// Design §3: in mode kept the control plane has no right to read the root's key.
#[tokio::test]
async fn starts_serves_and_takes_over_an_issuing_ca_where_it_can_not_read_the_root() {
    let directories = Directories::new();
    let (root, elsewhere) = (
        directories.data.join("root"),
        directories.data.join("not-for-it"),
    );
    std::fs::rename(&root, &elsewhere).unwrap();
    let running = Running::start_in(directories).await;
    let first = running.issue("shop/web").await;
    let places = running.directories.places("not-for-it");
    renew_root(&places, Renewal::default(), wall::now()).unwrap();
    eventually("the next issuing CA signs", async || {
        let next = running.issue("shop/web").await;
        (next.chain[1] != first.chain[1]).then_some(())
    })
    .await;
    assert_eq!(readiness(&running).await, "ok\n");
}

/// Design §3: a year, and sixty days before its end a person is told.
#[tokio::test(start_paused = true)]
async fn root_mode_offline_warns_from_day_305_on_and_not_before() {
    let log = heard();
    let running = start(RootMode::Offline).await;
    let logged = || log.text().matches("root mode is offline").count();
    let root = running.directories.data.join("root");
    let elsewhere = running.directories.data.join("taken-away");
    std::fs::rename(&root, &elsewhere).unwrap();
    let made = Instant::now();
    for day in [1_u32, 100, 200, 300, 304] {
        time::advance(made + day * DAY - Instant::now()).await;
        time::sleep(A_WHILE).await;
        assert_eq!(readiness(&running).await, "ok\n", "day {day}");
        running.issue("shop/web").await;
    }
    time::advance(made + 305 * DAY - HOUR - Instant::now()).await;
    time::sleep(A_WHILE).await;
    assert_eq!(readiness(&running).await, "ok\n", "an hour before day 305");
    assert_eq!(logged(), 0);
    let left = days_to_breakage(&running, "issuing_ca").await;
    assert!((60.0..60.1).contains(&left), "{left}");

    time::advance(HOUR).await;
    let said = eventually("it warns", async || {
        let text = readiness(&running).await;
        text.contains("root mode is offline").then_some(text)
    })
    .await;
    assert!(said.contains("mesh-lite root renew --root-dir"), "{said}");
    let left = days_to_breakage(&running, "issuing_ca").await;
    assert!((59.9..60.0).contains(&left), "{left}");
    time::advance(10 * DAY).await;
    time::sleep(A_WHILE).await;
    assert_eq!(logged(), 1, "said once, as long as nothing changes");

    // the operator does what it says
    std::fs::rename(&elsewhere, &root).unwrap();
    let report = running.directories.renew_root();
    assert_eq!(report.mode, RootMode::Offline);
    let left = report.issuing_until.duration_since(clock()).unwrap();
    assert!(left > 365 * DAY - A_WHILE, "{left:?}");
    std::fs::rename(&root, &elsewhere).unwrap();
    eventually("all is well", async || {
        (readiness(&running).await == "ok\n").then_some(())
    })
    .await;
    running.issue("shop/web").await;
    running.end().await;
}
