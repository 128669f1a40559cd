//! The thread that formats and writes.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use super::{
    line,
    record::{CloseRecord, OpenRecord},
};
use crate::metrics::Metrics;

/// After the first record, others are given this long to come before all are written at once:
/// a connection then does not pay for waking this thread, and lines are still fresh.
const GATHER: Duration = Duration::from_millis(20);
/// Lines are written once they are this many bytes, so that a flood does not gather in memory.
const CHUNK: usize = 64 * 1024;

/// What senders and the thread both count.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Records in the queue.
    pub(super) waiting: AtomicUsize,
    /// Records that did not fit and that the log itself does not mention yet.
    pub(super) dropped: AtomicU64,
}

pub(super) enum Message {
    Opened(Box<OpenRecord>),
    Closed(CloseRecord),
    /// Answer when all before it is written.
    Flush(mpsc::SyncSender<()>),
}

pub(super) struct Writer<W> {
    out: W,
    records: mpsc::Receiver<Message>,
    counts: Arc<Counts>,
    metrics: Metrics,
    lines: String,
    lines_here: u64,
    /// so that a full disk is said once, not with every line
    failing: bool,
    lost: u64,
    last_at: SystemTime,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(
        out: W,
        records: mpsc::Receiver<Message>,
        counts: Arc<Counts>,
        metrics: Metrics,
    ) -> Self {
        Self {
            out,
            records,
            counts,
            metrics,
            lines: String::new(),
            lines_here: 0,
            failing: false,
            lost: 0,
            last_at: SystemTime::UNIX_EPOCH,
        }
    }

    /// Until nobody is left who could send.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.records.recv() {
            if !matches!(first, Message::Flush(_)) {
                thread::sleep(GATHER);
            }
            self.take(first);
            while let Ok(next) = self.records.try_recv() {
                self.take(next);
            }
            self.write();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Opened(record) => {
                self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                self.last_at = record.at;
                line::opened(&mut self.lines, &record);
                self.lines_here += 1;
            }
            Message::Closed(record) => {
                self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
                self.last_at = record.at;
                line::closed(&mut self.lines, &record);
                self.lines_here += 1;
            }
            Message::Flush(done) => {
                self.write();
                // whoever asked may have gone
                let _ = done.send(());
            }
        }
        if self.lines.len() >= CHUNK {
            self.write();
        }
    }

    fn write(&mut self) {
        let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            line::dropped(&mut self.lines, self.last_at, dropped);
        }
        if self.lines.is_empty() {
            return;
        }
        if self.failing {
            // the write that failed may have left half a line
            self.lines.insert(0, '\n');
        }
        let written = self
            .out
            .write_all(self.lines.as_bytes())
            .and_then(|()| self.out.flush());
        match written {
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!(lost = self.lost, "the access log is written again");
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.access_log_dropped(self.lines_here);
                self.lost += self.lines_here;
                // the log itself says so once it is written again
                let missing = self.lines_here + dropped;
                self.counts.dropped.fetch_add(missing, Ordering::Relaxed);
                if !self.failing {
                    tracing::error!(%error, "the access log can't be written; lines are lost");
                }
                self.failing = true;
            }
        }
        self.lines_here = 0;
        self.lines.clear();
        self.lines.shrink_to(CHUNK);
    }
}
