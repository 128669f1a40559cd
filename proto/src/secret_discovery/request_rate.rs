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
        Self { per_second, burst, level, filled_at: Duration::ZERO }
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
