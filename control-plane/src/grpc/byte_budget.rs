//! What one workload makes the control plane hold, over all its connections: a stream keeps the
//! room of its longest message until it ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What a stream costs while its messages are short.
const OF_A_STREAM: usize = 16 * 1024;

/// Bytes that may be held at one time. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct ByteBudget(Arc<AtomicUsize>);

/// One stream's part, given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: ByteBudget,
    bytes: usize,
}

impl ByteBudget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// For one stream; `None`: too much is held already.
    pub(super) fn begin(&self) -> Option<Held> {
        let mut held = Held {
            budget: self.clone(),
            bytes: 0,
        };
        held.grow_to(OF_A_STREAM).then_some(held)
    }
}

impl Held {
    /// Whether there is room for a message this long.
    pub(super) fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = self
            .budget
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(more)
            });
        if taken.is_err() {
            return false;
        }
        self.bytes = self.bytes.saturating_add(more);
        true
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_there_is_and_takes_back_what_ends() {
        let budget = ByteBudget::new(3 * OF_A_STREAM);
        let mut one = budget.begin().unwrap();
        assert!(one.grow_to(2 * OF_A_STREAM) && !one.grow_to(4 * OF_A_STREAM));
        // a shorter message needs no room of its own
        assert!(one.grow_to(1));
        let other = budget.clone().begin().unwrap();
        assert!(budget.begin().is_none());
        drop(one);
        let two = [budget.begin(), budget.begin()];
        assert!(two.iter().all(Option::is_some) && budget.begin().is_none());
        drop((other, two));
        assert_eq!(budget.0.load(Ordering::Relaxed), 3 * OF_A_STREAM);
    }
}
