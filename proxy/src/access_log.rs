//! The access log: a JSON line when a connection was decided on, and one when it has ended.
//!
//! Connections hand over records; a thread of its own turns them into lines and writes them, so
//! that no slow disk and no full pipe ever holds a connection up. The queue between them is
//! bounded: what does not fit is lost and counted, denials and refusals last, as they have room
//! that nothing else may take.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, atomic::Ordering, mpsc},
    thread,
    time::Duration,
};

use crate::metrics::Metrics;

mod line;
mod record;
mod writer;

pub use record::{
    CloseRecord, ConnectionId, ConnectionIds, End, OpenRecord, OriginalDestination, Outcome, Peer,
    TlsFacts,
};
use writer::{Counts, Message, Writer};

/// Records that wait at most: a second's worth of a busy sidecar, about 4 MB.
const QUEUE: usize = 8 * 1024;
/// Room behind [`QUEUE`] for denials and refusals alone, so that a flood of what was allowed
/// never hides them. A flood of denials itself is bounded too: beyond, they are counted.
const RESERVED: usize = 2 * 1024;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    Off,
    #[default]
    Stdout,
    /// Appended to; made, readable by its owner and group, if it is not there.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = std::convert::Infallible;

    /// `off`, `stdout`, or a path.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

/// Cheap to clone. With [`Target::Off`] it does nothing.
#[derive(Debug, Clone)]
pub struct AccessLog(Option<Sender>);

#[derive(Debug, Clone)]
struct Sender {
    to_thread: mpsc::Sender<Message>,
    counts: Arc<Counts>,
    metrics: Metrics,
}

impl AccessLog {
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the target and starts the thread, which ends when the last clone is gone.
    ///
    /// # Errors
    /// If the file can't be opened, or no thread started.
    pub fn start(target: &Target, metrics: &Metrics) -> Result<Self, AccessLogError> {
        match target {
            Target::Off => Ok(Self::off()),
            Target::Stdout => Self::write_to(io::stdout(), metrics),
            Target::File(path) => {
                let file = open(path).map_err(|source| AccessLogError::Open {
                    path: path.clone(),
                    source,
                })?;
                Self::write_to(file, metrics)
            }
        }
    }

    /// As [`Self::start`], to any writer.
    ///
    /// # Errors
    /// If no thread could be started.
    pub fn write_to(
        out: impl Write + Send + 'static,
        metrics: &Metrics,
    ) -> Result<Self, AccessLogError> {
        // the channel itself has no bound: it takes memory only for what waits, and `counts`
        // bounds that
        let (to_thread, from_senders) = mpsc::channel();
        let counts = Arc::<Counts>::default();
        let writer = Writer::new(out, from_senders, Arc::clone(&counts), metrics.clone());
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run())
            .map_err(AccessLogError::Thread)?;
        Ok(Self(Some(Sender {
            to_thread,
            counts,
            metrics: metrics.clone(),
        })))
    }

    /// False: records are thrown away, and need not be made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A connection was let through, denied or refused.
    pub fn opened(&self, record: OpenRecord) {
        if let Some(sender) = &self.0 {
            let limit = if record.outcome.is_let_through() {
                QUEUE
            } else {
                QUEUE + RESERVED
            };
            sender.send(Message::Opened(Box::new(record)), limit);
        }
    }

    /// A connection that had been let through has ended.
    pub fn closed(&self, record: CloseRecord) {
        if let Some(sender) = &self.0 {
            sender.send(Message::Closed(record), QUEUE);
        }
    }

    /// Waits until all that was handed over before is written, at most `patience`. Blocks: not
    /// for a thread that runs tasks. False: not all of it is.
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(sender) = &self.0 else { return true };
        let (done, written) = mpsc::sync_channel(1);
        sender.to_thread.send(Message::Flush(done)).is_ok()
            && written.recv_timeout(patience).is_ok()
    }
}

impl Sender {
    fn send(&self, message: Message, limit: usize) {
        let fits = self.counts.waiting.fetch_add(1, Ordering::Relaxed) < limit;
        if !fits || self.to_thread.send(message).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            self.metrics.access_log_dropped(1);
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessLogError {
    #[error(
        "the access log {path} can't be opened for appending: {source}; check --access-log (it \
         takes off, stdout or a path) and that its directory is there and writable"
    )]
    Open { path: PathBuf, source: io::Error },
    #[error("no thread for the access log: {0}; check the limit of processes")]
    Thread(io::Error),
}

#[cfg(test)]
mod tests;
