//! Pods that were there and are no more, by their uids, which nobody has a second time. A token of
//! such a pod proves nothing, whatever was said of it before.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A token lives for an hour: ten pods a second that end for so long. Some 100 bytes each. The
/// oldest are forgotten first; the API server refuses their tokens all the same.
const MAX_REMEMBERED: usize = 36 * 1024;

/// All snapshots of one index share it: what is gone is so for whoever looks at an older one too.
#[derive(Debug, Clone, Default)]
pub(super) struct GonePods(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    uids: HashSet<Arc<str>>,
    /// Oldest first.
    in_order: VecDeque<Arc<str>>,
}

impl GonePods {
    /// `there` are uids that were not there before: a pod that could not be read for a while comes
    /// back as what it was.
    pub(super) fn take<'a>(
        &self,
        gone: impl Iterator<Item = &'a str>,
        there: impl Iterator<Item = &'a str>,
    ) {
        let mut remembered = self.lock();
        for uid in gone {
            remembered.add(uid);
        }
        for uid in there {
            remembered.uids.remove(uid);
        }
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.lock().uids.contains(uid)
    }

    /// A poisoned lock means a panic in here; what it guards is whole all the same.
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn add(&mut self, uid: &str) {
        let uid: Arc<str> = uid.into();
        if !self.uids.insert(Arc::clone(&uid)) {
            return;
        }
        self.in_order.push_back(uid);
        if self.in_order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_last_that_went_are_remembered_and_no_more_than_there_is_room_for() {
        let gone = GonePods::default();
        let uids: Vec<String> = (0..=MAX_REMEMBERED).map(|uid| uid.to_string()).collect();
        for _ in 0..2 {
            gone.take(uids.iter().map(String::as_str), std::iter::empty());
        }
        let remembered = gone.lock();
        assert!(remembered.uids.len() <= MAX_REMEMBERED);
        assert!(remembered.in_order.len() <= MAX_REMEMBERED);
        assert!(remembered.uids.contains(&*MAX_REMEMBERED.to_string()));
    }
}
