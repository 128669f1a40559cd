//! Connections of callers that have not proved who they are, counted by address: one machine
//! must not take the places of all others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Design §11. A node's sidecars that all start at once stay below: each needs its connection
/// for as long as one certificate takes.
const MAX_PER_ADDRESS: usize = 64;

#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection, counted until dropped.
pub(super) struct Stranger {
    all: Strangers,
    address: IpAddr,
}

impl Strangers {
    /// `None`: there are too many from this address.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let address = machine(address);
        // A poisoned lock means a panic in here; the counts are whole all the same.
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count = count.saturating_add(1);
        drop(counts);
        let all = self.clone();
        Some(Stranger { all, address })
    }
}

/// An address of IPv4, the network of one of IPv6: a machine has as many addresses in its /64 as
/// it likes.
pub(super) fn machine(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_each_address_by_itself_and_forgets_it_afterwards() {
        let strangers = Strangers::default();
        let (one, other): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let mut held: Vec<Stranger> = (0..MAX_PER_ADDRESS)
            .map(|_| strangers.admit(one).unwrap())
            .collect();
        assert!(strangers.admit(one).is_none());
        assert!(strangers.admit(mapped).is_none());
        assert!(strangers.admit(other).is_some());
        held.pop();
        held.push(strangers.admit(mapped).unwrap());
        drop(held);
        assert_eq!(strangers.0.lock().unwrap().len(), 0);
    }
    #[test]
    fn counts_all_addresses_of_a_network_of_ipv6_as_one() {
        let strangers = Strangers::default();
        let from = |text: &str| strangers.admit(text.parse().unwrap());
        let held: Vec<Stranger> = (0..MAX_PER_ADDRESS)
            .map(|number| from(&format!("fd00:0:0:1::{number:x}")).unwrap())
            .collect();
        assert!(from("fd00:0:0:1:ffff::1").is_none());
        assert!(from("fd00:0:0:2::1").is_some());
        drop(held);
        assert!(strangers.0.lock().unwrap().is_empty());
    }
}
