//! What is not certified although the caller may: a key for the second time, and a workload that
//! asks without end.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use mesh_lite_proto::secret_discovery::request_rate::RequestRate;

use super::Refusal;
use crate::{certificate_authority::certificate_request::KeyPrint, workload_index::WorkloadName};

/// Keys that this process certified lately: none is certified twice. 64 K keys take some 6 MB and cover
/// more than an hour of 10,000 workloads with the shortest leaves that make sense.
const REMEMBERED_KEYS: usize = 65_536;

/// Renewals of one workload: a sidecar whose leaf is old by the time it has it renews without
/// end (CSR-C9). The burst is a rotation, a restart and what it takes to notice that something
/// is wrong.
pub(super) const RENEWALS_PER_SECOND: u32 = 1;
const RENEWAL_BURST: u32 = 5;
/// Workloads whose rate is known; beyond, all start anew. Only attested ones get here.
const MAX_RATES: usize = 32_768;

#[derive(Default)]
pub(super) struct Admission {
    keys: RecentKeys,
    rates: HashMap<WorkloadName, RequestRate>,
}

impl Admission {
    /// A first certificate: the token that it costs is the limit.
    pub(super) fn first(&mut self, key: KeyPrint) -> Result<(), Refusal> {
        self.keys.admit(key)
    }

    pub(super) fn renewal(
        &mut self,
        workload: &WorkloadName,
        key: KeyPrint,
        since_start: Duration,
    ) -> Result<(), Refusal> {
        if !self.take_turn(workload, since_start) {
            return Err(Refusal::TooOften(workload.clone()));
        }
        self.keys.admit(key)
    }

    fn take_turn(&mut self, workload: &WorkloadName, since_start: Duration) -> bool {
        if self.rates.len() >= MAX_RATES && !self.rates.contains_key(workload) {
            self.rates.clear();
        }
        let rate = self
            .rates
            .entry(workload.clone())
            .or_insert_with(|| RequestRate::new(RENEWALS_PER_SECOND, RENEWAL_BURST));
        rate.take(1, since_start)
    }
}

/// The keys certified last, oldest first.
///
/// They are those of this process: after a restart, and at another control plane, a key that was
/// certified before is certified once more. The holder of the key gains a certificate that it
/// could have had with a new key anyway; join tokens, which must be spent once, are on disk.
#[derive(Default)]
struct RecentKeys {
    known: HashSet<KeyPrint>,
    order: VecDeque<KeyPrint>,
}

impl RecentKeys {
    /// Remembered before the signature: a key whose signing failed needs to be made anew too.
    fn admit(&mut self, key: KeyPrint) -> Result<(), Refusal> {
        if !self.known.insert(key) {
            return Err(Refusal::KeyUsedBefore);
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
