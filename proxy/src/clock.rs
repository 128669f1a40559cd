//! The one place where this crate reads the wall clock. All else takes `now` as an argument.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc2822};
use tonic::metadata::MetadataMap;

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

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A span of time as people say it: in the largest unit that it has two of, rounded.
pub fn in_words(span: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(24 * 3600, "days"), (3600, "h"), (60, "min")];
    let seconds = span.as_secs();
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, name)) => format!("{} {name}", seconds.saturating_add(length / 2) / length),
        None => format!("{seconds} s"),
    }
}

/// How far our clock is from the control plane's, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSkew {
    /// Ours minus theirs.
    pub seconds: i64,
}

/// Less than this breaks nothing: certificates are backdated by two minutes where they live long.
const NOTABLE_SKEW: u64 = 30;

impl ClockSkew {
    /// Whether it may explain what does not work.
    pub fn is_notable(&self) -> bool {
        self.seconds.unsigned_abs() >= NOTABLE_SKEW
    }

    /// By the `date` that an HTTP server states; `None` if it states none.
    pub fn measured(answer: &MetadataMap, now: SystemTime) -> Option<Self> {
        let date = answer.get("date")?.to_str().ok()?;
        let theirs = OffsetDateTime::parse(date, &Rfc2822).ok()?;
        let seconds = (OffsetDateTime::from(now) - theirs).whole_seconds();
        Some(Self { seconds })
    }
}

impl fmt::Display for ClockSkew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = in_words(Duration::from_secs(self.seconds.unsigned_abs()));
        match self.seconds {
            0 => f.write_str("our clock agrees with the control plane's"),
            1.. => write!(f, "our clock is {by} ahead of the control plane's"),
            _ => write!(f, "our clock is {by} behind the control plane's"),
        }
    }
}

#[cfg(test)]
mod tests;
