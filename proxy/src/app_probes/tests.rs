use std::{
    num::NonZeroU16,
    sync::atomic::{AtomicUsize, Ordering},
};

use mesh_lite_proto::{
    app_probes::{GrpcProbe, HttpProbe, ProbeKind, Scheme},
    wire::mesh_lite::v1 as wire,
    workload_directory::Endpoint,
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::*;
use crate::{
    control::status::{ControlPart, ControlStatus, Reporter},
    directory::DirectoryWatch,
    metrics::{Metrics, MetricsPrefix},
};

mod applications;
mod hooks;

use applications::{Application, certificate};

/// The pod's own, as the downward API says; the directory has no answer for it.
const NODE: [u8; 4] = [10, 0, 0, 1];

fn unmeshed(address: [u8; 4], namespace: &str, name: &str) -> Answer {
    Answer::Endpoint(Endpoint {
        address: address.into(),
        meshed: None,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        healthy: true,
        ports: Vec::new(),
    })
}

/// Has these answers. For everybody else it has none, as when the control plane is away.
fn directory(answers: &[([u8; 4], Answer)]) -> Directory {
    let answers = answers.iter();
    let saved = wire::DirectoryResponse {
        answers: answers
            .map(|(address, answer)| answer.to_wire(&Name::Address((*address).into())))
            .collect(),
        ..Default::default()
    };
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    let reporter = Reporter::new(&status, ControlPart::Directory, &metrics, crate::clock::now);
    DirectoryWatch::new(Some(&saved), reporter, metrics).1
}

fn name(kind: ProbeKind) -> ProbeName {
    ProbeName::new("web", kind).unwrap()
}

fn prober(kind: ProbeKind, action: ProbeAction) -> AppProber {
    let probe = AppProbe {
        action,
        timeout: NonZeroU16::MIN,
        original: serde_json::Value::Null,
    };
    let mut probes = AppProbes::default();
    probes.insert(name(kind), probe).unwrap();
    let node = "10.0.0.1,fd77::1".parse().unwrap();
    AppProber::new(&probes, Listening::OnThePod, node, directory(&[]))
}

fn port(application: SocketAddr) -> ProbePort {
    ProbePort::new(application.port()).unwrap()
}

fn get(scheme: Scheme, application: SocketAddr, path: &str) -> ProbeAction {
    let headers = [
        ("X-Probe", "1"),
        ("Content-Length", "5"),
        ("Host", "shop.test"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    HttpProbe::new(scheme, port(application), path, headers.to_vec())
        .map(ProbeAction::Http)
        .unwrap()
}

fn asked(by: [u8; 4]) -> Asked {
    Asked {
        at: "127.0.0.1:15021".parse().unwrap(),
        by: (by, 40000).into(),
    }
}

async fn ask(prober: &AppProber, kind: ProbeKind) -> Result<Outcome, NotAsked> {
    prober.ask(&name(kind).to_string(), asked(NODE)).await
}

/// The status of a readiness probe with this action.
async fn status(action: ProbeAction) -> u16 {
    let prober = prober(ProbeKind::Readiness, action);
    let outcome = ask(&prober, ProbeKind::Readiness).await.unwrap();
    assert!(outcome.words.contains("127.0.0.1:"), "{}", outcome.words);
    outcome.status.as_u16()
}

async fn http_status(answer: &'static str) -> u16 {
    let application = Application::answering(answer).await;
    status(get(Scheme::Http, application.address, "/ready?full=1")).await
}

#[tokio::test]
async fn statuses_are_judged_as_the_kubelet_does() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 204 No Content\r\n\r\n", 200),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
        ("HTTP/1.1 399 Odd\r\nContent-Length: 0\r\n\r\n", 200),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", 200),
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", 400),
        (
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            503,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\ncut", 502),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ncut",
            502,
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", 502),
        ("", 502),
    ] {
        assert_eq!(http_status(answer).await, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_long_body_is_not_waited_for() {
    let body = "x".repeat(20_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n{body}");
    assert_eq!(http_status(answer.leak()).await, 200);
}

#[tokio::test]
async fn the_application_sees_the_kubelets_request() {
    let mut application = Application::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(
        status(get(Scheme::Http, application.address, "/ready?full=1")).await,
        200
    );
    let request = application.request().await;
    assert!(
        request.starts_with("GET /ready?full=1 HTTP/1.1\r\n"),
        "{request}"
    );
    for line in [
        "x-probe: 1",
        "host: shop.test",
        "accept: */*",
        "connection: close",
        "user-agent: kube-probe/mesh-lite",
    ] {
        assert!(
            request.contains(&format!("{line}\r\n")),
            "{line} in {request}"
        );
    }
    assert!(!request.contains("content-length"), "{request}");
}

#[tokio::test]
async fn redirects_to_the_same_host_are_followed_and_never_to_the_sidecar() {
    let end = Application::answering("HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n").await;
    for (location, expected) in [
        (format!("http://{}/there", end.address), 418),
        (format!("//{}/there", end.address), 418),
        (
            "http://127.0.0.1:15021/app-probes/web/readiness".to_owned(),
            502,
        ),
        ("ftp://127.0.0.1/".to_owned(), 502),
        ("http://127.0.0.2/".to_owned(), 200),
        ("/again".to_owned(), 502),
    ] {
        let answer =
            format!("HTTP/1.1 307 There\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(http_status(answer.leak()).await, expected, "{location}");
    }
}

#[tokio::test]
async fn a_relative_redirect_leads_beside_what_was_asked() {
    for (location, expected) in [
        ("/b?c", "GET /b?c "),
        ("b#top", "GET /folder/b "),
        ("?page=2", "GET /folder/a?page=2 "),
    ] {
        let answer =
            format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let mut application = Application::answering(answer.leak()).await;
        status(get(Scheme::Http, application.address, "/folder/a?page=1")).await;
        assert!(
            application
                .request()
                .await
                .starts_with("GET /folder/a?page=1 ")
        );
        let second = application.request().await;
        assert!(second.starts_with(expected), "{second}");
    }
}

#[tokio::test]
async fn https_asks_whoever_answers_and_plaintext_is_no_https() {
    let application = Application::with_tls(certificate(), "HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(
        status(get(Scheme::Https, application.address, "/")).await,
        200
    );
    assert_eq!(
        status(get(Scheme::Http, application.address, "/")).await,
        502
    );
    let plain = Application::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    // it waits for the end of what it takes for a header
    assert_eq!(status(get(Scheme::Https, plain.address, "/")).await, 504);
}

#[tokio::test]
async fn a_tcp_probe_is_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(status(ProbeAction::Tcp(port(address))).await, 200);
    let (mut accepted, _) = listener.accept().await.unwrap();
    // a clean end, no reset that an application would complain about
    assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 0);
    drop(listener);
    assert_eq!(status(ProbeAction::Tcp(port(address))).await, 502);
}

#[tokio::test]
async fn a_grpc_probe_is_good_only_if_serving() {
    for (service, expected) in [("", 200), ("shop.v1.Cart", 503), ("unknown", 502)] {
        let address = applications::grpc_health().await;
        let probe = GrpcProbe::new(port(address), service).unwrap();
        assert_eq!(
            status(ProbeAction::Grpc(probe)).await,
            expected,
            "{service}"
        );
    }
    let other = Application::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let probe = GrpcProbe::new(port(other.address), "").unwrap();
    assert_eq!(status(ProbeAction::Grpc(probe)).await, 502);
}

#[tokio::test]
async fn an_application_that_does_not_answer_in_time_has_failed() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    for action in [
        get(Scheme::Http, address, "/"),
        get(Scheme::Https, address, "/"),
        ProbeAction::Grpc(GrpcProbe::new(port(address), "").unwrap()),
    ] {
        assert_eq!(status(action).await, 504);
    }
}

/// A listener that counts what it accepts and keeps it open.
async fn counting() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        let mut open: Vec<TcpStream> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    (address, accepted)
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_try() {
    let (address, accepted) = counting().await;
    let prober = prober(ProbeKind::Liveness, get(Scheme::Http, address, "/"));
    let all = (0..100).map(|_| ask(&prober, ProbeKind::Liveness));
    for outcome in futures::future::join_all(all).await {
        assert_eq!(outcome.unwrap().status, 504);
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn whoever_comes_and_goes_can_neither_flood_the_application_nor_put_off_the_kubelet() {
    let (address, accepted) = counting().await;
    let prober = prober(ProbeKind::Liveness, get(Scheme::Http, address, "/"));
    let begun = Instant::now();
    for _ in 0..1000 {
        // polled once, then gone
        let _ = ask(&prober, ProbeKind::Liveness).now_or_never();
        tokio::task::yield_now().await;
    }
    let tries = begun.elapsed().as_millis() / MIN_INTERVAL.as_millis() + 1;
    assert!(accepted.load(Ordering::SeqCst) as u128 <= tries);
    let slot = prober.probes.values().next().unwrap();
    let begins = slot.tries.lock().unwrap().values().next().unwrap().begins;
    assert!(begins <= Instant::now() + MIN_INTERVAL);
}

#[test]
fn a_turn_that_nobody_took_is_the_next_ones() {
    let now = Instant::now();
    let later = now + MIN_INTERVAL / 2;
    assert_eq!(next(later, now), later);
    assert_eq!(next(now, now), now + MIN_INTERVAL);
    assert_eq!(next(now, now + MIN_INTERVAL * 9), now + MIN_INTERVAL * 9);
}

#[tokio::test]
async fn addresses_of_the_pod_are_asked_apart_and_only_so_many() {
    let (address, _) = counting().await;
    let prober = prober(ProbeKind::Liveness, get(Scheme::Http, address, "/"));
    let path = name(ProbeKind::Liveness).to_string();
    let at = |last: u8| Asked {
        at: ([127, 0, 0, last], 15021).into(),
        by: (NODE, 1).into(),
    };
    let asking: Vec<_> = (1..=9).map(|last| prober.ask(&path, at(last))).collect();
    let outcomes = futures::future::join_all(asking).await;
    let busy = outcomes
        .iter()
        .filter(|outcome| **outcome == Err(NotAsked::Busy));
    assert_eq!(busy.count(), 1);
    // those at which nothing listens failed at once, the first is still asked alone
    assert_eq!(outcomes[0].as_ref().unwrap().status, 504);
    assert_eq!(outcomes[1].as_ref().unwrap().status, 502);
}

#[tokio::test]
async fn only_probes_of_the_table_are_asked() {
    let (address, accepted) = counting().await;
    let prober = prober(ProbeKind::Liveness, get(Scheme::Http, address, "/"));
    for path in [
        "/app-probes/web/readiness",
        "/app-probes/db/liveness",
        "/app-probes/",
        "/",
    ] {
        assert_eq!(prober.ask(path, asked(NODE)).await, Err(NotAsked::Unknown));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn explicit_capture_asks_on_loopback_wherever_the_request_came() {
    let application = Application::answering("HTTP/1.1 200 OK\r\n\r\n").await;
    let mut prober = prober(
        ProbeKind::Startup,
        get(Scheme::Http, application.address, "/"),
    );
    let path = name(ProbeKind::Startup).to_string();
    let at = Asked {
        at: ([127, 0, 0, 7], 15021).into(),
        by: (NODE, 1).into(),
    };
    assert_eq!(prober.ask(&path, at).await.unwrap().status, 502);
    prober.listening = Listening::OnLoopback;
    assert_eq!(prober.ask(&path, at).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_an_application_says_is_one_bounded_line() {
    let words = one_line(&"a\r\n\x1b[31m".repeat(500));
    assert_eq!(words.chars().count(), MAX_WORDS);
    assert!(!words.chars().any(char::is_control));
}
