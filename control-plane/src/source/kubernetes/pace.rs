//! When something that changed is published.

use std::time::Duration;

use tokio::time::Instant;

/// Rollouts change many objects in a row; they are taken in together.
const COALESCE: Duration = Duration::from_millis(100);
/// In a very large cluster taking them in takes long: it may use a tenth of one core.
const PAUSE_PER_WORK: u32 = 10;

/// Of one thing that is published: it alone waits for how long it took the last time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
    not_before: Option<Instant>,
}

impl Pace {
    /// It has changed.
    pub(super) fn changed(&mut self, now: Instant) {
        let soon = now.checked_add(COALESCE).unwrap_or(now);
        let at = self.not_before.map_or(soon, |at| at.max(soon));
        self.due.get_or_insert(at);
    }

    /// `None`: nothing changed.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// It was published with something else.
    pub(super) const fn taken_along(&mut self) {
        self.due = None;
    }

    pub(super) fn published(&mut self, begun: Instant, now: Instant) {
        let work = now.saturating_duration_since(begun);
        self.not_before = now.checked_add(work.saturating_mul(PAUSE_PER_WORK));
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_waits_ten_times_as_long_and_nothing_else_does() {
        let start = Instant::now();
        let (mut directory, mut policies) = (Pace::default(), Pace::default());
        directory.changed(start);
        assert!(!directory.is_due(start) && policies.due().is_none());
        assert!(directory.is_due(start + COALESCE));
        let second = Duration::from_secs(1);
        directory.published(start, start + second);
        for pace in [&mut directory, &mut policies] {
            pace.changed(start + second);
        }
        assert_eq!(policies.due(), Some(start + second + COALESCE));
        assert_eq!(directory.due(), Some(start + second * 11));
        // changes that go on put nothing off
        policies.changed(start + second * 2);
        assert_eq!(policies.due(), Some(start + second + COALESCE));
    }
}
