use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    metrics::{Metrics, MetricsPrefix},
    readiness::{Part, Readiness},
};

/// Ten times what anything here should take.
const PATIENCE: Duration = Duration::from_secs(60);

fn metrics() -> Metrics {
    Metrics::new(&MetricsPrefix::default(), 10)
}

async fn serving(pages: Pages) -> SocketAddr {
    start(
        AdminServer::bind("127.0.0.1:0".parse().unwrap(), pages, &metrics())
            .await
            .unwrap(),
    )
}

fn start(server: AdminServer) -> SocketAddr {
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve());
    address
}

/// Sends `request` and reads all that comes back.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // a server that refuses may close before it has read all
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("an answer or an end in time");
    String::from_utf8(answer).unwrap()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn hello() -> Pages {
    Pages::default().with("/hello", "says hello", || Page::text("hello\n".to_owned()))
}

#[tokio::test]
async fn answers_a_page_and_closes() {
    let answer = ask(serving(hello()).await, &get("/hello")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello\n"), "{answer}");
}

#[tokio::test]
async fn refuses_every_method_that_might_change_something() {
    let address = serving(hello()).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"] {
        let request = format!("{method} /hello HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = ask(address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
        assert!(answer.contains("allow: GET\r\n"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn refuses_a_request_with_a_body() {
    let address = serving(hello()).await;
    let request = "GET /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n123456789";
    assert!(ask(address, request).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn knows_only_the_pages_it_has() {
    let address = serving(hello()).await;
    for path in ["/", "/hello/", "/HELLO", "/../hello", "/identity/key"] {
        assert!(
            ask(address, &get(path)).await.starts_with("HTTP/1.1 404 "),
            "{path}"
        );
    }
}

#[tokio::test]
async fn refuses_headers_beyond_the_limit() {
    let address = serving(hello()).await;
    let padding = "x".repeat(64 * 1024);
    let long = format!("GET /hello HTTP/1.1\r\nHost: localhost\r\nX: {padding}\r\n\r\n");
    let answer = ask(address, &long).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let many = "X: y\r\n".repeat(100);
    let answer = ask(
        address,
        &format!("GET /hello HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
    )
    .await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn what_is_not_http_gets_no_page() {
    let address = serving(hello()).await;
    let answer = ask(address, "\u{16}\u{3}\u{1}\u{2}\r\n\r\n").await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_ends_its_header_is_cut() {
    let address = serving(hello()).await;
    let answer = ask(address, "GET /hello HTTP/1.1\r\nHost: loc").await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn holding_every_connection_open_keeps_no_probe_from_its_answer() {
    let address = serving(hello()).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(b"GET /hel").await;
        held.push(stream);
    }
    assert!(ask(address, &get("/hello")).await.contains("200 OK"));
    // the first of them was ended for it, long before its time was over
    let mut end = Vec::new();
    let _ = timeout(PATIENCE, held[0].read_to_end(&mut end))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_loopback_server_refuses_to_be_anywhere_else() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:10.0.0.1]:0"] {
        let bound = AdminServer::bind_loopback(address.parse().unwrap(), hello(), &metrics()).await;
        assert!(matches!(bound, Err(BindError::NotLoopback(_))), "{address}");
    }
}

#[tokio::test]
async fn the_loopback_server_answers_no_web_page_that_was_pointed_at_it() {
    let bound = "127.0.0.1:0".parse().unwrap();
    let server = AdminServer::bind_loopback(bound, hello(), &metrics())
        .await
        .unwrap();
    let address = start(server);
    let asked =
        async |host: &str| ask(address, &format!("GET /hello HTTP/1.1\r\n{host}\r\n")).await;
    for good in [
        "localhost",
        "localhost:15000",
        "127.0.0.1:15000",
        "127.0.0.2",
        "[::1]:15000",
    ] {
        let answer = asked(&format!("Host: {good}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{good}: {answer}");
    }
    for bad in [
        "Host: evil.example\r\n",
        "Host: localhost.evil.example\r\n",
        "Host: 10.0.0.1\r\n",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: user@\r\n",
        "",
    ] {
        let answer = asked(bad).await;
        assert!(!answer.starts_with("HTTP/1.1 200 "), "{bad}: {answer}");
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_names_it() {
    let taken = serving(hello()).await;
    let error = AdminServer::bind(taken, hello(), &metrics())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&taken.to_string()), "{error}");
}

#[tokio::test]
async fn readyz_is_503_with_the_reason_until_all_is_ready() {
    let readiness = Readiness::new();
    let svid = readiness.block(Part::Svid);
    let address = serving(health_pages(&readiness)).await;
    let before = ask(address, &get("/readyz")).await;
    assert!(before.starts_with("HTTP/1.1 503 "), "{before}");
    assert!(before.contains("- svid: no certificate yet"), "{before}");
    assert!(ask(address, &get("/healthz")).await.contains("200 OK"));
    svid.ready();
    assert!(
        ask(address, &get("/readyz"))
            .await
            .ends_with("\r\n\r\nready\n")
    );
}

#[tokio::test]
async fn metrics_come_as_openmetrics() {
    let metrics = metrics();
    let pages = Pages::default().with("/metrics", "for Prometheus", move || {
        Page::metrics(metrics.encode(std::time::SystemTime::UNIX_EPOCH))
    });
    let answer = ask(serving(pages).await, &get("/metrics")).await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_contents_list_every_page() {
    let answer = ask(serving(hello().with_contents()).await, &get("/")).await;
    assert!(answer.contains("/hello           says hello\n"), "{answer}");
}
