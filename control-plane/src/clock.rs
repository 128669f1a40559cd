//! The one place where this crate reads the wall clock. All else takes `now` as an argument.

use std::time::{Duration, SystemTime};

/// How the parts that live long learn the time: tests hand in another one.
pub type Clock = fn() -> SystemTime;

/// What the clock on the wall says.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// A clock that is set, or a machine that slept, is noticed within this time.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Completes when the clock says that it is so late. Not for what must be exact after the clock
/// was set.
pub(crate) async fn wait_until(clock: Clock, at: SystemTime) {
    while let Ok(left) = at.duration_since(clock())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
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

/// As certificates state time: whole seconds, rounded down.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    from_unix_seconds(unix_seconds(time))
}

/// A date a person can read, UTC.
pub fn readable(time: SystemTime) -> String {
    // by seconds: the conversion of a time past the year 9999 panics
    i64::try_from(unix_seconds(time))
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| {
            date.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| format!("{} seconds after 1970", unix_seconds(time)))
}

/// Milliseconds since 1970; times before count as 1970.
pub(crate) fn unix_millis(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    thread_local! {
        static AT: Cell<u64> = const { Cell::new(1_000) };
    }

    fn set_by_hand() -> SystemTime {
        from_unix_seconds(AT.get())
    }

    /// The time may be another's to choose: a sidecar's page says what it likes.
    #[test]
    fn writes_times_past_the_year_9999_too() {
        let written = |seconds| readable(from_unix_seconds(seconds));
        assert_eq!(written(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(written(253_402_300_800), "253402300800 seconds after 1970");
        assert!(written(1_000_000_000_000_000_000).ends_with("after 1970"));
    }

    /// Nobody told the timers that the clock was set, or that the machine slept.
    #[tokio::test(start_paused = true)]
    async fn notices_within_half_a_minute_that_the_clock_was_set() {
        let begun = Instant::now();
        let waiting = wait_until(set_by_hand, from_unix_seconds(1_000 + 86_400));
        let setting = async {
            tokio::time::sleep(Duration::from_secs(100)).await;
            AT.set(1_000 + 86_400);
        };
        tokio::join!(waiting, setting);
        assert!(begun.elapsed() <= Duration::from_secs(100) + LOOK_AGAIN);
        // what has passed is not waited for
        let begun = Instant::now();
        wait_until(set_by_hand, from_unix_seconds(999)).await;
        wait_until(set_by_hand, set_by_hand()).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
