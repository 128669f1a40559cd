use std::{
    net::SocketAddr,
    sync::{
        Mutex as StdMutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::{
    admin::{AdminServer, Pages, health_pages},
    metrics::{Metrics, MetricsPrefix},
    readiness::Readiness,
};

/// Ten times what anything here should take.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than a socket takes of what nobody reads.
const LARGE: usize = 32 * 1024 * 1024;
/// As many as the server has open at a time.
const READERS: usize = 32;

/// A page that counts how often it is made.
struct Counted {
    made: Arc<AtomicUsize>,
    current: Arc<AtomicBool>,
    address: SocketAddr,
}

async fn serve(pages: Pages) -> SocketAddr {
    let metrics = Metrics::new(&MetricsPrefix::default(), 10);
    let any = "127.0.0.1:0".parse().unwrap();
    let server = AdminServer::bind(any, pages, &metrics).await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve());
    address
}

async fn counted(length: usize) -> Counted {
    let (made, current) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let (count, is_current) = (Arc::clone(&made), Arc::clone(&current));
    let page = LargePage::new(move || {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        Page::text(format!("{} {number}", "x".repeat(length)))
    });
    let page = page.shared_while(move || is_current.load(Ordering::SeqCst));
    Counted {
        made,
        current,
        address: serve(Pages::default().with_large("/large", "much", page)).await,
    }
}

impl Counted {
    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Asks, reads where the answer begins, and no more of it.
    async fn read_slowly(&self) -> TcpStream {
        let mut stream = asked(self.address, "/large").await;
        let mut begin = [0; 15];
        let read = timeout(PATIENCE, stream.read_exact(&mut begin)).await;
        read.unwrap().unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        stream
    }
}

async fn asked(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut text)).await;
    read.unwrap().unwrap();
    text
}

async fn healthz(address: SocketAddr) -> String {
    answer(asked(address, "/healthz").await).await
}

#[tokio::test]
async fn slow_readers_share_one_body_and_keep_no_probe_from_its_answer() {
    let page = counted(LARGE).await;
    page.current.store(true, Ordering::SeqCst);
    let health = serve(health_pages(&Readiness::new())).await;
    let mut slow = Vec::new();
    for _ in 0..READERS {
        slow.push(page.read_slowly().await);
    }
    assert_eq!(page.made(), 1);
    assert!(healthz(health).await.ends_with("\r\n\r\nok\n"));
    // whoever reads on gets all of it
    let rest = answer(slow.pop().unwrap()).await;
    assert!(rest.len() > LARGE && rest.ends_with(" 1"));
}

#[tokio::test]
async fn what_changes_all_the_time_is_in_memory_a_few_times_and_nobody_waits_for_slow_readers() {
    let page = counted(LARGE).await;
    let mut slow = Vec::new();
    // few more than bodies: all must be made before the first reader's time is up, under load too
    for _ in 0..MAX_BODIES + 3 {
        slow.push(page.read_slowly().await);
    }
    assert_eq!(page.made(), MAX_BODIES);
    drop(slow);
    // their places are free again, as soon as the server has seen that they are gone
    let made_again = async {
        while page.made() == MAX_BODIES {
            drop(page.read_slowly().await);
        }
    };
    timeout(PATIENCE, made_again).await.unwrap();
}

#[tokio::test]
async fn while_a_page_is_made_probes_are_answered_and_it_is_made_once_for_all_who_wait() {
    let (finish, finished) = mpsc::channel::<()>();
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let finished = StdMutex::new(finished);
    let page = LargePage::new(move || {
        begin.send(()).unwrap();
        finished.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        Page::text("made\n".to_owned())
    });
    let address = serve(Pages::default().with_large("/large", "much", page)).await;
    let health = serve(health_pages(&Readiness::new())).await;
    let first = asked(address, "/large").await;
    timeout(PATIENCE, begun.recv()).await.unwrap().unwrap();
    // whoever asked goes away: still one at a time
    drop(first);
    let waiting = [
        asked(address, "/large").await,
        asked(address, "/large").await,
    ];
    for _ in 0..10 {
        assert!(healthz(health).await.ends_with("\r\n\r\nok\n"));
    }
    assert!(begun.try_recv().is_err());
    (0..3).for_each(|_| finish.send(()).unwrap());
    for waiting in waiting {
        assert!(answer(waiting).await.ends_with("\r\n\r\nmade\n"));
    }
}

#[tokio::test]
async fn what_is_asked_for_later_is_made_later() {
    let page = counted(10).await;
    for number in 1..4 {
        let text = answer(asked(page.address, "/large").await).await;
        assert!(text.ends_with(&format!(" {number}")), "{text}");
    }
}

#[tokio::test]
async fn a_page_that_can_not_be_made_is_an_error_and_the_next_one_is_made() {
    let broken = AtomicBool::new(true);
    let page = LargePage::new(move || {
        assert!(!broken.swap(false, Ordering::SeqCst), "a bug");
        Page::text("made\n".to_owned())
    });
    let address = serve(Pages::default().with_large("/large", "much", page)).await;
    let first = answer(asked(address, "/large").await).await;
    assert!(first.starts_with("HTTP/1.1 503 "), "{first}");
    let next = answer(asked(address, "/large").await).await;
    assert!(next.ends_with("\r\n\r\nmade\n"), "{next}");
}
