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

/// A span of time as people say it: in the largest unit that it has two of, rounded.
pub fn in_words(span: Duration) -> String {
    const UNITS: [(u64, &str); 3] = [(24 * 3600, "days"), (3600, "h"), (60, "min")];
    let seconds = span.as_secs();
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, name)) => format!("{} {name}", (seconds + length / 2) / length),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_largest_unit() {
        let told = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!(told(0), "0 s");
        assert_eq!(told(119), "119 s");
        assert_eq!(told(120), "2 min");
        assert_eq!(told(3 * 3600 + 59), "3 h");
        assert_eq!(told(3 * 3600 - 1), "3 h");
        assert_eq!(told(47 * 3600), "47 h");
        assert_eq!(told(30 * 24 * 3600), "30 days");
    }
}
