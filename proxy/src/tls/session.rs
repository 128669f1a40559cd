//! The TLS connection of a tunnel after its handshake, without a socket: plaintext in, records
//! out, and the other way round. Who reads and writes sockets is `forward`.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use rustls::Connection;

/// One side of an established tunnel.
///
/// Boxed: a connection's task is moved about, and a TLS connection is a kilobyte.
pub struct Session(Box<Connection>);

/// What came out of a peer's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// More may follow.
    Open,
    /// The peer has closed its direction properly, with close_notify.
    Ended,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error("the peer's TLS records are not right: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the peer's TLS records can't be buffered: {0}")]
    Buffer(io::Error),
}

impl Session {
    pub fn new(mut connection: Connection) -> Self {
        // What is sealed at one time is bounded by the caller's buffer: it seals nothing new
        // while anything waits to be sent.
        connection.set_buffer_limit(None);
        Self(Box::new(connection))
    }

    /// Seals plaintext into records that wait to be sent.
    pub fn seal(&mut self, plaintext: &[u8]) {
        // Writing to a TLS connection without a limit can't fail.
        let _ = self.0.writer().write_all(plaintext);
    }

    /// Queues close_notify: nothing is sealed after it.
    pub fn seal_end(&mut self) {
        self.0.send_close_notify();
    }

    /// Whether records wait to be sent.
    pub fn has_records(&self) -> bool {
        self.0.wants_write()
    }

    /// Hands waiting records to `socket`, in as few calls as it takes.
    ///
    /// # Errors
    /// As the socket; `WouldBlock` if it is full.
    pub fn send_records(&mut self, socket: &mut dyn Write) -> io::Result<()> {
        while self.0.wants_write() {
            if self.0.write_tls(socket)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    /// Opens a peer's records and appends what they held to `plaintext`. A record that is not
    /// whole yet is kept.
    ///
    /// # Errors
    /// If the records are not right: the tunnel can only be aborted.
    pub fn open(
        &mut self,
        mut records: &[u8],
        plaintext: &mut Vec<u8>,
    ) -> Result<Opened, RecordError> {
        let mut state = self.drain(plaintext)?;
        while !records.is_empty() && state == Opened::Open {
            self.0.read_tls(&mut records).map_err(RecordError::Buffer)?;
            self.0.process_new_packets()?;
            state = self.drain(plaintext)?;
        }
        Ok(state)
    }

    fn drain(&mut self, plaintext: &mut Vec<u8>) -> Result<Opened, RecordError> {
        let mut reader = self.0.reader();
        loop {
            let taken = match reader.fill_buf() {
                Ok([]) => return Ok(Opened::Ended),
                Ok(bytes) => {
                    plaintext.extend_from_slice(bytes);
                    bytes.len()
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Opened::Open),
                Err(error) => return Err(RecordError::Buffer(error)),
            };
            reader.consume(taken);
        }
    }
}

/// Reads a few bytes during set-up, before the forwarding loop owns the session.
impl Session {
    /// # Errors
    /// `WouldBlock` if no plaintext is here; end of stream is `Ok(0)`.
    pub fn read_plaintext(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.reader().read(buffer)
    }

    /// Takes records from `socket` once.
    ///
    /// # Errors
    /// As the socket, or if the records are not right.
    pub fn read_records(&mut self, socket: &mut dyn Read) -> io::Result<usize> {
        let taken = self.0.read_tls(socket)?;
        self.0
            .process_new_packets()
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(taken)
    }
}
