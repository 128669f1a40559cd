//! The only way tests wait.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::Instant;

/// Ten times what anything here should take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Repeats `attempt` until it succeeds; fails the test with its last error after [`PATIENCE`].
pub fn eventually<T, E: Debug>(what: &str, attempt: impl FnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, attempt)
}

/// As [`eventually`], with a deadline of its own.
pub fn eventually_within<T, E: Debug>(
    patience: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) if start.elapsed() > patience => {
                panic!("not within {patience:?}: {what}: {error:?}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// For scenarios whose matter is time itself: a server that thinks, a client that calls at a
/// pace. Never to wait for something to have happened.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Repeats `check` for the whole of `duration`; its first failure fails the test.
pub fn holds_for<E: Debug>(
    duration: Duration,
    what: &str,
    mut check: impl FnMut() -> Result<(), E>,
) {
    let start = Instant::now();
    while start.elapsed() < duration {
        if let Err(error) = check() {
            panic!("no longer after {:?}: {what}: {error:?}", start.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
}
