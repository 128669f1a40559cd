//! How many connections there may be, in all and of one source: nobody can take all places.
//!
//! Whoever can reach the port can open connections, so a place is lent. Where there is none left,
//! the oldest connection that never had a review answered gives up its own, of the source that has
//! most of these; then the oldest of the source that has more places than the new one would.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

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
    /// Grows, so that the smallest is the oldest.
    next: u64,
    by_source: HashMap<IpAddr, BTreeMap<u64, Held>>,
}

struct Held {
    /// A review was answered on this connection.
    proven: bool,
    lost: Arc<Notify>,
}

/// Given back when dropped.
pub(super) struct Place {
    places: Places,
    source: IpAddr,
    number: u64,
    lost: Arc<Notify>,
}

impl Places {
    /// `None`: there is no place left, for this source or for anybody.
    pub(super) fn take(&self, source: IpAddr) -> Option<Place> {
        let source = source.to_canonical();
        let lost = Arc::new(Notify::new());
        let mut taken = self.lock();
        taken.make_room(source)?;
        let number = taken.next;
        taken.next = number.saturating_add(1);
        taken.of_all = taken.of_all.saturating_add(1);
        let held = Held {
            proven: false,
            lost: Arc::clone(&lost),
        };
        taken
            .by_source
            .entry(source)
            .or_default()
            .insert(number, held);
        drop(taken);
        Some(Place {
            places: self.clone(),
            source,
            number,
            lost,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn make_room(&mut self, source: IpAddr) -> Option<()> {
        let of_source = self.of_source(source);
        let (from, number) = if of_source >= MAX_PER_SOURCE {
            (source, oldest_unproven(self.by_source.get(&source)?)?)
        } else if self.of_all >= MAX_CONNECTIONS {
            self.most_unproven()
                .or_else(|| self.of_richer_than(of_source.saturating_add(1)))?
        } else {
            return Some(());
        };
        self.remove(from, number)?.lost.notify_one();
        Some(())
    }

    fn of_source(&self, source: IpAddr) -> usize {
        self.by_source.get(&source).map_or(0, BTreeMap::len)
    }

    /// Few that are new stand against many: a caller that comes rarely is not the one who goes.
    fn most_unproven(&self) -> Option<(IpAddr, u64)> {
        let unproven = |held: &BTreeMap<u64, Held>| held.values().filter(|it| !it.proven).count();
        let (source, held) = self
            .by_source
            .iter()
            .max_by_key(|(_, held)| unproven(held))?;
        Some((*source, oldest_unproven(held)?))
    }

    fn of_richer_than(&self, places: usize) -> Option<(IpAddr, u64)> {
        let (source, held) = self.by_source.iter().max_by_key(|(_, held)| held.len())?;
        let oldest = *held.keys().next()?;
        (held.len() > places).then_some((*source, oldest))
    }

    /// `None` if it was given up before.
    fn remove(&mut self, source: IpAddr, number: u64) -> Option<Held> {
        let of_source = self.by_source.get_mut(&source)?;
        let held = of_source.remove(&number)?;
        if of_source.is_empty() {
            self.by_source.remove(&source);
        }
        self.of_all = self.of_all.saturating_sub(1);
        Some(held)
    }
}

fn oldest_unproven(held: &BTreeMap<u64, Held>) -> Option<u64> {
    held.iter()
        .find_map(|(number, held)| (!held.proven).then_some(*number))
}

impl Place {
    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// A review was answered here: connections that only wait go first.
    pub(super) fn prove(&self) {
        let mut taken = self.places.lock();
        let of_source = taken.by_source.get_mut(&self.source);
        if let Some(held) = of_source.and_then(|held| held.get_mut(&self.number)) {
            held.proven = true;
        }
    }

    /// Returns once the place is another's: the connection must end.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.places.lock().remove(self.source, self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    fn proven(places: &Places, source: IpAddr, count: usize) -> Vec<Place> {
        let prove = |place: Place| {
            place.prove();
            place
        };
        let taken = (0..count).map(|_| places.take(source).map(prove));
        taken.collect::<Option<_>>().unwrap()
    }

    #[test]
    fn one_source_never_takes_the_places_of_others() {
        let places = Places::default();
        let greedy = IpAddr::from([10, 0, 0, 9]);
        let held = proven(&places, greedy, MAX_PER_SOURCE);
        assert!(places.take("::ffff:10.0.0.9".parse().unwrap()).is_none());
        assert!(places.take([10, 0, 0, 10].into()).is_some());
        drop(held);
        assert!(places.take(greedy).is_some());
        assert!(places.0.lock().unwrap().by_source.is_empty());
        assert_eq!(places.0.lock().unwrap().of_all, 0);
    }

    #[test]
    fn a_source_without_a_place_left_gives_up_its_own_oldest_that_never_asked() {
        let places = Places::default();
        let source = IpAddr::from([10, 0, 0, 9]);
        let other = places.take([10, 0, 0, 10].into()).unwrap();
        let asked = proven(&places, source, 1);
        let silent: Vec<Place> = (1..MAX_PER_SOURCE)
            .map(|_| places.take(source).unwrap())
            .collect();
        let new = places.take(source).unwrap();
        assert_eq!(silent.iter().filter(|place| is_lost(place)).count(), 1);
        let _newer = places.take(source).unwrap();
        assert!(is_lost(&silent[1]));
        for kept in asked.iter().chain([&other, &new]) {
            assert!(!is_lost(kept));
        }
        assert_eq!(places.lock().of_all, MAX_PER_SOURCE + 1);
        drop(silent);
        assert_eq!(places.lock().of_all, 4);
    }

    #[test]
    fn where_all_is_full_those_go_that_have_most_and_never_asked() {
        let places = Places::default();
        let api_server = proven(&places, [10, 0, 0, 1].into(), 8);
        let first_call = places.take([10, 0, 0, 1].into()).unwrap();
        let flood: Vec<Place> = (0..2000)
            .map(|index| places.take([10, 0, 1, index as u8 % 8].into()).unwrap())
            .collect();
        assert_eq!(places.lock().of_all, MAX_CONNECTIONS);
        let another = places.take([10, 0, 0, 2].into()).unwrap();
        for kept in api_server.iter().chain([&first_call, &another]) {
            assert!(!is_lost(kept));
        }
        let lost = flood.iter().filter(|place| is_lost(place)).count();
        assert_eq!(lost, 2000 + 10 - MAX_CONNECTIONS);
    }

    #[test]
    fn asking_alone_keeps_no_place_from_who_has_fewer() {
        let places = Places::default();
        let full = |host: u8| proven(&places, [10, 0, 0, host].into(), MAX_PER_SOURCE);
        let held: Vec<Place> = (1..=4).flat_map(full).collect();
        let _poor = places.take([10, 0, 0, 5].into()).unwrap();
        assert_eq!(held.iter().filter(|place| is_lost(place)).count(), 1);
        assert_eq!(places.lock().of_all, MAX_CONNECTIONS);
    }

    #[test]
    fn there_is_an_end_to_all_places() {
        let places = Places::default();
        // each as poor as the next one: nobody has to go
        let held: Vec<Place> = (0..=255)
            .flat_map(|host| proven(&places, [10, 0, 0, host].into(), 4))
            .collect();
        assert_eq!(held.len(), MAX_CONNECTIONS);
        assert!(places.take([10, 0, 0, 1].into()).is_none());
    }
}
