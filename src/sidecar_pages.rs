//! Asks a sidecar's admin server, which is on loopback, for one of its pages.

use std::{io, net::SocketAddr, time::Duration};

use mesh_lite_proto::authorization::snapshot_json::MAX_SNAPSHOT_JSON;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// From the first packet to the last byte; a sidecar needs milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of status line and headers.
const MAX_HEAD: u64 = 8 * 1024;

/// What a tool may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageName {
    Identity,
    PolicySnapshot,
    Decisions,
}

impl PageName {
    fn path(self) -> &'static str {
        match self {
            Self::Identity => "/identity",
            Self::PolicySnapshot => "/policy/snapshot",
            Self::Decisions => "/decisions",
        }
    }

    /// Whatever else listens there is not read to its end.
    fn max_size(self) -> u64 {
        match self {
            // it has about 2 KB
            Self::Identity => 256 * 1024,
            Self::PolicySnapshot => MAX_SNAPSHOT_JSON,
            // a sidecar remembers at most 1 MiB, and field names and escapes are added; open
            // connections without a record add 500 bytes each, for up to 10,000 of them
            Self::Decisions => 16 * 1024 * 1024,
        }
    }
}

/// The body of a page.
///
/// # Errors
/// If nobody answers there, or what answers is not the admin server of a sidecar that has the
/// page.
pub(crate) fn get(admin: SocketAddr, page: PageName) -> Result<Vec<u8>, NoPage> {
    let reach = |error| NoPage::Reach { admin, error };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(reach)?;
    let answer = runtime
        .block_on(async { tokio::time::timeout(PATIENCE, ask(admin, page)).await })
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(reach)?;
    if answer.len() as u64 > page.max_size() {
        return Err(NoPage::NotASidecar { admin });
    }
    body_of(answer).map_err(|status| match status {
        Some(503) => NoPage::NotYet { admin },
        _ => NoPage::NotASidecar { admin },
    })
}

async fn ask(admin: SocketAddr, page: PageName) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(admin).await?;
    // the sidecar answers only those who ask for loopback
    let path = page.path();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut bounded = socket.take(page.max_size() + 1);
    bounded.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// All that the server said it would send.
///
/// # Errors
/// The status, if there is one.
fn body_of(mut answer: Vec<u8>) -> Result<Vec<u8>, Option<u16>> {
    const END: &[u8] = b"\r\n\r\n";
    let searched = usize::try_from(MAX_HEAD).unwrap_or(usize::MAX);
    let end = answer
        .windows(END.len())
        .take(searched)
        .position(|bytes| bytes == END);
    let body = answer.split_off(end.ok_or(None)? + END.len());
    let head = str::from_utf8(&answer).map_err(|_| None)?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let is_http = head.starts_with("HTTP/1.1 ");
    if is_http && status == Some(200) && length == Some(body.len()) {
        Ok(body)
    } else {
        Err(status.filter(|_| is_http))
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPage {
    #[error(
        "no sidecar answers at {admin}: {error}. Is it running on this machine, or its admin port \
         forwarded here? --admin names another address"
    )]
    Reach { admin: SocketAddr, error: io::Error },
    #[error(
        "what answers at {admin} is not the admin server of a sidecar of this version; --admin names \
         another address"
    )]
    NotASidecar { admin: SocketAddr },
    #[error(
        "the sidecar at {admin} has nothing to show yet: no policy has reached it. Its page /readyz \
         says why"
    )]
    NotYet { admin: SocketAddr },
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn a_whole_answer_has_a_body() {
        assert_eq!(body_of(PAGE.into()), Ok(b"body".to_vec()));
    }

    #[test]
    fn an_answer_that_is_cut_off_or_another_server_s_has_none() {
        for answer in [
            "",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nbody",
            "SSH-2.0-OpenSSH_9.2\r\n",
            "SSH-2.0 200 \r\ncontent-length: 0\r\n\r\n",
        ] {
            assert!(body_of(answer.into()).is_err(), "{answer:?}");
        }
        for end in 0..PAGE.len() {
            assert!(body_of(PAGE.as_bytes()[..end].to_vec()).is_err(), "{end}");
        }
        assert!(body_of(b"HTTP/1.1 200 \xff\r\ncontent-length: 0\r\n\r\n".to_vec()).is_err());
    }

    #[test]
    fn what_is_not_there_yet_is_told_from_another_server() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nwait";
        assert_eq!(body_of(answer.into()), Err(Some(503)));
    }

    #[test]
    fn an_address_where_nobody_listens_is_named_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = free.local_addr().unwrap();
        drop(free);
        let error = get(admin, PageName::Identity).unwrap_err().to_string();
        assert!(error.contains(&admin.to_string()), "{error}");
        assert!(error.contains("--admin"), "{error}");
    }
}
