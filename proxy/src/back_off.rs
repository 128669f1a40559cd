//! How long to wait before trying again.

use std::time::Duration;

use crate::spread;

const FIRST: Duration = Duration::from_millis(500);
/// A control plane that comes back is found again within this.
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles from 0.5 s to 60 s. Each wait is between half and all of its step, differently for
/// each pod, so that a control plane that comes back does not meet all of them at once.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    seed: u64,
    /// Grows with every wait and is never set back: no two waits share their jitter.
    waits: u64,
    failures: u32,
}

impl BackOff {
    /// `name` tells pods, and the parts of one pod, apart.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            seed: spread::seed_of(name),
            waits: 0,
            failures: 0,
        }
    }

    /// The wait after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let step = FIRST
            .saturating_mul(1_u32 << self.failures.min(7))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.waits = self.waits.wrapping_add(1);
        step.mul_f64(0.5 + 0.5 * spread::fraction(self.seed ^ self.waits))
    }

    /// It worked: the next failure is the first one again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_half_a_second_to_a_minute_and_stays_there() {
        let mut back_off = BackOff::new("pod");
        let mut step = FIRST;
        for _ in 0..100 {
            let wait = back_off.after_failure();
            assert!(
                wait >= step / 2 && wait <= step,
                "{wait:?} for a step of {step:?}"
            );
            step = (step * 2).min(LONGEST);
        }
    }

    #[test]
    fn starts_again_after_a_success() {
        let mut back_off = BackOff::new("pod");
        for _ in 0..20 {
            back_off.after_failure();
        }
        back_off.succeeded();
        assert!(back_off.after_failure() <= FIRST);
    }

    #[test]
    fn two_pods_do_not_wait_in_step() {
        let (mut one, mut other) = (BackOff::new("pod-1"), BackOff::new("pod-2"));
        let same = (0..50)
            .filter(|_| one.after_failure() == other.after_failure())
            .count();
        assert_eq!(same, 0);
    }
}
