//! A request's body, bounded by itself, together with all of its source, and with all others.
//!
//! Whoever can reach the port can begin bodies and leave them unfinished. Where there is no room
//! left, the oldest unfinished body goes: of the same source if that has its share, else of the
//! source that holds most.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

/// The API server takes objects of 3 MiB at most, and a review of a creation has one.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;
/// Bytes of all bodies that are held at one time. Thousands of the usual ones (2 to 8 KB) and a few
/// of the longest; what it takes to judge one comes on top, for as many as there are threads.
const MAX_HELD: usize = 32 * 1024 * 1024;
/// Of one source: an API server's 200 changing requests in flight with 40 KB each.
const MAX_OF_SOURCE: usize = 8 * 1024 * 1024;

/// What all bodies share.
#[derive(Default)]
pub(super) struct BodyRoom(Mutex<Held>);

#[derive(Default)]
struct Held {
    of_all: usize,
    /// Grows, so that the smallest is the oldest.
    next: u64,
    by_source: HashMap<IpAddr, BTreeMap<u64, Share>>,
}

#[derive(Default)]
struct Share {
    bytes: usize,
    /// It is being judged, and goes by itself.
    is_whole: bool,
    given_up: Arc<Notify>,
}

/// A body and its share of what all may hold.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _room: Room<'a>,
}

/// Given back when dropped.
struct Room<'a> {
    all: &'a BodyRoom,
    source: IpAddr,
    number: u64,
    given_up: Arc<Notify>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("the request ended before its end")]
    Cut,
    #[error("too much is sent at one time, and others need the room: try again")]
    NoRoom,
}

impl BodyRoom {
    /// Takes room as bytes arrive: what is only announced holds nothing.
    pub(super) async fn read(
        &self,
        source: IpAddr,
        mut incoming: Incoming,
    ) -> Result<Body<'_>, BodyError> {
        let room = self.enter(source);
        let mut bytes = BytesMut::new();
        loop {
            let frame = tokio::select! {
                biased;
                () = room.given_up.notified() => return Err(BodyError::NoRoom),
                frame = incoming.frame() => frame,
            };
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|_| BodyError::Cut)?.into_data() else {
                continue;
            };
            if bytes.len().saturating_add(data.len()) > MAX_BODY {
                return Err(BodyError::TooLong);
            }
            room.grow(data.len())?;
            bytes.extend_from_slice(&data);
        }
        room.keep()?;
        Ok(Body {
            bytes: bytes.freeze(),
            _room: room,
        })
    }

    fn enter(&self, source: IpAddr) -> Room<'_> {
        let share = Share::default();
        let given_up = Arc::clone(&share.given_up);
        let mut held = self.lock();
        let number = held.next;
        held.next = number.saturating_add(1);
        held.by_source
            .entry(source)
            .or_default()
            .insert(number, share);
        drop(held);
        Room {
            all: self,
            source,
            number,
            given_up,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room<'_> {
    fn grow(&self, more: usize) -> Result<(), BodyError> {
        let mut held = self.all.lock();
        // each turn gives up one, so there is an end
        loop {
            let share = held.share(self).ok_or(BodyError::NoRoom)?.bytes;
            let of_source = held.of_source(self.source);
            let giving = if of_source.saturating_add(more) > MAX_OF_SOURCE {
                held.oldest_unfinished(self.source)
            } else if held.of_all.saturating_add(more) > MAX_HELD {
                held.most_unfinished()
                    .and_then(|source| held.oldest_unfinished(source))
            } else {
                held.of_all = held.of_all.saturating_add(more);
                if let Some(own) = held.share(self) {
                    own.bytes = share.saturating_add(more);
                }
                return Ok(());
            };
            let (source, number) = giving.ok_or(BodyError::NoRoom)?;
            if let Some(share) = held.remove(source, number) {
                share.given_up.notify_one();
            }
        }
    }

    /// It is whole: from now on nobody takes its room.
    fn keep(&self) -> Result<(), BodyError> {
        let mut held = self.all.lock();
        held.share(self).ok_or(BodyError::NoRoom)?.is_whole = true;
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let _ = self.all.lock().remove(self.source, self.number);
    }
}

impl Held {
    /// `None` if it was given up.
    fn share(&mut self, room: &Room<'_>) -> Option<&mut Share> {
        self.by_source.get_mut(&room.source)?.get_mut(&room.number)
    }

    fn of_source(&self, source: IpAddr) -> usize {
        let shares = self.by_source.get(&source).into_iter().flatten();
        shares.map(|(_, share)| share.bytes).sum()
    }

    fn oldest_unfinished(&self, source: IpAddr) -> Option<(IpAddr, u64)> {
        let mut shares = self.by_source.get(&source)?.iter();
        let oldest = shares.find(|(_, share)| !share.is_whole && share.bytes > 0)?;
        Some((source, *oldest.0))
    }

    fn most_unfinished(&self) -> Option<IpAddr> {
        let unfinished = |shares: &BTreeMap<u64, Share>| -> usize {
            let unfinished = shares.values().filter(|share| !share.is_whole);
            unfinished.map(|share| share.bytes).sum()
        };
        let most = self.by_source.iter().max_by_key(|(_, it)| unfinished(it))?;
        Some(*most.0)
    }

    fn remove(&mut self, source: IpAddr, number: u64) -> Option<Share> {
        let shares = self.by_source.get_mut(&source)?;
        let share = shares.remove(&number)?;
        if shares.is_empty() {
            self.by_source.remove(&source);
        }
        self.of_all = self.of_all.saturating_sub(share.bytes);
        Some(share)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn source(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn holding(all: &BodyRoom, host: u8, bytes: usize) -> Room<'_> {
        let room = all.enter(source(host));
        room.grow(bytes).unwrap();
        room
    }

    fn is_given_up(room: &Room<'_>) -> bool {
        room.given_up.notified().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_unfinished_body_of_a_source_makes_room_for_its_next() {
        let all = BodyRoom::default();
        let other = holding(&all, 2, MIB);
        let first = holding(&all, 1, 4 * MIB);
        let second = holding(&all, 1, 4 * MIB);
        let third = holding(&all, 1, 1);
        assert!(is_given_up(&first));
        assert_eq!(first.grow(1), Err(BodyError::NoRoom));
        assert_eq!(first.keep(), Err(BodyError::NoRoom));
        for kept in [&other, &second, &third] {
            assert!(!is_given_up(kept));
        }
        assert_eq!(all.lock().of_all, 5 * MIB + 1);
        drop((first, second, third, other));
        assert_eq!(all.lock().of_all, 0);
        assert!(all.lock().by_source.is_empty());
    }

    #[test]
    fn what_is_judged_keeps_its_room() {
        let all = BodyRoom::default();
        let whole = [holding(&all, 1, 4 * MIB), holding(&all, 1, 4 * MIB)];
        for room in &whole {
            room.keep().unwrap();
        }
        let next = all.enter(source(1));
        assert_eq!(next.grow(1), Err(BodyError::NoRoom));
        assert!(!whole.iter().any(is_given_up));
        assert_eq!(all.enter(source(2)).grow(1), Ok(()));
    }

    #[test]
    fn where_all_is_full_the_source_that_holds_most_gives_way() {
        let all = BodyRoom::default();
        let small = holding(&all, 9, MIB);
        let flood: Vec<Room<'_>> = (1..=4)
            .flat_map(|host| {
                [
                    holding(&all, host, 4 * MIB),
                    holding(&all, host, 7 * MIB / 2),
                ]
            })
            .collect();
        let review = holding(&all, 10, 2 * MIB);
        assert_eq!(flood.iter().filter(|room| is_given_up(room)).count(), 1);
        assert!(!is_given_up(&small) && !is_given_up(&review));
        assert!(all.lock().of_all <= MAX_HELD);
    }
}
