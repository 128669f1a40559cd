//! One tunnel while it is being set up: reading the header, answering, refusing.

use std::{io, time::Duration};

use mesh_lite_proto::tunnel::{EncodedAnswer, Header, InvalidHeader, MAX_HEADER};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    dial::OwnConnection,
    socket::{self, Nonblocking},
    tls::session::Session,
};

/// After a refusal: how much a peer may still send, and for how long, before we close. Closing
/// at once would reset the connection and could destroy the status on its way.
const DISCARD_BYTES: usize = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// A TLS connection to another sidecar, authenticated.
pub struct Tunnel {
    pub socket: TcpStream,
    pub session: Session,
    /// If we dialled it: keeps its local address known as ours.
    _own: Option<OwnConnection>,
}

/// A tunnel's header, and application bytes that came with it.
pub struct Request {
    pub header: Header,
    pub early: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    #[error(transparent)]
    Invalid(#[from] InvalidHeader),
    #[error("the peer sent no whole tunnel header in time")]
    Timeout,
    #[error("the peer closed the tunnel before it sent a header")]
    Closed,
    #[error("the tunnel broke before its header came: {0}")]
    Broken(io::Error),
}

impl Tunnel {
    pub fn new(socket: TcpStream, session: Session) -> Self {
        Self {
            socket,
            session,
            _own: None,
        }
    }

    /// Ties the registration of a dialled connection to the tunnel's life.
    #[must_use]
    pub fn owned_by(self, own: OwnConnection) -> Self {
        Self {
            _own: Some(own),
            ..self
        }
    }

    /// # Errors
    /// If no valid header is here by `deadline`.
    pub async fn read_header(&mut self, deadline: Instant) -> Result<Request, HeaderError> {
        timeout_at(deadline, self.header())
            .await
            .map_err(|_| HeaderError::Timeout)?
    }

    async fn header(&mut self) -> Result<Request, HeaderError> {
        let mut buffer = [0; MAX_HEADER];
        let mut filled = 0;
        loop {
            match self
                .session
                .read_plaintext(buffer.get_mut(filled..).unwrap_or_default())
            {
                Ok(0) => return Err(HeaderError::Closed),
                Ok(read) => filled = filled.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.more_records().await?;
                    continue;
                }
                Err(error) => return Err(HeaderError::Broken(error)),
            }
            let bytes = buffer.get(..filled).unwrap_or_default();
            if let Some((header, taken)) = Header::decode(bytes)? {
                let early = bytes.get(taken..).unwrap_or_default().to_vec();
                return Ok(Request { header, early });
            }
        }
    }

    async fn more_records(&mut self) -> Result<(), HeaderError> {
        self.socket.readable().await.map_err(HeaderError::Broken)?;
        match self.session.read_records(&mut Nonblocking(&self.socket)) {
            Ok(0) => Err(HeaderError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(HeaderError::Broken(error)),
        }
    }

    /// Queues the answer that lets the peer through, in one record; the forwarding loop sends it
    /// first.
    pub fn answer(&mut self, answer: &EncodedAnswer) {
        self.session.seal(answer.as_slice());
    }

    /// Tells the peer why not, in a way that the answer gets there, and closes.
    pub async fn refuse(mut self, answer: &EncodedAnswer) {
        self.session.seal(answer.as_slice());
        self.session.seal_end();
        if timeout(DISCARD_TIME, self.flush_and_discard())
            .await
            .is_ok_and(|done| done.is_ok())
        {
            socket::end_cleanly(&self.socket);
        }
    }

    async fn flush_and_discard(&mut self) -> io::Result<()> {
        while self.session.has_records() {
            self.socket.writable().await?;
            match self.session.send_records(&mut Nonblocking(&self.socket)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        socket::end_writing(&self.socket)?;
        let mut discarded = 0_usize;
        let mut buffer = [0; 2048];
        while discarded < DISCARD_BYTES {
            self.socket.readable().await?;
            match self.socket.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => discarded = discarded.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
