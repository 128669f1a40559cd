//! How many connections there may be, in all and of one source: nobody can take all places.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Some API servers, each with its share.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// An API server has at most 200 changing requests in flight (its default) and needs a connection
/// for each of them; those that wait for the next are 25.
pub(super) const MAX_PER_SOURCE: usize = 256;

/// Cheap to clone: all clones count together.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    of_all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// Given back when dropped.
pub(super) struct Place {
    places: Places,
    source: IpAddr,
}

impl Places {
    /// `None`: there is no place left, for this source or for anybody.
    pub(super) fn take(&self, source: IpAddr) -> Option<Place> {
        let source = source.to_canonical();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = taken.by_source.get(&source).copied().unwrap_or_default();
        if taken.of_all >= MAX_CONNECTIONS || of_source >= MAX_PER_SOURCE {
            return None;
        }
        taken.of_all = taken.of_all.saturating_add(1);
        taken.by_source.insert(source, of_source.saturating_add(1));
        drop(taken);
        Some(Place {
            places: self.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.of_all = taken.of_all.saturating_sub(1);
        let left = taken
            .by_source
            .get(&self.source)
            .map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            taken.by_source.remove(&self.source);
        } else {
            taken.by_source.insert(self.source, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_never_takes_the_places_of_others() {
        let places = Places::default();
        let greedy = IpAddr::from([10, 0, 0, 9]);
        let held: Vec<Place> = std::iter::from_fn(|| places.take(greedy)).collect();
        assert_eq!(held.len(), MAX_PER_SOURCE);
        assert!(places.take("::ffff:10.0.0.9".parse().unwrap()).is_none());
        assert!(places.take([10, 0, 0, 10].into()).is_some());
        drop(held);
        assert!(places.take(greedy).is_some());
        assert!(places.0.lock().unwrap().by_source.is_empty());
    }

    #[test]
    fn there_is_an_end_to_all_places() {
        let places = Places::default();
        let mut held = Vec::new();
        for host in 0..=255 {
            held.extend(std::iter::from_fn(|| places.take([10, 0, 0, host].into())));
        }
        assert_eq!(held.len(), MAX_CONNECTIONS);
    }
}
