//! One redemption of a join token at a time: reading its record and redeeming it are two steps.
//! Different tokens do not wait for each other, nor for each other's writes to reach the disk.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::certificate_authority::certificate_request::KeyPrint;

/// The tokens that are being redeemed: no more than issuances run at once.
#[derive(Default)]
pub(super) struct Redeeming {
    tokens: Mutex<HashSet<KeyPrint>>,
    ended: Condvar,
}

/// Nobody else redeems this token until it is dropped.
pub(super) struct Redemption<'a> {
    all: &'a Redeeming,
    token: KeyPrint,
}

impl Redeeming {
    /// Waits for another caller with the same token.
    pub(super) fn begin(&self, token: KeyPrint) -> Redemption<'_> {
        let mut tokens = self.tokens();
        while !tokens.insert(token) {
            tokens = self
                .ended
                .wait(tokens)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(tokens);
        Redemption { all: self, token }
    }

    /// A poisoned lock means a panic in here; what it guards is whole all the same.
    fn tokens(&self) -> MutexGuard<'_, HashSet<KeyPrint>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redemption<'_> {
    fn drop(&mut self) {
        self.all.tokens().remove(&self.token);
        self.all.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn lets_one_in_for_each_token_and_different_ones_at_once() {
        let redeeming = Arc::new(Redeeming::default());
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let same: Vec<_> = (0..16)
            .map(|_| {
                let (redeeming, inside, most) = (redeeming.clone(), inside.clone(), most.clone());
                thread::spawn(move || {
                    let _one = redeeming.begin(KeyPrint::of(b"one"));
                    most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        same.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(most.load(Ordering::SeqCst), 1);
        // two that must be inside together to go on
        let together = Arc::new(Barrier::new(2));
        let different: Vec<_> = [b"one", b"two"]
            .into_iter()
            .map(|token| {
                let (redeeming, together) = (redeeming.clone(), together.clone());
                thread::spawn(move || {
                    let _one = redeeming.begin(KeyPrint::of(token));
                    together.wait();
                })
            })
            .collect();
        different
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert!(redeeming.tokens().is_empty());
    }
}
