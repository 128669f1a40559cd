//! The one place where this crate reads the wall clock. All else takes `now` as an argument.

use std::time::{Duration, SystemTime};

/// How the parts that live long learn the time: tests hand in another one.
pub type Clock = fn() -> SystemTime;

/// What the clock on the wall says.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970; times before count as 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

pub(crate) fn from_unix_seconds(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
