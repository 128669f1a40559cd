use super::*;

/// SDS-S21
#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_one_that_ends_makes_room() {
    let running = Running::with_identity(&Authority::root()).await;
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
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
    const PER_CONNECTION: usize = 200;
    let running = Running::with_identity(&Authority::root()).await;
    let mut open = Vec::new();
    let mut clients = Vec::new();
    while open.len() < sds::MAX_STREAMS {
        let mut client = running.client().await;
        for _ in 0..PER_CONNECTION.min(sds::MAX_STREAMS - open.len()) {
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
    #[expect(clippy::cast_precision_loss, reason = "a thousand")]
    let one_less = (sds::MAX_STREAMS - 1) as f64;
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
