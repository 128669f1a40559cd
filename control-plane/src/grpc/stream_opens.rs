//! How often one caller may open SDS streams, over all its connections: a client in a hot loop
//! costs a look-up, not a stream each time. Who proved itself is counted by its proof alone: whatever
//! others do at the same address, a good certificate or token opens its streams.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_lite_proto::secret_discovery::request_rate::RequestRate;
use tokio::time::Instant;
use tonic::Status;

use super::strangers::machine;
use crate::{certificate_authority::certificate_request::KeyPrint, issuance::StandingProof};

/// SDS-S21.
const OPENS_PER_SECOND: u32 = 10;
/// Envoy opens a stream per secret, all at once after a loss: as many as a connection may have.
const OPEN_BURST: u32 = 256;
/// After this long without an opening every allowance is full again, and need not be kept.
const FULL_AFTER: Duration = Duration::from_secs(30);
/// More than there are connections for; each costs less than 200 bytes.
const MAX_CALLERS: usize = 16 * 1024;

/// A table that is full is looked through no more often: that takes a while.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// Workloads of one identity are many; each has a key, or a token, of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proved {
    Key(KeyPrint),
    Token(KeyPrint),
}

struct Allowance {
    rate: RequestRate,
    used: Instant,
}

/// Who opened lately.
struct Openers<K> {
    allowances: HashMap<K, Allowance>,
    purge_at: Instant,
}

impl<K: Eq + Hash> Openers<K> {
    fn new(began: Instant) -> Self {
        Self {
            allowances: HashMap::new(),
            purge_at: began,
        }
    }

    /// `None`: there is no room to count by.
    fn take(&mut self, opener: K, now: Instant, since_began: Duration) -> Option<bool> {
        let full = self.allowances.len() >= MAX_CALLERS;
        if full && !self.allowances.contains_key(&opener) {
            if now < self.purge_at {
                return None;
            }
            self.purge_at = now + PURGE_EVERY;
            self.allowances
                .retain(|_, allowance| now.duration_since(allowance.used) < FULL_AFTER);
            if self.allowances.len() >= MAX_CALLERS {
                return None;
            }
        }
        let allowance = self.allowances.entry(opener).or_insert_with(|| Allowance {
            rate: RequestRate::new(OPENS_PER_SECOND, OPEN_BURST),
            used: now,
        });
        allowance.used = now;
        Some(allowance.rate.take(1, since_began))
    }
}

pub(super) struct StreamOpens {
    began: Instant,
    proved: Mutex<Openers<Proved>>,
    /// By network: apart, so that they are in nobody's way but their own.
    strangers: Mutex<Openers<IpAddr>>,
}

impl Default for StreamOpens {
    fn default() -> Self {
        let began = Instant::now();
        Self {
            began,
            proved: Mutex::new(Openers::new(began)),
            strangers: Mutex::new(Openers::new(began)),
        }
    }
}

impl StreamOpens {
    /// For a caller whose proof was found good. One that there is no room to count by is let in:
    /// it has proved itself, and connections have bounds of their own.
    ///
    /// # Errors
    /// If the caller opens faster than anybody needs to.
    pub(super) fn admit(&self, proof: &StandingProof) -> Result<(), Status> {
        let opener = match proof {
            StandingProof::Svid(peer) => Proved::Key(peer.key),
            StandingProof::StreamToken(token) => Proved::Token(token.print),
            StandingProof::Pod(proof) => Proved::Token(proof.token.print()),
        };
        let taken = lock(&self.proved).take(opener, Instant::now(), self.began.elapsed());
        if taken.unwrap_or(true) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "more than {OPENS_PER_SECOND} SDS streams a second are opened by one caller: back off"
        )))
    }

    /// What a caller is told whose proof was not good: the reason, or to back off if its network
    /// tries too often.
    pub(super) fn refuse(&self, address: IpAddr, reason: Status) -> Status {
        let (now, since_began) = (Instant::now(), self.began.elapsed());
        let taken = lock(&self.strangers).take(machine(address), now, since_began);
        if taken.unwrap_or(false) {
            return reason;
        }
        Status::resource_exhausted(format!(
            "SDS streams are tried more than {OPENS_PER_SECOND} times a second from one network and without a proof that \
             is good: back off, and mend the proof. The last one: {}",
            reason.message()
        ))
    }
}

/// A poisoned lock means a panic in here; what is in it only bounds.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
