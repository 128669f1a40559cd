//! The facts of a cluster as tests set them, over the scripted API server.

use std::{sync::Arc, time::SystemTime};

use mesh_lite_proto::trust_bundle::TrustBundle;
use mesh_lite_test_support::api_server::ApiServer;
use spiffe::TrustDomain;
use tokio::sync::watch;

use crate::{
    certificate_authority::{
        CertificateAuthority,
        authority::IssuingAuthority,
        root::Root,
        rotation::{Found, Rotation, Trust},
    },
    clock::{self, from_unix_seconds, unix_seconds},
    cluster::{Cluster, connect},
    condition::{Conditions, Part},
    metrics::Metrics,
    policy_index::{PolicyIndex, ShippedDefaults},
    source::kubernetes::namespaces::{Namespace, Namespaces},
    workload_attestation::service_account_token::ServiceAccountTokens,
    workload_index::{Workload, WorkloadIndex, WorkloadName},
};

pub(crate) const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
const MESH_NAMESPACE: &str = "mesh-lite-system";

pub(crate) struct Fixture {
    pub(crate) server: ApiServer,
    pub(crate) cluster: Cluster,
    pub(crate) trust: watch::Sender<Arc<Trust>>,
    pub(crate) namespaces: watch::Sender<Arc<Namespaces>>,
    pub(crate) workloads: watch::Sender<Arc<WorkloadIndex>>,
    pub(crate) policies: watch::Sender<PolicyIndex>,
    pub(crate) leads: watch::Sender<bool>,
    _known: watch::Sender<bool>,
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn now() -> SystemTime {
    from_unix_seconds(unix_seconds(clock::now()))
}

/// A new root and an issuing CA under it.
pub(crate) fn trust() -> Arc<Trust> {
    let root = Root::create(&trust_domain(), 365 * DAY, now()).unwrap();
    let new = root.sign_issuing_authority(90 * DAY, now()).unwrap();
    let authority = IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap();
    let bundle = TrustBundle::new(trust_domain(), vec![root.certificate().clone()]).unwrap();
    let found = Found { bundle, authority };
    Rotation::start(found, DAY, now()).unwrap().trust()
}

impl Fixture {
    /// A cluster without namespaces and pods, led by this replica.
    pub(crate) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::start();
        let client = connect(Some(&server.kubeconfig())).await.unwrap();
        let trust = watch::Sender::new(trust());
        let (namespaces, workloads) = (watch::Sender::default(), watch::Sender::default());
        let defaults = ShippedDefaults::STRICT;
        let policies = PolicyIndex::new(trust_domain(), MESH_NAMESPACE, defaults);
        let policies = watch::Sender::new(policies);
        let (leads, known) = (watch::Sender::new(true), watch::Sender::new(true));
        let tokens =
            ServiceAccountTokens::new(client.clone(), trust_domain(), Metrics::new(), clock::now);
        let cluster = Cluster {
            client,
            tokens,
            trust_domain: trust_domain(),
            mesh_namespace: MESH_NAMESPACE.into(),
            trust: trust.subscribe(),
            authority: CertificateAuthority::new(trust.subscribe(), DAY),
            workloads: workloads.subscribe(),
            policies: policies.subscribe(),
            namespaces: namespaces.subscribe(),
            known: known.subscribe(),
            leads: leads.subscribe(),
            conditions: Conditions::new(),
            clock: clock::now,
        };
        Self {
            server,
            cluster,
            trust,
            namespaces,
            workloads,
            policies,
            leads,
            _known: known,
        }
    }

    /// These namespaces and no others; those with `true` have the label.
    pub(crate) fn set_namespaces(&self, namespaces: &[(&str, bool)]) {
        let namespaces = namespaces.iter().map(|(name, injected)| {
            let namespace = Namespace {
                injected: *injected,
                ..Namespace::default()
            };
            ((*name).to_owned(), namespace)
        });
        self.namespaces
            .send_replace(Arc::new(Namespaces(namespaces.collect())));
    }

    /// Pods in the mesh, as `NAMESPACE/NAME`, without an address yet.
    pub(crate) fn set_meshed_pods(&self, names: &[&str]) {
        let workloads = names.iter().map(|name| {
            let name: WorkloadName = name.parse().unwrap();
            let id = format!("spiffe://mesh.test/ns/{}/sa/x", name.namespace);
            Workload {
                id: id.parse().unwrap(),
                addresses: Vec::new(),
                labels: Default::default(),
                ports: Default::default(),
                tunnel_port: Some(15008),
                uid: None,
                node: None,
                host: None,
                name,
            }
        });
        let index = WorkloadIndex::default().successor(workloads.collect(), Vec::new());
        self.workloads.send_replace(Arc::new(index));
    }

    pub(crate) fn problems(&self, part: Part) -> String {
        self.cluster.conditions.of(part).join("\n")
    }
}
