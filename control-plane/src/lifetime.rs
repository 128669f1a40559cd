//! Lengths of time as people write them: `20s`, `10m`, `24h`, `30d`.

use std::{fmt, str::FromStr, time::Duration};

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Whole seconds, more than none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(Duration);

impl Lifetime {
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Lifetime {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Lifetime {
    type Err = InvalidLifetime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidLifetime(text.chars().take(40).collect());
        let (number, seconds) = UNITS
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)))
            .ok_or_else(invalid)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        let count: u64 = number.parse().map_err(|_| invalid())?;
        let seconds = count
            .checked_mul(seconds)
            .filter(|seconds| *seconds > 0)
            .ok_or_else(invalid)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// In the largest unit that divides it.
impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let whole = UNITS.iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
        match whole {
            Some((unit, length)) => write!(f, "{}{unit}", seconds / length),
            None => write!(f, "{seconds}s"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write 20s, 10m, 24h or 30d")]
pub struct InvalidLifetime(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_and_writes_the_largest() {
        for (text, seconds, written) in [
            ("20s", 20, "20s"),
            ("90m", 5_400, "90m"),
            ("24h", 86_400, "1d"),
            ("30d", 2_592_000, "30d"),
        ] {
            let lifetime: Lifetime = text.parse().unwrap();
            assert_eq!(lifetime.duration(), Duration::from_secs(seconds));
            assert_eq!(lifetime.to_string(), written);
        }
    }

    #[test]
    fn refuses_what_is_no_length_of_time() {
        for text in [
            "",
            "s",
            "0s",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1w",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }
}
