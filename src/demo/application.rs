//! The applications: plaintext HTTP/1.1 as simple as it gets. They know nothing of the mesh.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

/// A call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two calls of the traffic: about 100 a second on each of the two ways.
const PAUSE: Duration = Duration::from_millis(10);

/// Answers every request; counts those that say they come from guest.
pub(super) struct Server {
    guests: Arc<AtomicUsize>,
}

impl Server {
    pub(super) async fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let guests = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&guests);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, Arc::clone(&counting)));
            }
        });
        Ok(Self { guests })
    }

    pub(super) fn guests(&self) -> usize {
        self.guests.load(Ordering::Relaxed)
    }
}

async fn answer(socket: TcpStream, connections: Arc<AtomicUsize>) -> io::Result<()> {
    let mut socket = BufReader::new(socket);
    let mut line = String::new();
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        if line.to_ascii_lowercase().starts_with("user-agent: guest") {
            connections.fetch_add(1, Ordering::Relaxed);
        }
        if line == "\r\n" {
            let body = "api says hello\n";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            socket.write_all(format!("{head}{body}").as_bytes()).await?;
        }
    }
}

/// What a caller saw.
#[derive(Debug)]
pub(super) enum Call {
    Answered(String),
    /// The connection was reset: never a short clean end.
    Reset(String),
    Other(String),
}

pub(super) async fn call(address: SocketAddr, name: &str, marker: &str) -> Call {
    let asked = async {
        let mut client = Client::connect(address).await?;
        client.ask(name, marker).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(body)) => Call::Answered(body),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
            Call::Reset(error.to_string().to_lowercase())
        }
        Ok(Err(error)) => Call::Other(error.to_string()),
        Err(_) => Call::Other(format!("no answer within {PATIENCE:?}")),
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::new(socket)))
    }

    async fn ask(&mut self, name: &str, marker: &str) -> io::Result<String> {
        let request = format!(
            "GET /?recipe={marker} HTTP/1.1\r\nhost: api.shop\r\nuser-agent: {name}\r\n\r\n"
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim_end().parse().map_err(io::Error::other)?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        String::from_utf8(body).map_err(io::Error::other)
    }
}

/// Calls without a pause worth the name, on new connections and on one that stays open.
pub(super) struct Traffic {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Counts>>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: usize,
    pub(super) requests: usize,
    pub(super) failures: Vec<String>,
}

impl Traffic {
    pub(super) async fn start(address: SocketAddr, marker: &'static str) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let open = Client::connect(address).await?;
        let tasks = vec![
            tokio::spawn(new_connections(address, marker, stopped.clone())),
            tokio::spawn(one_connection(open, marker, stopped)),
        ];
        Ok(Self { stop, tasks })
    }

    pub(super) async fn stop(self) -> Counts {
        self.stop.send_replace(true);
        let mut all = Counts::default();
        for task in self.tasks {
            match task.await {
                Ok(counts) => {
                    all.connections += counts.connections;
                    all.requests += counts.requests;
                    all.failures.extend(counts.failures);
                }
                Err(error) => all.failures.push(error.to_string()),
            }
        }
        all
    }
}

async fn new_connections(
    address: SocketAddr,
    marker: &str,
    stopped: watch::Receiver<bool>,
) -> Counts {
    let mut counts = Counts::default();
    while !*stopped.borrow() {
        match call(address, "web", marker).await {
            Call::Answered(_) => counts.connections += 1,
            Call::Reset(error) | Call::Other(error) => counts.failures.push(error),
        }
        sleep(PAUSE).await;
    }
    counts
}

async fn one_connection(
    mut client: Client,
    marker: &str,
    stopped: watch::Receiver<bool>,
) -> Counts {
    let mut counts = Counts::default();
    while !*stopped.borrow() {
        match timeout(PATIENCE, client.ask("web", marker)).await {
            Ok(Ok(_)) => counts.requests += 1,
            Ok(Err(error)) => {
                counts
                    .failures
                    .push(format!("the open connection: {error}"));
                break;
            }
            Err(_) => {
                counts
                    .failures
                    .push("the open connection: no answer in time".to_owned());
                break;
            }
        }
        sleep(PAUSE).await;
    }
    counts
}
