//! Live connections through the sidecars: opened, asked whether they live, watched as they end.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};

/// Handshakes in flight; a sidecar takes so many strangers of one address.
const AT_ONCE: usize = 16;
/// Thirty times the aim.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts while a document is on its way.
const AGAIN: Duration = Duration::from_millis(50);

/// Connections that have all been through to the application and back; every address of `to`
/// gets its share.
pub(crate) async fn open(to: &[SocketAddr], count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for address in to.iter().copied().cycle().take(count) {
        let room = Arc::clone(&room);
        tasks.spawn(async move {
            let _turn = room.acquire().await?;
            call(address).await
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn call(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    echo(&mut stream).await?;
    Ok(stream)
}

async fn echo(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; 4];
    timeout(PATIENCE, async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await
    })
    .await??;
    ensure!(&answer == b"ping", "echoed {answer:?}");
    Ok(())
}

/// # Errors
/// If any of them has ended or says something else.
pub(crate) async fn all_live(connections: &mut [TcpStream]) -> anyhow::Result<()> {
    let count = connections.len();
    for (number, stream) in connections.iter_mut().enumerate() {
        echo(stream)
            .await
            .with_context(|| format!("connection {number} of {count} was touched"))?;
    }
    Ok(())
}

/// A connection once it is allowed again.
pub(crate) async fn call_until_allowed(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let allowed = async {
        loop {
            match call(to).await {
                Ok(stream) => return stream,
                Err(_) => sleep(AGAIN).await,
            }
        }
    };
    timeout(PATIENCE, allowed)
        .await
        .context("not allowed again")
}

/// Waits for a connection's reset; anything else is an error.
pub(crate) fn watch(mut stream: TcpStream) -> JoinHandle<anyhow::Result<Instant>> {
    tokio::spawn(async move {
        match stream.read_u8().await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Instant::now()),
            other => bail!("neither alive nor reset: {other:?}"),
        }
    })
}

/// How long after `written` each of them was reset.
pub(crate) async fn resets(
    watched: Vec<JoinHandle<anyhow::Result<Instant>>>,
    written: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(watched.len());
    for end in watched {
        let end = timeout(PATIENCE, end)
            .await
            .context("a connection lives on")???;
        times.push(end.duration_since(written));
    }
    Ok(times)
}
