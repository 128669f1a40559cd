//! Where the root's key is between two signatures, and what follows from it.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::authority_facts::AuthorityFacts;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// From this long before its end an issuing CA or a root is spoken of: long enough for a person
/// who is on holiday.
const WARN_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RootMode {
    /// A timer signs the next issuing CA at half life. Nobody acts.
    #[default]
    Kept,
    /// The key is out of reach until a person brings it; or the issuing CA was imported, and the
    /// root is somebody else's.
    Offline,
}

impl RootMode {
    /// How long an issuing CA lives if nobody says otherwise.
    pub fn issuing_lifetime(self) -> Duration {
        match self {
            Self::Kept => 30 * DAY,
            Self::Offline => 365 * DAY,
        }
    }

    /// In mode kept a stolen issuing CA must not outlive its theft by much, and renewal costs
    /// nobody anything. Nobody remembers after more than a year how it was done.
    pub fn longest_issuing_lifetime(self) -> Duration {
        match self {
            Self::Kept => 90 * DAY,
            Self::Offline => 366 * DAY,
        }
    }

    /// When the end of an issuing CA is first spoken of. In mode kept the timer had a quarter of
    /// its life to act by then; offline a person is told in time, or at half life if it is short.
    pub(crate) fn warns_from(self, facts: &AuthorityFacts) -> SystemTime {
        let part = match self {
            Self::Kept => facts.lifetime() / 4,
            Self::Offline => facts.lifetime() / 2,
        };
        before(facts, WARN_BEFORE.min(part))
    }
}

/// When the end of a root is first spoken of: changing it takes a person in both modes.
pub(crate) fn root_warns_from(facts: &AuthorityFacts) -> SystemTime {
    before(facts, WARN_BEFORE.min(facts.lifetime() / 2))
}

fn before(facts: &AuthorityFacts, time: Duration) -> SystemTime {
    facts
        .not_after
        .checked_sub(time)
        .unwrap_or(facts.not_before)
}

impl fmt::Display for RootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Offline => "offline",
        })
    }
}

impl FromStr for RootMode {
    type Err = InvalidRootMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "kept" => Ok(Self::Kept),
            "offline" => Ok(Self::Offline),
            _ => Err(InvalidRootMode),
        }
    }
}

/// Does not repeat the word: it may be from a file whose content is nobody's to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no root mode: write kept or offline")]
pub struct InvalidRootMode;
