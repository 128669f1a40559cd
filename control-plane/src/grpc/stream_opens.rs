//! How often one caller may open SDS streams, over all its connections: a client in a hot loop
//! costs a look-up, not a stream each time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use mesh_lite_proto::secret_discovery::request_rate::RequestRate;
use tokio::time::Instant;
use tonic::Status;

use crate::{caller::Caller, certificate_authority::certificate_request::KeyPrint};

/// SDS-S21.
const OPENS_PER_SECOND: u32 = 10;
/// Envoy opens a stream per secret, all at once after a loss: as many as a connection may have.
const OPEN_BURST: u32 = 256;
/// After this long without an opening every allowance is full again, and need not be kept.
const FULL_AFTER: Duration = Duration::from_secs(30);
/// More than there are connections for; each costs less than 200 bytes.
const MAX_CALLERS: usize = 16 * 1024;

/// Workloads of one identity are many; each has a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Opener {
    Key(KeyPrint),
    Address(IpAddr),
}

struct Allowance {
    rate: RequestRate,
    used: Instant,
}

pub(super) struct StreamOpens {
    began: Instant,
    allowances: Mutex<HashMap<Opener, Allowance>>,
}

impl Default for StreamOpens {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            allowances: Mutex::default(),
        }
    }
}

impl StreamOpens {
    /// # Errors
    /// If the caller opens faster than anybody needs to.
    pub(super) fn admit(&self, caller: &Caller) -> Result<(), Status> {
        let opener = match &caller.peer {
            Some(peer) => Opener::Key(peer.key),
            None => Opener::Address(caller.address.ip().to_canonical()),
        };
        let (now, since_began) = (Instant::now(), self.began.elapsed());
        // A poisoned lock means a panic in here; what is in it only bounds.
        let mut allowances = self
            .allowances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if allowances.len() >= MAX_CALLERS && !allowances.contains_key(&opener) {
            allowances.retain(|_, allowance| now.duration_since(allowance.used) < FULL_AFTER);
            if allowances.len() >= MAX_CALLERS {
                return Err(Status::resource_exhausted(
                    "too many callers open streams at one time: back off",
                ));
            }
        }
        let allowance = allowances.entry(opener).or_insert_with(|| Allowance {
            rate: RequestRate::new(OPENS_PER_SECOND, OPEN_BURST),
            used: now,
        });
        allowance.used = now;
        if allowance.rate.take(1, since_began) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "more than {OPENS_PER_SECOND} SDS streams a second are opened by one caller: back off"
        )))
    }
}

#[cfg(test)]
mod tests;
