//! Asks a sidecar's admin server for its page `/identity`.

use std::{io, net::SocketAddr, time::Duration};

use mesh_lite_proxy::identity::report::IdentityReport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// From the first packet to the last byte; a sidecar needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// The page has about 2 KB. Whatever else listens there is not read to its end.
const MAX_ANSWER: u64 = 256 * 1024;

/// # Errors
/// If nobody answers there, or what answers is not a sidecar of this version.
pub(super) fn identity(admin: SocketAddr) -> Result<IdentityReport, NoReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NoReport::Reach { admin, source })?;
    let answer = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, get(admin)).await })
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| NoReport::Reach { admin, source })?;
    report_in(&answer).ok_or(NoReport::NotASidecar { admin })
}

async fn get(admin: SocketAddr) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(admin).await?;
    // the sidecar answers only those who ask for loopback
    let request = "GET /identity HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn report_in(answer: &[u8]) -> Option<IdentityReport> {
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let ok = head.split(' ').nth(1) == Some("200");
    ok.then(|| serde_json::from_str(body).ok())?
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NoReport {
    #[error(
        "no sidecar answers at {admin}: {source}. Is it running on this machine, or its admin port \
         forwarded here? --admin names another address"
    )]
    Reach {
        admin: SocketAddr,
        source: io::Error,
    },
    #[error(
        "what answers at {admin} is not the admin server of a sidecar of this version; --admin names \
         another address"
    )]
    NotASidecar { admin: SocketAddr },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_report_is_none() {
        for answer in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{\"identity\": null}",
            "HTTP/1.1 404 Not Found\r\n\r\nno such page",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert_eq!(report_in(answer.as_bytes()), None, "{answer:?}");
        }
        assert_eq!(report_in(b"\xff\xfe\r\n\r\n{}"), None);
    }

    #[test]
    fn an_address_where_nobody_listens_is_named_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = free.local_addr().unwrap();
        drop(free);
        let error = identity(admin).unwrap_err().to_string();
        assert!(error.contains(&admin.to_string()), "{error}");
        assert!(error.contains("--admin"), "{error}");
    }
}
