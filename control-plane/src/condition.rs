//! What is wrong at the moment, in words, by part: for the log once, for `/readyz` and the
//! metrics as long as it lasts.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

/// Broken documents can be many; readiness text stays readable.
const MAX_TEXTS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// Issuing CA or trust bundle in the data directory.
    Authority,
    /// Files of the configuration directory that can't be read, or documents that can't be loaded.
    Documents,
    /// Of a cluster: what is not followed at the moment.
    ApiServer,
    /// Statuses of policies that can't be written.
    ObjectStatus,
    /// The right to hold the Lease.
    Lease,
    /// The trust bundle's ConfigMaps in the namespaces of a cluster.
    TrustObjects,
    ClusterTrustBundle,
    /// Certificate requests that a cluster's users make as objects.
    SigningRequests,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Authority,
        Self::Documents,
        Self::ApiServer,
        Self::ObjectStatus,
        Self::Lease,
        Self::TrustObjects,
        Self::ClusterTrustBundle,
        Self::SigningRequests,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Authority => "authority",
            Self::Documents => "documents",
            Self::ApiServer => "api_server",
            Self::ObjectStatus => "object_status",
            Self::Lease => "lease",
            Self::TrustObjects => "trust_objects",
            Self::ClusterTrustBundle => "cluster_trust_bundle",
            Self::SigningRequests => "signing_requests",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Conditions(Arc<watch::Sender<BTreeMap<Part, Vec<String>>>>);

impl Conditions {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeMap::new())))
    }

    /// Replaces what was said of the part; new texts are logged.
    pub(crate) fn set(&self, part: Part, texts: Vec<String>) {
        let before = self.of(part);
        for text in texts.iter().filter(|text| !before.contains(text)) {
            tracing::error!(part = part.name(), "{text}");
        }
        for text in before.iter().filter(|text| !texts.contains(text)) {
            tracing::info!(part = part.name(), "no longer: {text}");
        }
        self.0.send_modify(|conditions| {
            let mut texts = texts;
            texts.truncate(MAX_TEXTS);
            conditions.insert(part, texts);
        });
    }

    pub(crate) fn of(&self, part: Part) -> Vec<String> {
        self.0.borrow().get(&part).cloned().unwrap_or_default()
    }
}
