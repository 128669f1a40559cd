use std::time::SystemTime;

use tonic::Status;

use super::*;

const THREE_HOURS: Duration = Duration::from_secs(3 * 3600);

fn behind() -> SystemTime {
    crate::clock::now() - THREE_HOURS
}

fn ahead() -> SystemTime {
    crate::clock::now() + THREE_HOURS
}

fn start_at(server: &ScriptedControlPlane, clock: Clock) -> Sidecar {
    let files = files();
    start_with_clock(config(server, &files), &files, clock)
}

#[tokio::test]
async fn a_clock_that_is_behind_is_named_with_how_far_in_error_advice_and_metric() {
    let server = ScriptedControlPlane::start();
    let sidecar = start_at(&server, behind);
    let error = sidecar.issuing_error_with("valid only in").await;
    let words = "our clock is 3 h behind the control plane's: set the clock of this host";
    assert!(error.contains(words), "{error}");
    let renewal = sidecar.handles.renewal.borrow().clone();
    let failure = renewal.failure.unwrap();
    assert!(
        failure.advice.starts_with("set the clock"),
        "{}",
        failure.advice
    );
    let skew = sidecar.metric("clock_skew_seconds").unwrap();
    assert!((skew - THREE_HOURS.as_secs_f64()).abs() < 60.0, "{skew}");
}

#[tokio::test]
async fn a_refusal_names_the_clock_too() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.refuse = Some(Status::permission_denied("not you")));
    let sidecar = start_at(&server, ahead);
    let error = sidecar.issuing_error_with("not you").await;
    assert!(error.contains("our clock is 3 h ahead"), "{error}");
}

#[tokio::test]
async fn a_restarted_sidecar_learns_its_skew_from_the_stream_before_any_renewal() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let first = start_with(config(&server, &files), &files);
    first.identity().await;
    let state = StateFile::in_directory(files.path());
    eventually("the state is kept", || {
        state.read().ok().flatten().filter(|it| it.key.is_some())
    })
    .await;
    drop(first);
    server.forget_events();
    // an hour's leaf lasts for half of it at this clock
    fn a_bit_ahead() -> SystemTime {
        crate::clock::now() + Duration::from_secs(300)
    }
    let second = start_with_clock(config(&server, &files), &files, a_bit_ahead);
    let skew = eventually("the skew", || second.handles.renewal.borrow().clock_skew).await;
    assert!((299..=302).contains(&skew.seconds), "{skew}");
    let issued = server.events();
    let renewed = issued
        .iter()
        .any(|event| matches!(event, Event::IssuedBySvid(_)));
    assert!(!renewed, "{issued:?}");
}
