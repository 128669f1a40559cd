//! The wire between two sidecars: passes every byte on and remembers what it saw.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Enough for the first connections whole; the rotation's traffic is passed on unremembered.
const REMEMBERED: usize = 64 * 1024;

/// What passed in each direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

#[derive(Clone, Default)]
pub(super) struct Wire(Arc<Mutex<Seen>>);

impl Wire {
    pub(super) async fn between(listen: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let wire = Self::default();
        let listener = TcpListener::bind(listen).await?;
        let accepting = wire.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().pass(client, server));
            }
        });
        Ok(wire)
    }

    pub(super) fn seen(&self) -> Seen {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn pass(self, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect(server).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::join!(
            self.pass_half(from_client, to_server, |seen| &mut seen.to_server),
            self.pass_half(from_server, to_client, |seen| &mut seen.to_client),
        );
    }

    async fn pass_half(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        direction: fn(&mut Seen) -> &mut Vec<u8>,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length) = from.read(&mut buffer).await {
            let bytes = buffer.get(..length).unwrap_or_default();
            self.remember(bytes, direction);
            if bytes.is_empty() || to.write_all(bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn remember(&self, bytes: &[u8], direction: fn(&mut Seen) -> &mut Vec<u8>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = direction(&mut seen);
        let room = REMEMBERED.saturating_sub(remembered.len());
        remembered.extend(bytes.iter().take(room));
    }
}

impl Seen {
    pub(super) fn contains(&self, text: &str) -> bool {
        [&self.to_server, &self.to_client].iter().any(|bytes| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    }

    /// Whether the server's first message chooses TLS 1.3 (RFC 8446 §4.2.1).
    pub(super) fn is_tls13(&self) -> bool {
        const SUPPORTED_VERSIONS_TLS13: [u8; 6] = [0, 0x2b, 0, 2, 3, 4];
        self.to_client.first() == Some(&0x16)
            && self
                .to_client
                .windows(SUPPORTED_VERSIONS_TLS13.len())
                .any(|window| window == SUPPORTED_VERSIONS_TLS13)
    }

    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (arrow, bytes) in [
            ("web -> api", &self.to_server),
            ("api -> web", &self.to_client),
        ] {
            lines.push(format!(
                "{arrow}  {} bytes: {}",
                bytes.len(),
                records(bytes).join(", ")
            ));
            let hex: Vec<_> = bytes
                .iter()
                .take(24)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            lines.push(format!("            {} …", hex.join(" ")));
        }
        lines
    }
}

/// The first records by type (RFC 8446 §5.1).
fn records(mut bytes: &[u8]) -> Vec<String> {
    const SHOWN: usize = 6;
    let mut names = Vec::new();
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        names.push(match kind {
            0x14 => "change cipher spec".to_owned(),
            0x15 => "alert".to_owned(),
            0x16 => format!("handshake {length}"),
            0x17 => format!("encrypted {length}"),
            other => format!("not TLS ({other:#04x})"),
        });
        if names.len() == SHOWN {
            names.push("…".to_owned());
            break;
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    names
}
