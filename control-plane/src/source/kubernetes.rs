//! `--kubernetes`: pods, services and policy as the cluster's API server has them.

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use super::directory_of_files::Published;
use crate::outbound_rules::OutboundRules;

pub(crate) mod namespaces;

use namespaces::Namespaces;

/// Follows the objects of a cluster and publishes what they say.
pub(crate) struct KubernetesObjects {
    client: Client,
    published: Published,
    namespaces: watch::Sender<Arc<Namespaces>>,
    outbound: watch::Sender<Arc<OutboundRules>>,
    known: watch::Sender<bool>,
}

impl KubernetesObjects {
    pub(crate) fn new(client: Client, outbound: OutboundRules, published: Published) -> Self {
        Self {
            client,
            published,
            namespaces: watch::Sender::default(),
            outbound: watch::Sender::new(Arc::new(outbound)),
            known: watch::Sender::new(false),
        }
    }

    pub(crate) fn namespaces(&self) -> watch::Receiver<Arc<Namespaces>> {
        self.namespaces.subscribe()
    }

    pub(crate) fn outbound(&self) -> watch::Receiver<Arc<OutboundRules>> {
        self.outbound.subscribe()
    }

    /// True once every kind was read once.
    pub(crate) fn known(&self) -> watch::Receiver<bool> {
        self.known.subscribe()
    }

    /// Until nobody listens.
    pub(crate) async fn follow(self) {
        let _ = self.client;
        self.published.workloads.closed().await;
    }
}
