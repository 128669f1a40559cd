//! Recorded connections against other documents: which would flip, and by which rule.

use std::time::SystemTime;

use super::{
    Caveat, Documents, Flip, Recorded, caveats::caveats, flips::judge_again,
    recorded::may_be_in_use,
};

/// What documents would do to connections that were recorded.
#[derive(Debug)]
pub struct Replay<'a> {
    /// Connections that were judged again.
    pub connections: u64,
    /// Different records of them.
    pub distinct: usize,
    /// Connections that the other shipped default would judge otherwise.
    pub by_shipped_default: u64,
    /// Inbound connections that had been refused before policy was asked: nobody knows what it
    /// would have said.
    pub not_asked: u64,
    /// What would be closed first, most connections first.
    pub flips: Vec<Flip<'a>>,
    /// What the answer leaves out.
    pub caveats: Vec<Caveat>,
}

impl Replay<'_> {
    /// Nothing would flip, and nothing that would tell otherwise is missing.
    #[must_use]
    pub fn flips_nothing(&self) -> bool {
        self.flips.is_empty() && self.caveats.is_empty()
    }

    /// Connections that flip.
    #[must_use]
    pub fn flipped(&self) -> u64 {
        self.flips
            .iter()
            .fold(0, |sum: u64, flip| sum.saturating_add(flip.count))
    }

    /// Different records that flip.
    #[must_use]
    pub fn flipped_distinct(&self) -> usize {
        self.flips.iter().map(|flip| flip.distinct).sum()
    }
}

/// Judges everything that was recorded by the documents; if `from` is given, what may have been in
/// use since then.
#[must_use]
pub fn replay<'a>(
    documents: &Documents,
    recorded: &[Recorded<'a>],
    from: Option<SystemTime>,
    now: SystemTime,
) -> Replay<'a> {
    let again = judge_again(documents, recorded, now, |one, record| {
        from.is_none_or(|from| may_be_in_use(one, record, from))
    });
    let caveats = caveats(recorded, &again);
    Replay {
        connections: again.connections,
        distinct: again.distinct,
        by_shipped_default: again.by_shipped_default,
        not_asked: again.not_asked,
        flips: again.flips,
        caveats,
    }
}

#[cfg(test)]
mod tests;
