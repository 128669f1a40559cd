//! When the latest of the connections with one record ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::access_log::Outcome;

/// Shared by a record and its open connections: an end is noted without a look-up or a lock, also
/// when the record has been forgotten. Of what was never let through there is nothing to note.
#[derive(Debug, Clone, Default)]
pub struct LastEnd(Option<Arc<AtomicU64>>);

impl LastEnd {
    pub(super) fn of(outcome: &Outcome) -> Self {
        Self(outcome.is_let_through().then(Arc::default))
    }

    /// A connection has ended.
    pub fn note(&self, at: SystemTime) {
        let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH);
        // 0 is no end: what ended in 1970 ended a little later
        let nanoseconds = since_1970.unwrap_or_default().as_nanos().max(1);
        if let Some(latest) = &self.0 {
            let nanoseconds = u64::try_from(nanoseconds).unwrap_or(u64::MAX);
            latest.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }

    pub(super) fn at(&self) -> Option<SystemTime> {
        let nanoseconds = self.0.as_ref()?.load(Ordering::Relaxed);
        let since_1970 = (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))?;
        SystemTime::UNIX_EPOCH.checked_add(since_1970)
    }
}
