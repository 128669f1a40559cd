use super::*;

#[test]
fn is_not_ready_before_anybody_took_a_guard() {
    let readiness = Readiness::new();
    assert!(!readiness.is_ready());
    assert!(readiness.describe().starts_with("not ready\n"));
}

#[test]
fn is_ready_only_when_every_part_is() {
    let readiness = Readiness::new();
    let svid = readiness.block(Part::Svid);
    let policy = readiness.block(Part::Policy);
    svid.ready();
    assert!(!readiness.is_ready());
    assert!(
        readiness
            .describe()
            .contains("- policy: no policy snapshot yet")
    );
    assert!(!readiness.describe().contains("- svid"));
    policy.ready();
    assert!(readiness.is_ready());
    assert_eq!(readiness.describe(), "ready\n");
}

#[test]
fn a_part_can_lose_its_readiness_and_says_why() {
    let readiness = Readiness::new();
    let capture = readiness.watch(Part::Capture);
    assert!(readiness.is_ready());
    capture.not_ready("port 8080 is reachable past the sidecar: bind it to 127.0.0.1");
    assert!(!readiness.is_ready());
    assert_eq!(
        readiness.describe(),
        "not ready\n- capture: port 8080 is reachable past the sidecar: bind it to 127.0.0.1\n"
    );
    capture.ready();
    assert!(readiness.is_ready());
}

#[test]
fn a_guard_that_goes_away_before_it_is_ready_goes_on_blocking() {
    let readiness = Readiness::new();
    drop(readiness.block(Part::Svid));
    assert!(!readiness.is_ready());
}

#[test]
fn a_guard_that_goes_away_when_ready_leaves_it_so() {
    let readiness = Readiness::new();
    let svid = readiness.block(Part::Svid);
    svid.ready();
    drop(svid);
    assert!(readiness.is_ready());
}

#[test]
fn two_guards_of_one_part_both_count() {
    let readiness = Readiness::new();
    let inbound = readiness.block(Part::Listeners);
    let outbound = readiness.block(Part::Listeners);
    inbound.ready();
    assert!(!readiness.is_ready());
    outbound.ready();
    assert!(readiness.is_ready());
}

#[test]
fn a_reason_with_line_breaks_forges_no_line() {
    let readiness = Readiness::new();
    readiness
        .block(Part::Svid)
        .not_ready("no\nready\r- all: fine\u{1b}[2J");
    assert_eq!(
        readiness.describe(),
        "not ready\n- svid: no ready - all: fine [2J\n"
    );
}

#[tokio::test]
async fn waiting_ends_when_the_last_part_is_ready() {
    let readiness = Readiness::new();
    let svid = readiness.block(Part::Svid);
    let waiting = tokio::spawn({
        let readiness = readiness.clone();
        async move { readiness.ready().await }
    });
    svid.ready();
    waiting.await.unwrap();
}
