//! Sets the gauges that no single event sets.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior},
};

use crate::{
    certificate_authority::{expiry_warnings::root_facts, rotation::Trust},
    clock::Clock,
    condition::{Conditions, Part},
    metrics::{CertificateKind, Metrics},
    workload_index::WorkloadIndex,
};

/// More often than anybody scrapes.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn keep_gauges(
    metrics: Metrics,
    conditions: Conditions,
    clock: Clock,
    trust: watch::Receiver<Arc<Trust>>,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
) {
    let mut tick = time::interval(EVERY);
    // after a pause of the machine the newest values are enough
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let trust = Arc::clone(&trust.borrow());
        metrics.expiry(
            CertificateKind::IssuingAuthority,
            trust.authority.facts().not_after,
        );
        if let Some(root) = root_facts(&trust) {
            metrics.expiry(CertificateKind::Root, root.not_after);
        }
        metrics.time_to_breakage(clock());
        for part in Part::ALL {
            metrics.problems(part.name(), conditions.of(part).len());
        }
        let workloads = Arc::clone(&workloads.borrow());
        metrics.facts("workloads", workloads.workloads().count());
        metrics.facts("address_conflicts", workloads.conflicts().len());
    }
}
