//! The services over a connection in memory, whose caller proved itself long before.

use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::{OWN_BUNDLE, SECRET_TYPE_URL},
    sidecar::CSR_METADATA_KEY,
    trust_bundle::TrustBundle,
    wire::{
        envoy::{
            config::core::v3::Node,
            service::{
                discovery::v3::{DiscoveryRequest, DiscoveryResponse},
                secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
            },
        },
        mesh_lite::v1::{
            self as wire, authorization_policies_client::AuthorizationPoliciesClient,
            workload_directory_client::WorkloadDirectoryClient,
        },
    },
};
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    connection::{Ending, Opened},
    places::Places,
    *,
};
use crate::{
    certificate_authority::{
        authority::IssuingAuthority,
        certificate_request::PublicKey,
        root::Root,
        rotation::{Found, Rotation, Trust},
    },
    clock::from_unix_seconds,
    policy_index::ShippedDefaults,
    workload_attestation::{Attestation, join_token::JoinTokens},
    workload_index::Workload,
};

mod ending;
mod long_messages;
mod many_streams;
mod pods;
mod snapshots;
mod strangers;
mod wire_tap;

use wire_tap::Tapped;

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn since_1970() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
}

fn trust_domain() -> TrustDomain {
    "mesh.test".parse().unwrap()
}

fn root() -> Root {
    Root::create(&trust_domain(), 365 * DAY, now()).unwrap()
}

/// These roots are trusted, the first one's issuing CA signs.
fn trust(roots: &[&Root]) -> Arc<Trust> {
    let new = roots[0].sign_issuing_authority(90 * DAY, now()).unwrap();
    let authority = IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap();
    let roots = roots.iter().map(|root| root.certificate().clone());
    let bundle = TrustBundle::new(trust_domain(), roots.collect()).unwrap();
    let found = Found { bundle, authority };
    Rotation::start(found, DAY, now()).unwrap().trust()
}

fn chain(trust: &Arc<Trust>) -> Vec<CertificateDer<'static>> {
    let authority = CertificateAuthority::new(watch::channel(Arc::clone(trust)).1, DAY);
    let key = KeyPair::generate().unwrap().subject_public_key_info();
    let (id, key): (WorkloadId, _) = (WEB.parse().unwrap(), PublicKey::from_der(&key).unwrap());
    authority
        .issue(id, Some("web".to_owned()), key, now())
        .unwrap()
        .chain
}

fn peer(trust: &Arc<Trust>) -> Peer {
    Peer::from_chain(&chain(trust), &trust.bundle, since_1970()).unwrap()
}

fn web(uid: Option<&str>) -> Workload {
    Workload {
        name: "shop/web".parse().unwrap(),
        id: WEB.parse().unwrap(),
        addresses: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        ports: std::collections::BTreeMap::new(),
        tunnel_port: None,
        uid: uid.map(Into::into),
        node: None,
        host: None,
    }
}

/// A control plane without listener, files and documents but one workload.
struct Served {
    channel: Channel,
    trust: watch::Sender<Arc<Trust>>,
    end: watch::Sender<Ending>,
    tapped: Tapped,
    policies: watch::Sender<PolicyIndex>,
    workloads: watch::Sender<Arc<WorkloadIndex>>,
}

impl Served {
    /// As whoever reads documents publishes them.
    fn publish_workloads(&self, index: WorkloadIndex) {
        let index = Arc::new(index);
        self.policies.send_if_modified(|policies| {
            policies.set_workloads(Arc::clone(&index));
            false
        });
        self.workloads.send_replace(index);
    }
}

async fn served(trust: Arc<Trust>, peer: Option<Peer>) -> Served {
    served_by(Attestation::JoinTokens, trust, peer).await
}

async fn served_by(attestation: Attestation, trust: Arc<Trust>, peer: Option<Peer>) -> Served {
    let (trust, seen) = watch::channel(trust);
    let authority = CertificateAuthority::new(seen, DAY);
    let index = WorkloadIndex::default().successor(vec![web(None)], Vec::new());
    let (workloads, workloads_seen) = watch::channel(Arc::new(index));
    let mut policies = PolicyIndex::new(trust_domain(), "mesh", ShippedDefaults::STRICT);
    policies.set_workloads(Arc::clone(&workloads.borrow()));
    let (policies, policies_seen) = watch::channel(policies);
    let issuance = Issuance::new(
        authority.clone(),
        JoinTokens::new("/nonexistent".into()),
        workloads_seen.clone(),
        policies_seen.clone(),
    );
    let sources = Sources {
        attestation,
        authority,
        issuance: Arc::new(issuance),
        workloads: workloads_seen,
        policies: policies_seen,
        outbound: watch::Sender::default().subscribe(),
        allow_remote_keys: false,
        metrics: Metrics::new(),
        clock: now,
    };
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (end, ending) = watch::channel(Ending::NotYet);
    let routes = routes(sources).await.unwrap();
    let places = Places::new(64);
    let place = peer.as_ref().map(|peer| places.of_peer(peer).unwrap());
    let opened = Opened {
        address: "192.0.2.1:4444".parse().unwrap(),
        peer: peer.map(Arc::new),
        stranger: None,
        place,
        places,
    };
    tokio::spawn(connection::serve(server, routes, opened, ending));
    let tapped = Tapped::default();
    Served {
        channel: dial(tapped.tap(client)).await,
        trust,
        end,
        tapped,
        policies,
        workloads,
    }
}

async fn dial(client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Channel {
    let mut client = Some(client);
    let dial = service_fn(move |_| {
        let client = client
            .take()
            .ok_or_else(|| std::io::Error::other("one connection only"));
        async move { client.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://control-plane");
    endpoint.connect_with_connector(dial).await.unwrap()
}

/// A stream of requests that says this and then stays open.
fn saying<T: Send + 'static>(first: T) -> impl tokio_stream::Stream<Item = T> + Send {
    tokio_stream::once(first).chain(tokio_stream::pending())
}

fn ask(names: &[&str], csr: Option<String>) -> DiscoveryRequest {
    let node = csr.map(|csr| {
        let text = Value {
            kind: Some(Kind::StringValue(csr)),
        };
        let fields = [(CSR_METADATA_KEY.to_owned(), text)].into();
        Node {
            metadata: Some(Struct { fields }),
            ..Node::default()
        }
    });
    DiscoveryRequest {
        node,
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

async fn renew(channel: &Channel) -> Result<DiscoveryResponse, Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let mut client = SecretDiscoveryServiceClient::new(channel.clone());
    let response = client
        .fetch_secrets(ask(&["default"], Some(csr.pem().unwrap())))
        .await?;
    Ok(response.into_inner())
}

/// How each of the three streams of a sidecar goes on, after what came first on it.
async fn streams(channel: &Channel) -> Vec<(&'static str, tokio::task::JoinHandle<Status>)> {
    let mut secrets = SecretDiscoveryServiceClient::new(channel.clone())
        .stream_secrets(saying(ask(&[OWN_BUNDLE], None)))
        .await
        .unwrap()
        .into_inner();
    secrets.message().await.unwrap().unwrap();
    let mut directory = WorkloadDirectoryClient::new(channel.clone())
        .watch(saying(wire::DirectoryRequest::default()))
        .await
        .unwrap()
        .into_inner();
    directory.message().await.unwrap().unwrap();
    let hello = wire::PolicyRequest {
        request: Some(wire::policy_request::Request::Hello(wire::Hello {
            schema: 1,
        })),
    };
    let mut policies = AuthorizationPoliciesClient::new(channel.clone())
        .watch(saying(hello))
        .await
        .unwrap()
        .into_inner();
    policies.message().await.unwrap().unwrap();
    vec![
        (
            "secrets",
            tokio::spawn(async move {
                loop {
                    if let Err(status) = secrets.message().await {
                        return status;
                    }
                }
            }),
        ),
        (
            "directory",
            tokio::spawn(async move { directory.message().await.unwrap_err() }),
        ),
        (
            "policies",
            tokio::spawn(async move { policies.message().await.unwrap_err() }),
        ),
    ]
}

#[test]
fn a_chain_of_a_root_that_is_not_in_the_bundle_proves_nobody() {
    let (old, new) = (trust(&[&root()]), trust(&[&root()]));
    let refused = Peer::from_chain(&chain(&old), &new.bundle, since_1970()).unwrap_err();
    assert!(refused.to_string().contains("no root"), "{refused}");
    assert!(Peer::from_chain(&[], &new.bundle, since_1970()).is_err());
}

#[test]
fn a_peer_is_trusted_as_long_as_its_own_root_is_in_the_bundle() {
    let (old, new) = (root(), root());
    let peer = peer(&trust(&[&old, &new]));
    assert!(peer.is_trusted_in(&trust(&[&new, &old]).bundle));
    assert!(!peer.is_trusted_in(&trust(&[&new]).bundle));
}

#[tokio::test]
async fn a_connection_of_a_dropped_root_renews_nothing() {
    let (old, new) = (root(), root());
    let both = trust(&[&old, &new]);
    let peer = peer(&both);
    let served = served(both, Some(peer)).await;
    renew(&served.channel).await.unwrap();
    served.trust.send_replace(trust(&[&new, &old]));
    renew(&served.channel).await.unwrap();
    served.trust.send_replace(trust(&[&new]));
    let refused = renew(&served.channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(
        refused.message().contains("no longer in the trust bundle"),
        "{refused}"
    );
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let refused = client
        .fetch_secrets(ask(&[OWN_BUNDLE], None))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_streams_of_a_dropped_root_end_and_none_is_opened() {
    let (old, new) = (root(), root());
    let both = trust(&[&old, &new]);
    let peer = peer(&both);
    let served = served(both, Some(peer)).await;
    let streams = streams(&served.channel).await;
    served.trust.send_replace(trust(&[&new]));
    for (name, stream) in streams {
        let ended = time::timeout(Duration::from_secs(30), stream).await;
        let status = ended.expect(name).unwrap();
        assert_eq!(status.code(), Code::Unauthenticated, "{name}: {status}");
    }
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let (_requests, receiver) = tokio::sync::mpsc::channel(1);
    let opened = client.stream_secrets(ReceiverStream::new(receiver)).await;
    assert_eq!(opened.err().unwrap().code(), Code::Unauthenticated);
}
