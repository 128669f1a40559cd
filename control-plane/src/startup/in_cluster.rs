//! The parts that speak to a cluster's API server: what they go by, and that all of them run.

use std::sync::Arc;

use kube::Client;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    certificate_authority::{CertificateAuthority, rotation::Trust},
    clock::Clock,
    cluster::Cluster,
    cluster_trust_bundle,
    condition::Conditions,
    csr_signer, leader,
    metrics::Metrics,
    namespace_trust_bundles,
    outbound_rules::OutboundRules,
    policy_index::PolicyIndex,
    settings::Settings,
    source::{
        directory_of_files::Published,
        kubernetes::{KubernetesObjects, object_status},
    },
    workload_attestation::{Attestation, service_account_token::ServiceAccountTokens},
    workload_index::WorkloadIndex,
};

/// What is known, for the parts that go by it.
pub(super) struct Facts {
    pub(super) workloads: watch::Receiver<Arc<WorkloadIndex>>,
    pub(super) policies: watch::Receiver<PolicyIndex>,
    pub(super) trust: watch::Receiver<Arc<Trust>>,
    pub(super) authority: CertificateAuthority,
    pub(super) metrics: Metrics,
    pub(super) conditions: Conditions,
}

pub(super) struct InCluster {
    objects: KubernetesObjects,
    cluster: Cluster,
    leads: watch::Sender<bool>,
}

impl InCluster {
    pub(super) fn new(
        client: Client,
        settings: &Settings,
        published: Published,
        facts: Facts,
        clock: Clock,
    ) -> Self {
        let trust_domain = settings.trust_domain.clone();
        let objects = KubernetesObjects::new(
            client.clone(),
            trust_domain.clone(),
            settings.outbound.clone(),
            published,
            facts.metrics.clone(),
        );
        let tokens =
            ServiceAccountTokens::new(client.clone(), trust_domain.clone(), facts.metrics, clock);
        let leads = watch::Sender::new(false);
        let cluster = Cluster {
            client,
            tokens,
            trust_domain,
            mesh_namespace: settings.mesh_namespace.as_str().into(),
            trust: facts.trust,
            authority: facts.authority,
            workloads: facts.workloads,
            policies: facts.policies,
            namespaces: objects.namespaces(),
            known: objects.known(),
            leads: leads.subscribe(),
            conditions: facts.conditions,
            clock,
        };
        Self {
            objects,
            cluster,
            leads,
        }
    }

    pub(super) fn outbound(&self) -> watch::Receiver<Arc<OutboundRules>> {
        self.objects.outbound()
    }

    pub(super) fn attestation(&self) -> Attestation {
        Attestation::ServiceAccountTokens(self.cluster.tokens.clone())
    }

    /// None of the tasks ends. The answer is true once every kind of object was read once.
    pub(super) fn start(self, tasks: &mut JoinSet<()>) -> watch::Receiver<bool> {
        let Self {
            objects,
            cluster,
            leads,
        } = self;
        tasks.spawn(leader::run(
            cluster.client.clone(),
            cluster.mesh_namespace.to_string(),
            cluster.clock,
            cluster.conditions.clone(),
            leads,
        ));
        tasks.spawn(object_status::keep(cluster.clone(), objects.verdicts()));
        tasks.spawn(cluster.tokens.clone().keep_signing_keys());
        tasks.spawn(namespace_trust_bundles::run(cluster.clone()));
        tasks.spawn(cluster_trust_bundle::run(cluster.clone()));
        tasks.spawn(csr_signer::run(cluster.clone()));
        tasks.spawn(objects.follow());
        cluster.known
    }
}
