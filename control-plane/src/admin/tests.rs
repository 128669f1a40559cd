use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn admin() -> (Admin, watch::Sender<Ending>) {
    let (end, ending) = watch::channel(Ending::NotYet);
    (
        Admin {
            metrics: Metrics::new(),
            conditions: Conditions::new(),
            serves: watch::Sender::new(true).subscribe(),
            ending,
        },
        end,
    )
}

async fn body(response: Response<Full<Bytes>>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn only_reads() {
    let (admin, _end) = admin();
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(
            admin.answer(&method, "/metrics").status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
    assert_eq!(
        admin.answer(&Method::GET, "/").status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn says_what_is_wrong_and_serves_on() {
    let (admin, _end) = admin();
    admin.conditions.set(
        Part::Documents,
        vec!["first".to_owned(), "second".to_owned()],
    );
    let answer = admin.answer(&Method::GET, "/readyz");
    assert_eq!(answer.status(), StatusCode::OK);
    let text = body(answer).await;
    assert_eq!(
        text,
        "serving, with 2 problems:\ndocuments: first\ndocuments: second\n"
    );
    admin.conditions.set(Part::Documents, Vec::new());
    assert_eq!(body(admin.answer(&Method::GET, "/readyz")).await, "ok\n");
}

#[tokio::test]
async fn is_not_ready_while_it_ends() {
    let (admin, end) = admin();
    end.send_replace(Ending::Now);
    assert_eq!(
        admin.answer(&Method::GET, "/readyz").status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        admin.answer(&Method::GET, "/healthz").status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn is_not_ready_before_it_serves() {
    let (mut admin, _end) = admin();
    admin.serves = watch::Sender::new(false).subscribe();
    let problem = vec!["no answer".to_owned()];
    admin.conditions.set(Part::Documents, problem);
    let answer = admin.answer(&Method::GET, "/readyz");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let text = body(answer).await;
    assert!(text.contains("documents: no answer"), "{text}");
}

#[tokio::test]
async fn the_kubelet_is_answered_while_somebody_holds_all_connections() {
    let (admin, _end) = admin();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(admin.run(socket));
    let mut silent = Vec::new();
    for _ in 0..=MAX_CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let mut kubelet = TcpStream::connect(address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    kubelet.write_all(request).await.unwrap();
    let mut answer = String::new();
    kubelet.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
