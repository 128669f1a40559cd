//! Sets the gauges that no single event sets.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time};

use crate::{
    certificate_authority::{authority::AuthorityFacts, rotation::Trust},
    condition::{Conditions, Part},
    metrics::{CertificateKind, Metrics},
    workload_index::WorkloadIndex,
};

/// More often than anybody scrapes.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn keep_gauges(
    metrics: Metrics,
    conditions: Conditions,
    trust: watch::Receiver<Arc<Trust>>,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
) {
    let mut tick = time::interval(EVERY);
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
        for part in Part::ALL {
            metrics.problems(part.name(), conditions.of(part).len());
        }
        let workloads = Arc::clone(&workloads.borrow());
        metrics.facts("workloads", workloads.workloads().count());
        metrics.facts("address_conflicts", workloads.conflicts().len());
    }
}

/// The root of the active issuing CA. An imported one may say less than ours.
pub(crate) fn root_facts(trust: &Trust) -> Option<AuthorityFacts> {
    let root = trust.authority.root_in(&trust.bundle).ok()?;
    AuthorityFacts::read(root).ok()
}
