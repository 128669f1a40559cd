//! In a cluster: pods, whose tokens a scripted API server judges.

use mesh_lite_proto::document::split;
use mesh_lite_test_support::{
    ApiServer,
    service_account_token::{TokenIssuer, TokenOf},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::workload_attestation::service_account_token::ServiceAccountTokens;

const EVICTION: &str = "\
apiVersion: mesh-lite.io/v1
kind: Eviction
metadata: {name: stolen, namespace: mesh}
spec: {spiffeId: 'spiffe://mesh.test/ns/shop/sa/web'}
";

struct Cluster {
    server: ApiServer,
    issuer: TokenIssuer,
    trust: Arc<Trust>,
    attestation: Attestation,
}

impl Cluster {
    async fn new() -> Self {
        // kube's client takes the process's provider
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::start();
        let client = crate::cluster::connect(Some(&server.kubeconfig()))
            .await
            .unwrap();
        let tokens = ServiceAccountTokens::new(client, trust_domain(), Metrics::new(), now);
        Self {
            server,
            issuer: TokenIssuer::new(),
            trust: trust(&[&root()]),
            attestation: Attestation::ServiceAccountTokens(tokens),
        }
    }

    fn token(&self, account: &str, pod: &str) -> String {
        let of = TokenOf::pod(("shop", account), (pod, &format!("uid-of-{pod}")), now());
        self.issuer.accepted_at(&self.server, &of)
    }

    async fn served(&self, peer: Option<Peer>) -> Served {
        served_by(self.attestation.clone(), Arc::clone(&self.trust), peer).await
    }

    fn peer(&self) -> Option<Peer> {
        Some(peer(&self.trust))
    }
}

fn showing<T>(token: &str, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

fn asking_for_certificate() -> DiscoveryRequest {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    ask(&["default"], Some(csr.pem().unwrap()))
}

async fn issue(served: &Served, token: &str) -> Result<DiscoveryResponse, Status> {
    let mut client = SecretDiscoveryServiceClient::new(served.channel.clone());
    let request = showing(token, asking_for_certificate());
    Ok(client.fetch_secrets(request).await?.into_inner())
}

fn hello() -> wire::PolicyRequest {
    wire::PolicyRequest {
        request: Some(wire::policy_request::Request::Hello(wire::Hello {
            schema: 1,
        })),
    }
}

async fn policies(
    served: &Served,
    token: &str,
) -> Result<tonic::Streaming<wire::PolicySnapshot>, Status> {
    let mut client = AuthorizationPoliciesClient::new(served.channel.clone());
    let opened = client.watch(showing(token, saying(hello()))).await?;
    Ok(opened.into_inner())
}

/// The first certificate of what was issued.
fn leaf(response: &DiscoveryResponse) -> (String, String) {
    use mesh_lite_proto::wire::envoy::{
        config::core::v3::data_source::Specifier,
        extensions::transport_sockets::tls::v3::{Secret, secret},
    };
    use prost::Message as _;
    use rustls_pki_types::pem::PemObject as _;

    let secret = Secret::decode(response.resources[0].value.as_slice()).unwrap();
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!("no certificate");
    };
    let Some(Specifier::InlineBytes(pem)) = certificate.certificate_chain.unwrap().specifier else {
        panic!("no chain");
    };
    let leaf = CertificateDer::from_pem_slice(&pem).unwrap();
    let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
    let facts = mesh_lite_proto::svid::inspect_leaf(&leaf).unwrap();
    (facts.id.to_string(), parsed.subject().to_string())
}

/// Nobody waits for the pod to be known: the review says all that is needed.
#[tokio::test]
async fn a_pods_token_brings_each_of_its_certificates() {
    let cluster = Cluster::new().await;
    let served = cluster.served(None).await;
    let api = issue(&served, &cluster.token("api", "api-1"))
        .await
        .unwrap();
    let id = "spiffe://mesh.test/ns/shop/sa/api".to_owned();
    assert_eq!(leaf(&api), (id, "CN=api-1".to_owned()));
    // and the next one, with a new key
    let served = cluster.served(cluster.peer()).await;
    let web = cluster.token("web", "web");
    for _ in 0..2 {
        let (id, name) = leaf(&issue(&served, &web).await.unwrap());
        assert_eq!((id.as_str(), name.as_str()), (WEB, "CN=web"));
    }
    // a common name has room for 64 characters
    let long = cluster.token("web", &"w".repeat(100));
    let (id, name) = leaf(&issue(&served, &long).await.unwrap());
    assert_eq!((id.as_str(), name.as_str()), (WEB, ""));
}

#[tokio::test]
async fn a_certificate_alone_renews_nothing_and_opens_nothing() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    let refused = renew(&served.channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("renews nothing"), "{refused}");
    let channel = &served.channel;
    let secrets = SecretDiscoveryServiceClient::new(channel.clone())
        .stream_secrets(saying(ask(&[OWN_BUNDLE], None)))
        .await;
    let directory = WorkloadDirectoryClient::new(channel.clone())
        .watch(saying(wire::DirectoryRequest::default()))
        .await;
    let policies = AuthorizationPoliciesClient::new(channel.clone())
        .watch(saying(hello()))
        .await;
    for status in [
        secrets.map(drop).unwrap_err(),
        directory.map(drop).unwrap_err(),
        policies.map(drop).unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(
            status.message().contains("service-account token"),
            "{status}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_brings_nothing() {
    let cluster = Cluster::new().await;
    let other = TokenOf::pod(("shop", "web"), ("web", "uid"), now());
    let unknown = cluster.issuer.token(&other);
    let no_pod = cluster.issuer.token(&TokenOf { pod: None, ..other });
    for (token, words) in [
        (unknown.as_str(), "invalid bearer token"),
        (no_pod.as_str(), "of no pod"),
        ("mesh-lite-join-1234", "join tokens are not accepted"),
        ("mesh-lite-stream-1234", "join tokens are not accepted"),
        ("else", "no service-account token"),
    ] {
        // a stranger's connection has few requests
        let served = cluster.served(None).await;
        for refused in [
            issue(&served, token).await.map(drop).unwrap_err(),
            policies(&served, token).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
            assert!(refused.message().contains(words), "{refused}");
        }
    }
}

#[tokio::test]
async fn service_account_tokens_prove_nothing_outside_a_cluster() {
    let cluster = Cluster::new().await;
    let trust = Arc::clone(&cluster.trust);
    let served = served_by(Attestation::JoinTokens, trust, None).await;
    let refused = issue(&served, &cluster.token("web", "web")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("--kubernetes"), "{refused}");
}

/// One of the two was stolen.
#[tokio::test]
async fn a_certificate_of_somebody_else_beside_the_token_is_refused() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    let api = cluster.token("api", "api-1");
    for refused in [
        issue(&served, &api).await.map(drop).unwrap_err(),
        policies(&served, &api).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("of one pod"), "{refused}");
    }
}

#[tokio::test]
async fn an_evicted_pod_gets_nothing_and_its_streams_end() {
    let cluster = Cluster::new().await;
    let served = cluster.served(None).await;
    let token = cluster.token("web", "web");
    let mut open = policies(&served, &token).await.unwrap();
    let eviction = split("p.yaml", EVICTION.as_bytes()).readable.remove(0);
    served.policies.send_modify(|index| {
        index.upsert(&eviction);
    });
    for refused in [
        open.message().await.unwrap_err(),
        issue(&served, &token).await.map(drop).unwrap_err(),
        policies(&served, &token).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("evicted"), "{refused}");
    }
}

#[tokio::test]
async fn nobody_to_ask_is_no_refusal() {
    let mut cluster = Cluster::new().await;
    let token = cluster.token("web", "web");
    // its runtime may not end within ours
    std::thread::scope(|scope| {
        scope.spawn(|| cluster.server.stop());
    });
    let served = cluster.served(None).await;
    let status = issue(&served, &token).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.metadata().get("retry-after").is_some());
}

/// A pod that was made anew under the same name is not the one that the token is of.
#[tokio::test]
async fn policy_waits_for_the_very_pod() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    let mut policies = policies(&served, &cluster.token("web", "web"))
        .await
        .unwrap();
    let publish = |uid: &str| {
        let index = served
            .workloads
            .borrow()
            .successor(vec![web(Some(uid))], Vec::new());
        served.publish_workloads(index);
    };
    // the first is not known by a uid at all
    for uid in ["uid-of-another", "uid-of-web-2"] {
        publish(uid);
        let early = time::timeout(Duration::from_millis(200), policies.message()).await;
        assert!(early.is_err(), "{early:?}");
    }
    publish("uid-of-web");
    policies.message().await.unwrap().unwrap();
}

#[tokio::test]
async fn the_streams_of_a_deleted_pod_end_when_its_token_is_reviewed_again() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    let index = served
        .workloads
        .borrow()
        .successor(vec![web(Some("uid-of-web"))], Vec::new());
    served.publish_workloads(index);
    let token = cluster.token("web", "web");
    let mut policies = policies(&served, &token).await.unwrap();
    policies.message().await.unwrap().unwrap();
    let mut directory = WorkloadDirectoryClient::new(served.channel.clone())
        .watch(showing(&token, saying(wire::DirectoryRequest::default())))
        .await
        .unwrap()
        .into_inner();
    directory.message().await.unwrap().unwrap();
    let mut secrets = SecretDiscoveryServiceClient::new(served.channel.clone())
        .stream_secrets(showing(&token, saying(ask(&[OWN_BUNDLE], None))))
        .await
        .unwrap()
        .into_inner();
    secrets.message().await.unwrap().unwrap();

    after(Duration::from_secs(301)).await;
    let early = time::timeout(Duration::from_millis(500), policies.message()).await;
    assert!(early.is_err(), "a good token's stream goes on: {early:?}");
    cluster.server.forget_token(&token);
    after(Duration::from_secs(301)).await;
    for status in [
        policies.message().await.unwrap_err(),
        directory.message().await.unwrap_err(),
        secrets.message().await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(
            status.message().contains("invalid bearer token"),
            "{status}"
        );
    }
}

/// A token that was good a moment ago may have been copied from a pod that is no more.
#[tokio::test]
async fn the_token_of_a_deleted_pod_brings_no_certificate_while_its_streams_still_live() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    let token = cluster.token("web", "web");
    let mut policies = policies(&served, &token).await.unwrap();
    issue(&served, &token).await.unwrap();
    cluster.server.forget_token(&token);
    after(Duration::from_secs(11)).await;
    let refused = issue(&served, &token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let early = time::timeout(Duration::from_millis(200), policies.message()).await;
    assert!(early.is_err(), "{early:?}");
}

/// Nobody waits for a review, and while the API server is away there is none.
#[tokio::test]
async fn a_pod_that_the_index_saw_go_gets_nothing_and_its_streams_end_at_once() {
    let cluster = Cluster::new().await;
    for successor in [None, Some("uid-of-the-next")] {
        let served = cluster.served(cluster.peer()).await;
        served.publish(Some("uid-of-web"));
        let token = cluster.token("web", "web");
        let mut open = policies(&served, &token).await.unwrap();
        open.message().await.unwrap().unwrap();
        let mut secrets = SecretDiscoveryServiceClient::new(served.channel.clone())
            .stream_secrets(showing(&token, saying(ask(&[OWN_BUNDLE], None))))
            .await
            .unwrap()
            .into_inner();
        secrets.message().await.unwrap().unwrap();
        issue(&served, &token).await.unwrap();
        served.publish(successor);
        for refused in [
            open.message().await.unwrap_err(),
            secrets.message().await.unwrap_err(),
            issue(&served, &token).await.map(drop).unwrap_err(),
            policies(&served, &token).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
            assert!(refused.message().contains("is gone"), "{refused}");
        }
    }
}

/// It may be older or newer than the one that asks: the index is not always up to date.
#[tokio::test]
async fn while_another_pod_is_known_under_the_name_a_certificate_waits() {
    let cluster = Cluster::new().await;
    let served = cluster.served(cluster.peer()).await;
    served.publish(Some("uid-of-another"));
    let token = cluster.token("web", "web");
    let status = issue(&served, &token).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.metadata().get("retry-after").is_some());
    served.publish(Some("uid-of-web"));
    issue(&served, &token).await.unwrap();
}

impl Served {
    /// The pod `shop/web` with this uid and no other, or nobody.
    fn publish(&self, uid: Option<&str>) {
        let pods = uid.map(|uid| web(Some(uid))).into_iter().collect();
        let index = self.workloads.borrow().successor(pods, Vec::new());
        self.publish_workloads(index);
    }
}

async fn after(time: Duration) {
    time::pause();
    time::advance(time).await;
    time::resume();
}
