//! Which endpoint of a service gets a connection: the one with fewer open connections of two
//! that chance names, or the client's own where the service wants that; not one that failed
//! just now, unless there is no other.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_lite_proto::workload_directory::{Endpoint, Service};
use tokio::time::Instant;

use crate::spread::mix;

/// An endpoint that could not be connected to is passed over for this long.
const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// Addresses of which anything is remembered: connections are bounded elsewhere, failures here.
const MAX_REMEMBERED: usize = 16 * 1024;

/// Counts connections per endpoint, and remembers failures. Cheap to clone.
#[derive(Clone, Default)]
pub struct Picker(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Held for some lookups, never over an await.
    loads: Mutex<Loads>,
    picks: AtomicU64,
}

#[derive(Default)]
struct Loads {
    outstanding: HashMap<IpAddr, Arc<AtomicU32>>,
    failed: HashMap<IpAddr, Instant>,
}

/// An endpoint, and our connection to it: counted until this is dropped.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Endpoint,
    /// Its own, behind the service's.
    pub port: u16,
    pub outstanding: Outstanding,
}

/// For whom an endpoint is picked, and the service's port.
#[derive(Clone, Copy)]
struct Wanted {
    client: IpAddr,
    port: u16,
}

/// One connection of an endpoint's count.
#[derive(Debug)]
pub struct Outstanding(Arc<AtomicU32>);

impl Outstanding {
    fn count(load: &Arc<AtomicU32>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Picker {
    /// An endpoint for a connection of `client` to this port of the service, and never one of
    /// `already_tried`. `None`: no endpoint that is healthy, has the port and is not tried yet is
    /// left.
    pub fn pick(
        &self,
        service: &Service,
        port: u16,
        client: IpAddr,
        already_tried: &[IpAddr],
    ) -> Option<Picked> {
        let chance = mix(self.0.picks.fetch_add(1, Ordering::Relaxed));
        let wanted = Wanted { client, port };
        self.pick_by(service, wanted, already_tried, Instant::now(), chance)
    }

    /// A connection to `endpoint` could not be made at `now`.
    pub fn failed(&self, endpoint: IpAddr, now: Instant) {
        let mut loads = self.loads();
        if loads.failed.len() >= MAX_REMEMBERED {
            loads.failed.retain(|_, at| is_fresh(*at, now));
        }
        if loads.failed.len() < MAX_REMEMBERED {
            loads.failed.insert(endpoint, now);
        }
    }

    /// Connections to `endpoint` that are open now.
    pub fn outstanding(&self, endpoint: IpAddr) -> u32 {
        self.loads().of(endpoint)
    }

    fn loads(&self) -> std::sync::MutexGuard<'_, Loads> {
        self.0.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pick_by(
        &self,
        service: &Service,
        wanted: Wanted,
        already_tried: &[IpAddr],
        now: Instant,
        chance: u64,
    ) -> Option<Picked> {
        let mut loads = self.loads();
        let usable = |endpoint: &&Endpoint| {
            endpoint.healthy
                && service.target_port(endpoint, wanted.port).is_some()
                && !already_tried.contains(&endpoint.address)
        };
        let good: Vec<&Endpoint> = service
            .endpoints
            .values()
            .filter(|endpoint| usable(endpoint) && !loads.has_failed(endpoint.address, now))
            .collect();
        let candidates = if good.is_empty() {
            service.endpoints.values().filter(usable).collect()
        } else {
            good
        };
        let endpoint = if service.session_affinity {
            of_client(&candidates, wanted.client)?
        } else {
            less_loaded_of_two(&candidates, &loads, chance)?
        };
        let outstanding = Outstanding::count(loads.entry(endpoint.address));
        Some(Picked {
            port: service.target_port(endpoint, wanted.port)?,
            endpoint: endpoint.clone(),
            outstanding,
        })
    }
}

/// The candidate that ranks first for this client. When an endpoint comes or goes, only clients
/// of that endpoint move (rendezvous hashing).
fn of_client<'a>(candidates: &[&'a Endpoint], client: IpAddr) -> Option<&'a Endpoint> {
    let client = number(client);
    candidates
        .iter()
        .max_by_key(|endpoint| mix(client ^ mix(number(endpoint.address))))
        .copied()
}

fn less_loaded_of_two<'a>(
    candidates: &[&'a Endpoint],
    loads: &Loads,
    chance: u64,
) -> Option<&'a Endpoint> {
    let count = u64::try_from(candidates.len()).ok()?;
    let first = chance.checked_rem(count)?;
    // of the others, evenly; with one candidate it is the same one
    let step = mix(chance)
        .checked_rem(count.saturating_sub(1))
        .map_or(0, |step| step + 1);
    let second = (first + step).checked_rem(count)?;
    let first = candidates.get(usize::try_from(first).ok()?)?;
    let second = candidates.get(usize::try_from(second).ok()?)?;
    let is_second = loads.of(second.address) < loads.of(first.address);
    Some(if is_second { second } else { first })
}

fn number(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => mix(u64::from(address.to_bits())),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            mix((bits >> 64) as u64) ^ mix(bits as u64).rotate_left(1)
        }
    }
}

fn is_fresh(failed: Instant, now: Instant) -> bool {
    now.saturating_duration_since(failed) < AVOIDED_FOR
}

impl Loads {
    fn of(&self, endpoint: IpAddr) -> u32 {
        self.outstanding
            .get(&endpoint)
            .map_or(0, |load| load.load(Ordering::Relaxed))
    }

    fn has_failed(&self, endpoint: IpAddr, now: Instant) -> bool {
        self.failed
            .get(&endpoint)
            .is_some_and(|at| is_fresh(*at, now))
    }

    fn entry(&mut self, endpoint: IpAddr) -> &Arc<AtomicU32> {
        if self.outstanding.len() >= MAX_REMEMBERED {
            // what is left are open connections, which are bounded themselves
            self.outstanding
                .retain(|_, load| load.load(Ordering::Relaxed) > 0);
        }
        self.outstanding.entry(endpoint).or_default()
    }
}

#[cfg(test)]
mod tests;
