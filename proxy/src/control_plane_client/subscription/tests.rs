use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::transport::Endpoint;

use super::*;

/// A stream that the control plane never opens.
struct Refused {
    attempts: Arc<AtomicUsize>,
    reasons: mpsc::UnboundedSender<String>,
    requests: usize,
}

impl Subscription for Refused {
    type Request = ();
    type Response = ();

    async fn open(
        _: Channel,
        mut requests: Request<ReceiverStream<()>>,
    ) -> Result<Response<Streaming<()>>, Status> {
        requests.get_mut().close();
        Err(Status::permission_denied("not you"))
    }

    fn first_requests(&mut self) -> Vec<()> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        vec![(); self.requests]
    }

    fn received(&mut self, (): ()) -> Vec<()> {
        Vec::new()
    }

    async fn next_requests(&mut self) -> Vec<()> {
        std::future::pending().await
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self, reason: &str) {
        let _ = self.reasons.send(reason.to_owned());
    }
}

struct Kept {
    channels: watch::Sender<Option<Channel>>,
    attempts: Arc<AtomicUsize>,
    reasons: mpsc::UnboundedReceiver<String>,
}

fn keep(requests: usize) -> (Kept, impl Future<Output = ()>) {
    let (channels, receiver) = watch::channel(None);
    let (sender, reasons) = mpsc::unbounded_channel();
    let attempts = Arc::new(AtomicUsize::new(0));
    let refused = Refused {
        attempts: Arc::clone(&attempts),
        reasons: sender,
        requests,
    };
    let kept = Kept {
        channels,
        attempts,
        reasons,
    };
    let way = Way {
        channels: receiver,
        token: None,
    };
    (kept, keep_open(refused, way, BackOff::new("pod")))
}

fn channel() -> Option<Channel> {
    Some(Endpoint::from_static("http://127.0.0.1:1").connect_lazy())
}

impl Kept {
    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::Relaxed)
    }

    /// Lets time pass, and the stream's keeper with it.
    async fn pass(time: Duration) {
        tokio::time::sleep(time).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_channel_nothing_is_tried() {
    let (kept, keeper) = keep(1);
    tokio::spawn(keeper);
    Kept::pass(Duration::from_secs(600)).await;
    assert_eq!(kept.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_refuses_is_not_hammered() {
    let (mut kept, keeper) = keep(1);
    tokio::spawn(keeper);
    kept.channels.send_replace(channel());
    Kept::pass(Duration::from_secs(600)).await;
    // 0.5, 1, 2 … 32 s, then a minute each, less what jitter takes off
    assert!((12..=30).contains(&kept.attempts()), "{}", kept.attempts());
    assert_eq!(kept.reasons.recv().await.unwrap(), "not you");
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_is_tried_at_once() {
    let (kept, keeper) = keep(1);
    tokio::spawn(keeper);
    kept.channels.send_replace(channel());
    Kept::pass(Duration::from_secs(600)).await;
    let before = kept.attempts();
    kept.channels.send_replace(channel());
    Kept::pass(Duration::from_millis(1)).await;
    assert_eq!(kept.attempts(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn more_first_requests_than_a_stream_holds_are_an_error_and_not_a_loss() {
    let (mut kept, keeper) = keep(QUEUED_REQUESTS + 1);
    tokio::spawn(keeper);
    kept.channels.send_replace(channel());
    assert!(kept.reasons.recv().await.unwrap().contains("too much"));
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_no_channel_can_come_any_more() {
    let (kept, keeper) = keep(1);
    let keeper = tokio::spawn(keeper);
    kept.channels.send_replace(channel());
    Kept::pass(Duration::from_millis(1)).await;
    drop(kept.channels);
    keeper.await.unwrap();
}
