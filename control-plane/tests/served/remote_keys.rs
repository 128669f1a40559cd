//! Keys made by the control plane for clients that bring no certificate request.

use std::time::Duration;

use mesh_lite_control_plane::{clock, root_commands::create_stream_token};
use mesh_lite_proto::{
    secret_discovery::{ACTIVE_AUTHORITY, OWN_BUNDLE, SECRET_TYPE_URL},
    svid::inspect_leaf,
    wire::envoy::{
        extensions::transport_sockets::tls::v3::secret,
        service::{
            discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use super::{
    client::{Svid, csr, fetch_request, inline, node, request_for, secrets},
    running::{Directories, Running, WORKLOADS, eventually, in_time},
    secret_streams::answer,
};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";
const API: &str = "spiffe://mesh.test/ns/shop/sa/api";
const ISSUED: &str = "mesh_lite_control_plane_issuances_total{outcome=\"granted\"}";

pub(super) fn stream_token(directories: &Directories, workload: &str) -> String {
    stream_token_for(directories, workload, Duration::from_secs(600))
}

pub(super) fn stream_token_for(
    directories: &Directories,
    workload: &str,
    lifetime: Duration,
) -> String {
    let workload = workload.parse().unwrap();
    let token = create_stream_token(&directories.data, &workload, lifetime, clock::now()).unwrap();
    token.as_str().to_owned()
}

/// A StreamSecrets stream that shows a token, as Envoy with a token file opens it.
pub(super) struct TokenStream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
    names: Vec<String>,
}

/// A chain and its key, as they came in one secret.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) chain: String,
    pub(super) key: String,
}

impl TokenStream {
    pub(super) async fn open(
        channel: Channel,
        first: DiscoveryRequest,
        token: &str,
    ) -> Result<Self, Status> {
        let names = first.resource_names.clone();
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let opening = client.stream_secrets(request);
        let responses = in_time("the stream opens", opening).await?.into_inner();
        Ok(Self {
            requests,
            responses,
            names,
        })
    }

    pub(super) async fn next(&mut self) -> Result<DiscoveryResponse, Status> {
        let next = in_time("a response", self.responses.message()).await?;
        let response = next.expect("the stream ended without a status");
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        self.say(answer(&names, &response)).await;
        Ok(response)
    }

    pub(super) async fn say(&self, request: DiscoveryRequest) {
        // a stream that the server ended takes no more; what it said comes from `next`
        let _ = self.requests.send(request).await;
    }

    /// The next pair under this name, whatever else comes before it.
    pub(super) async fn next_pair(&mut self, name: &str) -> Pair {
        loop {
            let response = self.next().await.unwrap();
            let pair = pairs(&response).into_iter().find(|pair| pair.name == name);
            if let Some(pair) = pair {
                return pair;
            }
        }
    }

    async fn status_at_its_end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

fn pairs(response: &DiscoveryResponse) -> Vec<Pair> {
    let certificates = secrets(response).into_iter().filter_map(|secret| {
        let Some(secret::Type::TlsCertificate(pair)) = secret.r#type else {
            return None;
        };
        Some(Pair {
            name: secret.name,
            chain: String::from_utf8(inline(pair.certificate_chain)).unwrap(),
            key: String::from_utf8(inline(pair.private_key)).unwrap(),
        })
    });
    certificates.collect()
}

impl Pair {
    /// Whole, or this panics: PKCS#8, and the key is the leaf's.
    pub(super) fn svid(&self) -> Svid {
        assert!(self.key.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let key = KeyPair::from_pem(&self.key).unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let facts = inspect_leaf(&chain[0]).unwrap();
        let public = mesh_lite_proto::svid::public_key_of(&chain[0]).unwrap();
        assert_eq!(public, key.subject_public_key_info());
        Svid { chain, key, facts }
    }

    pub(super) fn lines_of_key(&self) -> Vec<String> {
        let lines = self.key.lines().filter(|line| !line.starts_with("-----"));
        lines.map(ToOwned::to_owned).collect()
    }
}

async fn start(lifetime: Duration) -> Running {
    let directories = Directories::new();
    let mut settings = directories.settings();
    settings.allow_remote_keys = true;
    settings.leaf_lifetime = lifetime;
    Running::start_with(directories, settings).await
}

const HOUR: Duration = Duration::from_secs(3600);

async fn open(running: &Running, names: &[&str]) -> TokenStream {
    let token = stream_token(&running.directories, "shop/web");
    let channel = running.anonymous().await;
    TokenStream::open(channel, request_for(names), &token)
        .await
        .unwrap()
}

/// SDS-S8, SDS-S28: off unless the operator says otherwise.
#[tokio::test]
async fn makes_no_key_unless_it_is_allowed_and_serves_bundles_all_the_same() {
    let running = Running::start().await;
    let names = ["default", WEB, OWN_BUNDLE];
    let mut stream = open(&running, &names).await;
    let response = stream.next().await.unwrap();
    let sent: Vec<String> = secrets(&response)
        .into_iter()
        .map(|secret| secret.name)
        .collect();
    assert_eq!(sent, [OWN_BUNDLE]);
    running
        .wait_for_metric("mesh_lite_control_plane_unknown_secrets_total", 2.0)
        .await;
    assert!(running.metric(ISSUED).await < 0.5);
    // what comes next on the same stream still holds none
    running.directories.init_root("other-root");
    let response = stream.next().await.unwrap();
    assert!(pairs(&response).is_empty());
}

/// SDS-S4, SDS-S28, SDS-S30: under the name that was asked, each with its own key.
#[tokio::test]
async fn makes_a_pair_for_default_and_for_the_callers_own_id_and_for_nobody_elses() {
    let running = start(HOUR).await;
    let mut stream = open(
        &running,
        &["default", OWN_BUNDLE, API, "spiffe://mesh.test/ns/shop"],
    )
    .await;
    let by_default = stream.next_pair("default").await.svid();
    assert_eq!(by_default.facts.id.as_str(), WEB);
    let by_id = open(&running, &[WEB]).await.next_pair(WEB).await.svid();
    assert_eq!(by_id.facts.id, by_default.facts.id);
    assert_ne!(by_id.facts.serial, by_default.facts.serial);
    assert_ne!(
        by_id.key.subject_public_key_info(),
        by_default.key.subject_public_key_info()
    );
    running
        .wait_for_metric("mesh_lite_control_plane_unknown_secrets_total", 2.0)
        .await;
    // and it proves its holder: the control plane takes it, for a stream of its own
    let channel = running.connect(Some(&by_default)).await.unwrap();
    let response = running
        .fetch(channel, request_for(&[OWN_BUNDLE]))
        .await
        .unwrap();
    assert_eq!(secrets(&response).len(), 1);
}

/// SDS-S16, SDS-S19, SDS-S30: pushed on the open stream, with a new key each time.
#[tokio::test]
async fn pushes_a_new_pair_at_half_of_its_life() {
    let running = start(Duration::from_secs(10)).await;
    let mut stream = open(&running, &["default"]).await;
    let first = stream.next_pair("default").await.svid();
    let second = stream.next_pair("default").await.svid();
    let life = first
        .facts
        .not_after
        .duration_since(first.facts.not_before)
        .unwrap();
    // half is 5 s give or take half a second, and certificates state whole seconds
    let apart = second
        .facts
        .not_before
        .duration_since(first.facts.not_before)
        .unwrap();
    let around_half = Duration::from_secs(4)..=Duration::from_secs(7);
    assert!(around_half.contains(&apart), "{apart:?} of {life:?}");
    // both are good for a while: nobody is without
    assert!(second.facts.not_before + life / 10 < first.facts.not_after);
    assert_ne!(
        first.key.subject_public_key_info(),
        second.key.subject_public_key_info()
    );
}

/// SDS-S16: an operator's `root renew` reaches every stream.
#[tokio::test]
async fn pushes_a_new_pair_when_another_issuing_ca_signs() {
    let running = start(HOUR).await;
    let mut stream = open(&running, &["default", ACTIVE_AUTHORITY]).await;
    let first = stream.next_pair("default").await.svid();
    running.directories.renew_root();
    let second = stream.next_pair("default").await.svid();
    assert_ne!(first.chain[1], second.chain[1]);
    assert_ne!(first.facts.serial, second.facts.serial);
}

/// SDS-S26: by eviction, by the end of the document, by its change to somebody else.
#[tokio::test]
async fn ends_the_stream_of_a_caller_that_lost_its_right() {
    let eviction = format!(
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {{name: web, namespace: shop}}\n\
         spec: {{spiffeId: '{WEB}'}}\n"
    );
    let somebody_else = WORKLOADS.replace("serviceAccount: web", "serviceAccount: other");
    let nobody = WORKLOADS.replace("name: web,", "name: gone,");
    for (file, text) in [
        ("evictions.yaml", eviction),
        ("workloads.yaml", somebody_else),
        ("workloads.yaml", nobody),
    ] {
        let running = start(HOUR).await;
        let mut stream = open(&running, &["default", OWN_BUNDLE]).await;
        stream.next_pair("default").await;
        let issued = running.metric(ISSUED).await;
        running.directories.write(file, &text);
        let ended = stream.status_at_its_end().await;
        assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
        assert!((running.metric(ISSUED).await - issued).abs() < 0.5);
    }
}

/// SDS-S24, SDS-S26: also for a caller that has a certificate, from its connection alone.
#[tokio::test]
async fn makes_pairs_for_callers_with_a_certificate_and_listens_to_no_claim() {
    let running = start(HOUR).await;
    let channel = running.workload("shop/api").await;
    let mut request = request_for(&["default", WEB]);
    let mut claims = node(&[("identity", WEB)]);
    claims.id = WEB.to_owned();
    request.node = Some(claims);
    let (requests, receiver) = mpsc::channel(4);
    requests.send(request).await.unwrap();
    let mut opening = Request::new(ReceiverStream::new(receiver));
    for header in ["x-forwarded-for", "x-forwarded-client-cert"] {
        opening.metadata_mut().insert(header, WEB.parse().unwrap());
    }
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut responses = client.stream_secrets(opening).await.unwrap().into_inner();
    let response = in_time("a pair", responses.message())
        .await
        .unwrap()
        .unwrap();
    let [pair] = pairs(&response).try_into().ok().expect("one pair");
    assert_eq!(
        (pair.name.as_str(), pair.svid().facts.id.as_str()),
        ("default", API)
    );
    let gone = WORKLOADS.replace(
        "name: api, namespace: shop, labels",
        "name: gone, namespace: shop, labels",
    );
    running.directories.write("workloads.yaml", &gone);
    let ended = in_time("the end", responses.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
}

/// SDS-S1, SDS-S8: on a Delta stream a name whose secret is being made is not one that is gone, and
/// one that is never made is.
#[tokio::test]
async fn tells_delta_clients_apart_what_is_being_made_and_what_is_not_to_be_had() {
    for allowed in [true, false] {
        let running = if allowed {
            start(HOUR).await
        } else {
            Running::start().await
        };
        let (requests, receiver) = mpsc::channel(4);
        let first = DeltaDiscoveryRequest {
            type_url: SECRET_TYPE_URL.to_owned(),
            resource_names_subscribe: vec!["default".to_owned(), OWN_BUNDLE.to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let mut opening = Request::new(ReceiverStream::new(receiver));
        let token = stream_token(&running.directories, "shop/web");
        let header = format!("Bearer {token}").parse().unwrap();
        opening.metadata_mut().insert("authorization", header);
        let mut client = SecretDiscoveryServiceClient::new(running.anonymous().await);
        let mut responses = client.delta_secrets(opening).await.unwrap().into_inner();
        let (mut sent, mut removed) = (Vec::new(), Vec::new());
        while sent.len() + removed.len() < 2 {
            let response = in_time("a response", responses.message()).await;
            let response = response.unwrap().unwrap();
            removed.extend(response.removed_resources);
            sent.extend(response.resources.into_iter().map(|resource| resource.name));
        }
        sent.sort();
        if allowed {
            assert_eq!(sent, [OWN_BUNDLE, "default"]);
        } else {
            assert_eq!(
                (sent, removed),
                (vec![OWN_BUNDLE.to_owned()], vec!["default".to_owned()])
            );
        }
    }
}

/// Whoever held a reusable token for a moment has its leaf for the rest of that leaf's life: it renews
/// by no certificate request, and opens no stream that brings another.
#[tokio::test]
async fn follows_what_a_token_brought_by_nothing_but_the_token() {
    let running = start(Duration::from_secs(20)).await;
    let mut stream = open(&running, &["default"]).await;
    let svid = stream.next_pair("default").await.svid();
    let channel = running.connect(Some(&svid)).await.unwrap();
    let renewal = fetch_request(&csr(&KeyPair::generate().unwrap(), &[]));
    let renewed = running.fetch(channel.clone(), renewal).await.unwrap_err();
    let (requests, receiver) = mpsc::channel(4);
    requests.send(request_for(&["default"])).await.unwrap();
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let opening = client.stream_secrets(ReceiverStream::new(receiver)).await;
    let mut responses = opening.unwrap().into_inner();
    let made = in_time("the end", responses.message()).await.unwrap_err();
    for refused in [renewed, made] {
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("token create"), "{refused}");
    }
    let next = stream.next_pair("default").await.svid();
    assert_ne!(next.facts.serial, svid.facts.serial);
}

/// CSR-C9: whoever opens streams without end waits for its turn, and gets it.
#[tokio::test]
async fn makes_no_more_keys_for_a_workload_than_its_rate_allows() {
    let running = start(HOUR).await;
    let token = stream_token(&running.directories, "shop/web");
    let mut streams = Vec::new();
    for _ in 0..10 {
        let channel = running.anonymous().await;
        let opened = TokenStream::open(channel, request_for(&["default"]), &token);
        streams.push(opened.await.unwrap());
    }
    running
        .wait_for_metric(
            "mesh_lite_control_plane_issuances_total{outcome=\"too_often\"}",
            1.0,
        )
        .await;
    let mut serials = Vec::new();
    for stream in &mut streams {
        serials.push(stream.next_pair("default").await.svid().facts.serial);
    }
    serials.sort();
    serials.dedup();
    assert_eq!(serials.len(), 10);
}

/// FetchSecrets makes none: there is nobody to push the next one to.
#[tokio::test]
async fn makes_no_key_for_a_single_answer() {
    let running = start(HOUR).await;
    let channel = running.workload("shop/web").await;
    let before = running.metric(ISSUED).await;
    let refused = running
        .fetch(channel, request_for(&["default"]))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    assert!(refused.message().contains("StreamSecrets"), "{refused}");
    assert!((running.metric(ISSUED).await - before).abs() < 0.5);
}

/// A workload without a document has no identity at all (SDS-S23), and may come back.
#[tokio::test]
async fn opens_nothing_for_a_token_whose_workload_has_no_document() {
    let running = start(HOUR).await;
    let token = stream_token(&running.directories, "shop/later");
    let opened = async || {
        let channel = running.anonymous().await;
        TokenStream::open(channel, request_for(&["default"]), &token).await
    };
    let refused = opened().await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    running.directories.write(
        "later.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: later, namespace: shop}\n\
         spec: {serviceAccount: late, addresses: [10.0.0.9]}\n",
    );
    let mut stream = eventually("the document is read", async || opened().await.ok()).await;
    let svid = stream.next_pair("default").await.svid();
    assert_eq!(svid.facts.id.as_str(), "spiffe://mesh.test/ns/shop/sa/late");
}
