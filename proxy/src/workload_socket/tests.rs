use std::{future::Future, os::unix::fs::FileTypeExt, os::unix::fs::PermissionsExt};

use mesh_lite_proto::wire::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
    aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

use super::*;
use crate::{
    identity::PrivateKey,
    metrics::MetricsPrefix,
    tls::fixture::{API, Authority, WEB},
};

mod client;
mod file;
mod limits;

use client::{Client, Stream, client, names, pair_in, request_for, secrets};

/// Ten times what the slowest of these takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("never came")
}

/// A socket whose identity the test decides.
struct Running {
    socket: Option<WorkloadSocket>,
    identities: watch::Sender<Option<Arc<Identity>>>,
    metrics: Metrics,
    folder: tempfile::TempDir,
}

fn own_user() -> BTreeSet<u32> {
    allowed_users(&[])
}

impl Running {
    async fn start() -> Self {
        Self::for_users(own_user()).await
    }

    async fn for_users(users: BTreeSet<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let metrics = Metrics::new(&MetricsPrefix::default(), 10);
        let (identities, receiver) = watch::channel(None);
        let path = folder.path().join("socket");
        let socket = WorkloadSocket::open_for(users, &path, receiver, &metrics, crate::clock::now);
        Self {
            socket: Some(socket.await.unwrap()),
            identities,
            metrics,
            folder,
        }
    }

    /// With an identity of web.
    async fn with_identity(root: &Authority) -> Self {
        let running = Self::start().await;
        running.publish(&root.identity(WEB));
        running
    }

    fn publish(&self, identity: &Arc<Identity>) {
        self.identities.send_replace(Some(Arc::clone(identity)));
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    async fn client(&self) -> Client {
        client(&self.path()).await
    }

    async fn stream(&self, names: &[&str]) -> Stream {
        let mut client = self.client().await;
        in_time(Stream::open(&mut client, names)).await.unwrap()
    }

    fn metric(&self, series: &str) -> f64 {
        let page = self.metrics.encode(crate::clock::now());
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("mesh_lite_{series} ")));
        line.unwrap().parse().unwrap()
    }

    async fn until_metric(&self, series: &str, value: f64) {
        in_time(async {
            while self.metric(series) != value {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// SDS-S4, SDS-S5, SDS-S28
#[tokio::test]
async fn every_name_brings_its_secret_the_key_inline_beside_its_chain() {
    let running = Running::with_identity(&Authority::root()).await;
    let all = ["default", WEB, "ROOTCA", "spiffe://a.test", "ALL"];
    let mut stream = running.stream(&all).await;
    let response = stream.next().await;
    let mut found = names(&response);
    found.sort_unstable();
    let mut wanted: Vec<_> = all.map(str::to_owned).into();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    for secret in secrets(&response).filter(|secret| ["default", WEB].contains(&&*secret.name)) {
        assert_eq!(pair_in(&secret).leaf.id.as_str(), WEB);
    }
    let accepted = "workload_socket_secrets_total{result=\"accepted\"}";
    running.until_metric(accepted, 5.0).await;
    assert_eq!(running.metric("workload_socket_streams"), 1.0);
    drop(stream);
    running.until_metric("workload_socket_streams", 0.0).await;
}

/// SDS-S8
#[tokio::test]
async fn the_svid_is_pushed_when_it_appears_to_who_asked_before() {
    let running = Running::start().await;
    let mut stream = running.stream(&["default"]).await;
    let unknown = "workload_socket_secrets_total{result=\"unknown\"}";
    running.until_metric(unknown, 1.0).await;
    running.publish(&Authority::root().identity(WEB));
    assert_eq!(names(&stream.next().await), ["default"]);
}

/// SDS-S8, SDS-S24
#[tokio::test]
async fn another_workloads_name_is_unknown_whatever_the_node_says() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut client = running.client().await;
    let mut request = request_for(&[API, "spiffe://b.test", "spiffe://a.test/", "key", ""]);
    request.node.as_mut().unwrap().id = API.to_owned();
    let status = in_time(client.fetch_secrets(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("mesh-lite identity"), "{status}");
    let mut stream = running.stream(&[API, "ROOTCA"]).await;
    assert_eq!(names(&stream.next().await), ["ROOTCA"]);
}

/// SDS-S16, SDS-S30
#[tokio::test]
async fn a_rotation_reaches_every_stream_with_a_new_key_and_never_a_torn_pair() {
    let root = Authority::root();
    let running = Running::with_identity(&root).await;
    let mut streams = Vec::new();
    for name in ["default", WEB, "default"] {
        streams.push(running.stream(&[name]).await);
    }
    let mut keys = BTreeSet::new();
    for rotation in 1..=20 {
        let mut serials = BTreeSet::new();
        for stream in &mut streams {
            let response = stream.next().await;
            let pair = pair_in(&secrets(&response).next().unwrap());
            serials.insert(pair.leaf.serial);
            keys.insert(pair.public_key);
        }
        assert_eq!(serials.len(), 1);
        assert_eq!(keys.len(), rotation);
        running.publish(&root.identity(WEB));
    }
}

/// SDS-S12, SDS-S16
#[tokio::test]
async fn the_same_identity_once_more_is_not_pushed() {
    let root = Authority::root();
    let running = Running::start().await;
    let identity = root.identity(WEB);
    running.publish(&identity);
    let mut stream = running.stream(&["default", "ROOTCA"]).await;
    let first = stream.next().await;
    running.publish(&identity);
    // what comes next is the answer to this, and nothing was in between
    let mut more = request_for(&["default", "ROOTCA", "ALL"]);
    more.response_nonce = first.nonce;
    more.version_info = first.version_info;
    stream.ask(more).await;
    assert_eq!(names(&stream.next().await), ["ALL"]);
}

/// SDS-S1, SDS-S7
#[tokio::test]
async fn a_fetch_is_answered_once_with_a_version_and_without_a_nonce() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut client = running.client().await;
    let response = in_time(client.fetch_secrets(request_for(&[])))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(names(&response), ["default", "ROOTCA"]);
    assert!(response.nonce.is_empty() && !response.version_info.is_empty());
}

/// SDS-S18
#[tokio::test]
async fn a_broken_identity_is_handed_to_nobody_and_counted() {
    let (root, other) = (Authority::root(), Authority::root());
    let good = root.identity(WEB);
    let with = |change: &dyn Fn(&mut Identity)| {
        let mut broken = Identity {
            revision: 2,
            leaf: good.leaf.clone(),
            chain: good.chain.clone(),
            key: good.key.copy(),
            trust_bundle: Arc::clone(&good.trust_bundle),
        };
        change(&mut broken);
        Arc::new(broken)
    };
    let (ended, ended_key) = root.leaf(WEB, |params| {
        params.not_after = rcgen::date_time_ymd(2000, 1, 1);
    });
    let (two_uris, two_uris_key) = root.leaf(WEB, |params| {
        let second = rcgen::SanType::URI(API.try_into().unwrap());
        params.subject_alt_names.push(second);
    });
    let key = |pair: &rcgen::KeyPair| PrivateKey::from_pkcs8(pair.serialize_der());
    let broken = [
        with(&|it| it.key = other.identity(WEB).key.copy()),
        with(&|it| it.chain = other.identity(WEB).chain.clone()),
        with(&|it| it.trust_bundle = other.bundle()),
        with(&|it| it.chain.insert(0, root.certificate.clone())),
        with(&|it| (it.chain, it.key) = (vec![ended.clone()], key(&ended_key))),
        with(&|it| (it.chain, it.key) = (vec![two_uris.clone()], key(&two_uris_key))),
        with(&|it| it.chain.clear()),
    ];
    let running = Running::start().await;
    let mut stream = running.stream(&["default", WEB]).await;
    for (count, identity) in broken.iter().enumerate() {
        running.publish(identity);
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        running
            .until_metric("broken_secrets_total", (count + 1) as f64)
            .await;
        let mut client = running.client().await;
        let fetched = in_time(client.fetch_secrets(request_for(&["default", WEB]))).await;
        assert_eq!(fetched.unwrap_err().code(), Code::NotFound, "{count}");
        let bundle = in_time(client.fetch_secrets(request_for(&["ROOTCA"]))).await;
        assert_eq!(names(bundle.unwrap().get_ref()), ["ROOTCA"], "{count}");
    }
    running.publish(&good);
    // the first that the stream hears of
    let pair = pair_in(&secrets(&stream.next().await).next().unwrap());
    assert_eq!(pair.leaf.serial, good.leaf.serial);
}

/// SDS-S19
#[tokio::test]
async fn a_certificate_that_is_about_to_end_is_sent_to_nobody_new() {
    let root = Authority::root();
    let now = time::OffsetDateTime::from(crate::clock::now());
    let with_rest = |minutes: i64| {
        let (leaf, key) = root.leaf(WEB, |params| {
            params.not_after = now + time::Duration::minutes(minutes);
            params.not_before = params.not_after - time::Duration::minutes(100);
        });
        Arc::new(Identity {
            revision: 1,
            leaf: mesh_lite_proto::svid::inspect_leaf(&leaf).unwrap(),
            chain: vec![leaf],
            key: PrivateKey::from_pkcs8(key.serialize_der()),
            trust_bundle: root.bundle(),
        })
    };
    let running = Running::start().await;
    let mut stream = running.stream(&["default"]).await;
    running.publish(&with_rest(9));
    let mut client = running.client().await;
    in_time(async {
        // from then on the identity is the one published
        while client
            .fetch_secrets(request_for(&["ROOTCA"]))
            .await
            .is_err()
        {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let fetched = in_time(client.fetch_secrets(request_for(&["default", WEB]))).await;
    assert_eq!(fetched.unwrap_err().code(), Code::NotFound);
    let next = with_rest(11);
    running.publish(&next);
    // the first that the stream hears of
    let pair = pair_in(&secrets(&stream.next().await).next().unwrap());
    assert_eq!(pair.leaf.serial, next.leaf.serial);
}

/// SDS-S23, SDS-S24
#[tokio::test]
async fn a_user_that_is_not_named_is_refused_with_the_reason_and_counted() {
    let mut users = own_user();
    users.remove(&rustix::process::geteuid().as_raw());
    let running = Running::for_users(users).await;
    running.publish(&Authority::root().identity(WEB));
    let mut client = running.client().await;
    let fetched = in_time(client.fetch_secrets(request_for(&["default"]))).await;
    let status = fetched.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(
        status.message().contains("--workload-socket-uids"),
        "{status}"
    );
    let streamed = in_time(Stream::open(&mut client, &["ROOTCA"])).await;
    assert_eq!(streamed.err().unwrap().code(), Code::PermissionDenied);
    let refused = "workload_socket_refused_total{reason=\"user\"}";
    assert_eq!(running.metric(refused), 1.0);
}

/// SDS-S3, SDS-S23
#[tokio::test]
async fn another_type_is_refused_in_words() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut client = running.client().await;
    let request = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..request_for(&["default"])
    };
    let status = in_time(client.fetch_secrets(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

async fn delta(
    responses: Result<tonic::Response<Streaming<DeltaDiscoveryResponse>>, tonic::Status>,
) -> (Streaming<DeltaDiscoveryResponse>, DeltaDiscoveryResponse) {
    let mut responses = responses.unwrap().into_inner();
    let first = in_time(responses.message()).await.unwrap().unwrap();
    (responses, first)
}

/// SDS-S1, SDS-S2, SDS-S8
#[tokio::test]
async fn delta_and_ads_tell_of_a_missing_svid_and_push_it_when_it_comes() {
    let running = Running::start().await;
    let subscribe = DeltaDiscoveryRequest {
        type_url: mesh_lite_proto::secret_discovery::SECRET_TYPE_URL.to_owned(),
        resource_names_subscribe: vec!["default".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    let requests = || {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(subscribe.clone()).unwrap();
        (sender, Request::new(ReceiverStream::new(receiver)))
    };
    let (mut sds, mut ads) = (
        running.client().await,
        AggregatedDiscoveryServiceClient::new(client::channel(&running.path()).await),
    );
    let (_sds_open, sds_requests) = requests();
    let (_ads_open, ads_requests) = requests();
    let streams = [
        delta(in_time(sds.delta_secrets(sds_requests)).await).await,
        delta(in_time(ads.delta_aggregated_resources(ads_requests)).await).await,
    ];
    running.publish(&Authority::root().identity(WEB));
    for (mut responses, first) in streams {
        assert_eq!(first.removed_resources, ["default"]);
        let pushed = in_time(responses.message()).await.unwrap().unwrap();
        assert_eq!(pushed.resources[0].name, "default");
    }
}

/// SDS-S22
#[tokio::test]
async fn at_its_end_streams_hear_that_it_is_unavailable_and_the_file_goes() {
    let mut running = Running::with_identity(&Authority::root()).await;
    let mut stream = running.stream(&["default"]).await;
    stream.next().await;
    in_time(running.socket.take().unwrap().close()).await;
    let status = stream.ended().await;
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(!running.path().exists());
}
