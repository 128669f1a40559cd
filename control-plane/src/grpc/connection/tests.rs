use hyper_util::rt::TokioIo;
use mesh_lite_proto::svid::LeafFacts;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{super::strangers::Strangers, *};
use crate::{certificate_authority::certificate_request::KeyPrint, clock::from_unix_seconds};

fn peer() -> Arc<Peer> {
    let leaf = LeafFacts {
        id: "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap(),
        serial: "01".parse().unwrap(),
        not_before: from_unix_seconds(0),
        not_after: from_unix_seconds(1),
        common_name: None,
    };
    Arc::new(Peer {
        leaf,
        key: KeyPrint::of(b""),
        root: KeyPrint::of(b""),
    })
}

struct Served {
    channel: Channel,
    end: watch::Sender<Ending>,
    task: tokio::task::JoinHandle<()>,
}

async fn served(peer: Option<Arc<Peer>>) -> Served {
    served_to(peer, Endpoint::from_static("http://control-plane")).await
}

/// A connection in memory, with a service whose streams never end by themselves.
async fn served_to(peer: Option<Arc<Peer>>, endpoint: Endpoint) -> Served {
    let (client, server) = tokio::io::duplex(64 * 1024);
    let (end, ending) = watch::channel(Ending::NotYet);
    let (_, health) = tonic_health::server::health_reporter();
    let places = Places::new(64);
    let opened = Opened {
        address: "192.0.2.1:4444".parse().unwrap(),
        place: peer.as_ref().map(|peer| places.of_peer(peer).unwrap()),
        peer,
        stranger: None,
        places,
    };
    let task = tokio::spawn(serve(server, Routes::new(health), opened, ending));
    let mut client = Some(client);
    let dial = service_fn(move |_| {
        let client = client
            .take()
            .ok_or_else(|| std::io::Error::other("one connection only"));
        async move { client.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(dial).await.unwrap();
    Served { channel, end, task }
}

async fn open_stream(channel: &Channel) -> tonic::Streaming<tonic_health::pb::HealthCheckResponse> {
    let mut client = HealthClient::new(channel.clone());
    let mut stream = client
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap();
    stream
}

/// SDS-S22
#[tokio::test(start_paused = true)]
async fn closes_a_connection_at_its_age_and_a_strangers_much_earlier() {
    for (peer, allowance) in [(Some(peer()), &OF_PEERS), (None, &OF_STRANGERS)] {
        let opened = Instant::now();
        let Served {
            channel,
            end: _end,
            task,
        } = served(peer).await;
        let mut stream = open_stream(&channel).await;
        task.await.unwrap();
        let least = allowance.age * 8 / 10;
        let most = allowance.age * 12 / 10 + allowance.grace + LAST_WORDS;
        let lived = opened.elapsed();
        assert!((least..=most).contains(&lived), "{lived:?}");
        assert!(stream.message().await.is_err());
    }
}

/// SDS-S22
#[tokio::test(start_paused = true)]
async fn closes_at_once_when_the_control_plane_ends() {
    let opened = Instant::now();
    let Served { channel, end, task } = served(Some(peer())).await;
    let _stream = open_stream(&channel).await;
    end.send_replace(Ending::Now);
    task.await.unwrap();
    assert!(opened.elapsed() <= GRACE_AT_END + LAST_WORDS + Duration::from_secs(1));
}

/// SDS-S21
#[tokio::test(start_paused = true)]
async fn refuses_requests_that_come_too_fast() {
    let Served {
        channel,
        end: _end,
        task: _task,
    } = served(Some(peer())).await;
    let mut client = HealthClient::new(channel);
    let mut codes = Vec::new();
    for _ in 0..OF_PEERS.open_burst + 1 {
        codes.push(
            client
                .check(HealthCheckRequest::default())
                .await
                .err()
                .map(|error| error.code()),
        );
    }
    assert_eq!(codes.pop(), Some(Some(Code::ResourceExhausted)));
    assert!(codes.iter().all(Option::is_none));
    time::advance(Duration::from_secs(1)).await;
    assert!(client.check(HealthCheckRequest::default()).await.is_ok());
}

#[test]
fn spreads_the_age_of_connections_by_a_fifth_each_way() {
    let ages: Vec<Duration> = (0..200).map(|_| age(OF_PEERS.age)).collect();
    let middle = OF_PEERS.age;
    let (least, most) = (middle * 8 / 10, middle * 12 / 10);
    assert!(
        ages.iter().all(|age| (least..=most).contains(age)),
        "{ages:?}"
    );
    assert!(ages.iter().any(|age| *age < middle) && ages.iter().any(|age| *age > middle));
}

/// SDS-S22
#[tokio::test(start_paused = true)]
async fn tolerates_pings_and_silence() {
    let ping = Duration::from_secs(10);
    let endpoint = Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(ping)
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    for endpoint in [endpoint, Endpoint::from_static("http://control-plane")] {
        let Served {
            channel,
            end: _end,
            task,
        } = served_to(Some(peer()), endpoint).await;
        let mut stream = open_stream(&channel).await;
        // less than the least age of a connection
        let silence = time::timeout(Duration::from_secs(20 * 60), stream.message());
        assert!(silence.await.is_err(), "the stream ended");
        assert!(!task.is_finished());
        open_stream(&channel).await;
    }
}

/// SDS-S21
#[tokio::test(start_paused = true)]
async fn one_more_stream_than_a_peer_may_have_waits_until_another_ends() {
    let Served {
        channel,
        end: _end,
        task: _task,
    } = served(Some(peer())).await;
    let mut open = Vec::new();
    for _ in 0..OF_PEERS.streams {
        open.push(open_stream(&channel).await);
    }
    let a_while = Duration::from_secs(5);
    assert!(time::timeout(a_while, open_stream(&channel)).await.is_err());
    open.pop();
    assert!(time::timeout(a_while, open_stream(&channel)).await.is_ok());
}

/// By a token: its place among the strangers goes to another, its connection lives on (SDS-S22).
#[tokio::test(start_paused = true)]
async fn who_proved_itself_by_a_token_lives_as_long_as_a_peer() {
    let (prove, proved) = watch::channel(Standing::Unproved);
    let strangers = Strangers::default();
    let mut stranger = strangers.admit([192, 0, 2, 1].into());
    let (places, mut place) = (Places::new(64), None);
    let opened = Instant::now();
    let proving = async {
        time::sleep(Duration::from_secs(10)).await;
        prove.send_replace(by_token());
    };
    let (grace, ()) = tokio::join!(
        until_old(proved, &mut stranger, &mut place, &places),
        proving
    );
    assert_eq!(grace, OF_PEERS.grace);
    assert!(opened.elapsed() >= OF_PEERS.age * 8 / 10);
    assert!(stranger.is_none() && place.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_proved_itself_too_late_stays_a_stranger() {
    let (prove, proved) = watch::channel(Standing::Unproved);
    let strangers = Strangers::default();
    let mut stranger = strangers.admit([192, 0, 2, 1].into());
    let (places, mut place) = (Places::new(64), None);
    let opened = Instant::now();
    let grace = until_old(proved, &mut stranger, &mut place, &places).await;
    assert_eq!(grace, OF_STRANGERS.grace);
    assert!(opened.elapsed() <= OF_STRANGERS.age * 12 / 10);
    assert!(stranger.is_some() && place.is_none());
    drop(prove);
}

fn by_token() -> Standing {
    Standing::Workload("shop/web".parse().unwrap())
}

/// By one token, or by many: they are counted with the workload's other connections.
#[tokio::test(start_paused = true)]
async fn who_proves_itself_by_a_token_when_its_workload_has_no_place_left_is_closed() {
    let places = Places::new(20_000);
    let workload = "shop/web".parse().unwrap();
    let mut held: Vec<_> = std::iter::from_fn(|| places.of_workload(&workload).ok()).collect();
    for free in [false, true] {
        let (_prove, proved) = watch::channel(by_token());
        let (mut stranger, mut place) = (None, None);
        let opened = Instant::now();
        until_old(proved, &mut stranger, &mut place, &places).await;
        assert_eq!(place.is_some(), free);
        assert_eq!(opened.elapsed() > Duration::from_secs(60), free);
        held.pop();
    }
}

/// Whoever invents tokens asks for little at a time; what a sidecar asks for is one thing.
#[tokio::test(start_paused = true)]
async fn a_stranger_asks_a_handful_of_times() {
    let Served {
        channel,
        end: _end,
        task: _task,
    } = served(None).await;
    let mut client = HealthClient::new(channel);
    for _ in 0..8 {
        assert!(client.check(HealthCheckRequest::default()).await.is_ok());
    }
    let refused = client.check(HealthCheckRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    time::advance(Duration::from_millis(500)).await;
    assert!(client.check(HealthCheckRequest::default()).await.is_ok());
}
