//! What each user may have open here. By user, so that one that takes all it can get leaves the
//! others theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Envoy has one connection, google_grpc one for each secret.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// Over a user's connections: streams, and single requests until they are answered. An Envoy of
/// a thousand listeners has one stream for each secret, of which there are five.
pub(super) const MAX_REQUESTS: usize = 128;

/// One share for each user that may come in, so their number is bounded by the configuration.
pub(super) struct Shares(BTreeMap<u32, Share>);

#[derive(Clone)]
pub(super) struct Share {
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// Given back when it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

impl Shares {
    pub(super) fn of_each(users: BTreeSet<u32>) -> Self {
        let share = || Share {
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
        };
        Self(users.into_iter().map(|user| (user, share())).collect())
    }

    /// `None`: this user may not come in.
    pub(super) fn of(&self, user: u32) -> Option<&Share> {
        self.0.get(&user)
    }

    pub(super) fn users(&self) -> impl Iterator<Item = u32> {
        self.0.keys().copied()
    }
}

impl Share {
    /// `None`: the user has as many as it may have.
    pub(super) fn connection(&self) -> Option<Place> {
        Arc::clone(&self.connections).try_acquire_owned().ok()
    }

    /// `None`: the user has as many as it may have.
    pub(super) fn request(&self) -> Option<Place> {
        Arc::clone(&self.requests).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_takes_all_of_its_share_leaves_the_others_theirs() {
        let shares = Shares::of_each([0, 101].into());
        let (greedy, other) = (shares.of(101).unwrap(), shares.of(0).unwrap());
        let mut connections: Vec<_> = std::iter::from_fn(|| greedy.connection()).collect();
        let mut requests: Vec<_> = std::iter::from_fn(|| greedy.request()).collect();
        assert_eq!(connections.len(), MAX_CONNECTIONS);
        assert_eq!(requests.len(), MAX_REQUESTS);
        assert!(other.connection().is_some() && other.request().is_some());
        connections.pop();
        requests.pop();
        assert!(greedy.connection().is_some() && greedy.request().is_some());
    }

    #[test]
    fn who_is_not_named_has_no_share() {
        assert!(Shares::of_each([101].into()).of(102).is_none());
    }
}
