use super::*;

/// SDS-S21
#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_one_that_ends_makes_room() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut open = Vec::new();
    for _ in 0..shares::MAX_CONNECTIONS {
        let mut client = running.client().await;
        in_time(client.fetch_secrets(request_for(&["ROOTCA"])))
            .await
            .unwrap();
        open.push(client);
    }
    let mut one_more = UnixStream::connect(running.path()).await.unwrap();
    let ended = in_time(tokio::io::AsyncReadExt::read(&mut one_more, &mut [0; 1])).await;
    assert_eq!(ended.unwrap_or_default(), 0);
    let refused = "workload_socket_refused_total{reason=\"connections\"}";
    assert_eq!(running.metric(refused), 1.0);
    open.pop();
    in_time(async {
        loop {
            let stream = std::os::unix::net::UnixStream::connect(running.path()).unwrap();
            let Ok(channel) = client::channel_over(stream).await else {
                continue;
            };
            let mut client = Client::new(channel);
            if client.fetch_secrets(request_for(&["ROOTCA"])).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

/// SDS-S21, SDS-S23
#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_one_that_ends_makes_room() {
    const PER_CONNECTION: usize = 30;
    let running = Running::with_identity(&Authority::root()).await;
    let mut open = Vec::new();
    let mut clients = Vec::new();
    while open.len() < shares::MAX_REQUESTS {
        let mut client = running.client().await;
        for _ in 0..PER_CONNECTION.min(shares::MAX_REQUESTS - open.len()) {
            open.push(
                in_time(Stream::open(&mut client, &["ROOTCA"]))
                    .await
                    .unwrap(),
            );
        }
        clients.push(client);
    }
    let mut client = running.client().await;
    let one_more = in_time(Stream::open(&mut client, &["ROOTCA"])).await;
    assert_eq!(one_more.err().unwrap().code(), Code::ResourceExhausted);
    let refused = "workload_socket_refused_total{reason=\"streams\"}";
    assert_eq!(running.metric(refused), 1.0);
    // those that are open are served all the same
    assert_eq!(names(&open.last_mut().unwrap().next().await), ["ROOTCA"]);
    open.pop();
    #[expect(clippy::cast_precision_loss, reason = "a hundred")]
    let one_less = (shares::MAX_REQUESTS - 1) as f64;
    running
        .until_metric("workload_socket_streams", one_less)
        .await;
    in_time(Stream::open(&mut client, &["ROOTCA"]))
        .await
        .unwrap();
}

/// SDS-S21, SDS-S23
#[tokio::test]
async fn a_client_that_asks_without_pause_is_told_to_back_off() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut client = running.client().await;
    let refused = in_time(async {
        loop {
            if let Err(status) = client.fetch_secrets(request_for(&["ROOTCA"])).await {
                return status;
            }
        }
    })
    .await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    // another connection is not held up
    let mut other = running.client().await;
    in_time(other.fetch_secrets(request_for(&["ROOTCA"])))
        .await
        .unwrap();
}

/// SDS-S21
#[tokio::test]
async fn a_request_larger_than_any_client_s_is_refused_before_it_is_read_on() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut client = running.client().await;
    let mut request = request_for(&["ROOTCA"]);
    request.node.as_mut().unwrap().id = "n".repeat(MAX_MESSAGE);
    let mut stream = in_time(Stream::open(&mut client, &["ROOTCA"]))
        .await
        .unwrap();
    stream.ask(request.clone()).await;
    stream.next().await;
    assert_eq!(stream.ended().await.code(), Code::OutOfRange);
    let status = in_time(client.fetch_secrets(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    // what Envoy says of itself is less
    let mut request = request_for(&["ROOTCA"]);
    request.node.as_mut().unwrap().id = "n".repeat(64 * 1024);
    in_time(client.fetch_secrets(request)).await.unwrap();
}

/// Time passes while nothing happens.
async fn let_pass(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}

/// SDS-S21
#[tokio::test]
async fn a_connection_without_a_stream_is_closed_and_one_with_a_stream_is_not() {
    use tokio::io::AsyncReadExt;
    let root = Authority::root();
    let running = Running::with_identity(&root).await;
    let mut stream = running.stream(&["default"]).await;
    stream.next().await;
    let mut silent = UnixStream::connect(running.path()).await.unwrap();
    // its settings: it was accepted
    in_time(silent.read_exact(&mut [0; 9])).await.unwrap();
    let_pass(connection::IDLE * 2).await;
    let mut last_words = Vec::new();
    let _ = in_time(silent.read_to_end(&mut last_words)).await;
    running.publish(&root.identity(WEB));
    assert_eq!(names(&stream.next().await), ["default"]);
}

/// SDS-S21
#[tokio::test]
async fn a_connection_whose_last_stream_has_ended_is_closed() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut clients = Vec::new();
    for _ in 0..shares::MAX_CONNECTIONS {
        let mut client = running.client().await;
        drop(in_time(Stream::open(&mut client, &["ROOTCA"])).await);
        clients.push(client);
    }
    running.until_metric("workload_socket_streams", 0.0).await;
    // each turn lets the connections notice that another span without a stream has passed
    for _ in 0..100 {
        let_pass(connection::IDLE).await;
        let stream = std::os::unix::net::UnixStream::connect(running.path()).unwrap();
        let Ok(channel) = client::channel_over(stream).await else {
            continue;
        };
        let request = request_for(&["ROOTCA"]);
        if in_time(Client::new(channel).fetch_secrets(request))
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("no place was given back");
}
