//! When to ask for the next certificate. Pure: `now` comes in, a time goes out.

use std::time::{Duration, SystemTime};

use mesh_lite_proto::svid::LeafFacts;

use crate::spread;

/// Renewal lies between 40 and 60 % of a leaf's life: early enough that an outage of a third of
/// it harms nobody, late enough that leaves are not wasted.
const EARLIEST: f64 = 0.4;
const SPREAD: f64 = 0.2;

/// A change of issuing CA is followed within this, or a twentieth of the leaf's life.
const LONGEST_ROTATION_SPREAD: Duration = Duration::from_secs(30);
const ROTATION_SPREAD_OF_LIFE: u32 = 20;

/// With a short leaf, so many attempts must still fit into what is left of it.
const ATTEMPTS_LEFT: u32 = 4;
/// Never sooner than this after a failure, however little is left.
const SHORTEST_RETRY: Duration = Duration::from_millis(250);

/// An attempt to issue may take this long; less when the leaf in use ends soon.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(10);
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);

/// One pod's place within every spread.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    seed: u64,
}

impl Schedule {
    pub fn new(pod_uid: &str) -> Self {
        Self {
            seed: spread::seed_of(pod_uid),
        }
    }

    /// When a leaf that came at `obtained` is renewed. A clock that runs ahead of the issuer's
    /// sees a new leaf as an old one: what counts is what was left of it when it came, else a
    /// sidecar would ask again and again.
    pub fn renewal_point(&self, obtained: SystemTime, leaf: &LeafFacts) -> SystemTime {
        let start = obtained.max(leaf.not_before);
        let life = leaf.not_after.duration_since(start).unwrap_or_default();
        start + life.mul_f64(EARLIEST + SPREAD * spread::fraction(self.seed))
    }

    /// When to follow a change of the issuing CA that was seen at `now`.
    pub fn rotation_point(&self, now: SystemTime, leaf: &LeafFacts) -> SystemTime {
        let life = leaf
            .not_after
            .duration_since(leaf.not_before)
            .unwrap_or_default();
        let longest = (life / ROTATION_SPREAD_OF_LIFE).min(LONGEST_ROTATION_SPREAD);
        now + longest.mul_f64(spread::fraction(self.seed.rotate_left(17)))
    }
}

/// How long to wait after a failed attempt: the back-off, but short enough that several more
/// attempts fit into what is left of the leaf in use. `left` is `None` without a leaf.
pub fn retry_delay(back_off: Duration, left: Option<Duration>) -> Duration {
    match left {
        Some(left) => back_off.min(left / ATTEMPTS_LEFT).max(SHORTEST_RETRY),
        None => back_off,
    }
}

/// How long one attempt may take.
pub fn attempt_deadline(left: Option<Duration>) -> Duration {
    left.map_or(LONGEST_ATTEMPT, |left| {
        (left / ATTEMPTS_LEFT).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT)
    })
}

#[cfg(test)]
mod tests;
