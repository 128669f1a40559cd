//! How fast one client may ask. Time is an argument: what has passed since the stream opened.

use std::time::Duration;

/// A bucket of permits that fills at a steady rate.
#[derive(Debug, Clone)]
pub struct RequestRate {
    per_second: u32,
    burst: u32,
    /// In thousandths of a permit.
    level: u64,
    filled_at: Duration,
}

const WHOLE: u64 = 1000;

impl RequestRate {
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let level = u64::from(burst).saturating_mul(WHOLE);
        Self {
            per_second,
            burst,
            level,
            filled_at: Duration::ZERO,
        }
    }

    /// Takes `count` permits, or none.
    #[must_use = "without the permits nothing may be done"]
    pub fn take(&mut self, count: u32, since_open: Duration) -> bool {
        let passed = since_open.saturating_sub(self.filled_at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let full = u64::from(self.burst).saturating_mul(WHOLE);
        let filled = millis.saturating_mul(u64::from(self.per_second));
        self.level = self.level.saturating_add(filled).min(full);
        // a part of a millisecond is not lost: it counts the next time
        self.filled_at = self.filled_at.saturating_add(Duration::from_millis(millis));
        let price = u64::from(count).saturating_mul(WHOLE);
        match self.level.checked_sub(price) {
            Some(left) => {
                self.level = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_burst_and_then_a_steady_rate() {
        let mut rate = RequestRate::new(10, 3);
        let at = Duration::from_millis;
        assert!(rate.take(2, at(0)) && rate.take(1, at(0)) && !rate.take(1, at(99)));
        assert!(rate.take(1, at(100)) && !rate.take(1, at(101)));
        // however long it was idle, it gives no more than the burst
        assert!(!rate.take(4, at(1_000_000)) && rate.take(3, at(1_000_000)));
        assert!(!rate.take(1, at(1_000_000)));
    }

    #[test]
    fn survives_time_that_stands_still_or_goes_back() {
        let mut rate = RequestRate::new(10, 1);
        assert!(rate.take(1, Duration::from_secs(10)));
        assert!(!rate.take(1, Duration::from_secs(1)));
        assert!(!rate.take(1, Duration::from_secs(10)));
        assert!(rate.take(1, Duration::MAX));
    }
}
