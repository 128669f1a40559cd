//! Istio's TCP metrics: their names, labels and meaning, so that its dashboards work.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use mesh_lite_proto::decision_record::Direction;
use mesh_lite_proto::identity::WorkloadId;
use prometheus_client::{
    encoding::{
        EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelSetEncoder, LabelValueEncoder,
        MetricEncoder,
    },
    metrics::{MetricType, gauge::Gauge},
};

use super::series::Overflow;

/// Which end of the connection reports it, as Istio names it.
fn reporter(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "destination",
        Direction::Outbound => "source",
    }
}

/// Whom a connection is counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionLabels {
    pub direction: Direction,
    /// `None`: it proved no identity.
    pub source: Option<WorkloadId>,
    /// `None`: outside the mesh, or not known yet.
    pub destination: Option<WorkloadId>,
    pub mutual_tls: bool,
}

impl EncodeLabelSet for ConnectionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let security = if self.mutual_tls {
            "mutual_tls"
        } else {
            "none"
        };
        [
            ("reporter", reporter(self.direction)),
            ("source_principal", principal(self.source.as_ref())),
            ("source_workload_namespace", namespace(self.source.as_ref())),
            (
                "destination_principal",
                principal(self.destination.as_ref()),
            ),
            (
                "destination_workload_namespace",
                namespace(self.destination.as_ref()),
            ),
            ("connection_security_policy", security),
        ]
        .map(|(name, value)| (name, Printable(value)))
        .encode(encoder)
    }
}

impl Overflow for ConnectionLabels {
    fn encode_overflow(encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [
            ("reporter", "other"),
            ("source_principal", "other"),
            ("source_workload_namespace", "other"),
            ("destination_principal", "other"),
            ("destination_workload_namespace", "other"),
            ("connection_security_policy", "other"),
        ]
        .encode(encoder)
    }
}

fn principal(id: Option<&WorkloadId>) -> &str {
    id.map_or("unknown", WorkloadId::as_str)
}

fn namespace(id: Option<&WorkloadId>) -> &str {
    id.and_then(WorkloadId::namespace).unwrap_or("unknown")
}

/// A label value with its control characters written out. Quotes, backslashes and line ends are
/// escaped by the encoder.
#[derive(Debug)]
pub(super) struct Printable<'a>(pub(super) &'a str);

impl EncodeLabelValue for Printable<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        if !self.0.chars().any(char::is_control) {
            return encoder.write_str(self.0);
        }
        self.0.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(encoder, "{}", c.escape_unicode()),
            c => encoder.write_char(c),
        })
    }
}

/// The counters of one label set.
#[derive(Debug, Default)]
pub(super) struct ConnectionSeries {
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// How many connections are open now, by direction.
#[derive(Debug, Clone, Default)]
pub(super) struct ActiveConnections {
    inbound: Gauge,
    outbound: Gauge,
}

impl ActiveConnections {
    pub(super) fn of(&self, direction: Direction) -> &Gauge {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }
}

impl EncodeMetric for ActiveConnections {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        [Direction::Inbound, Direction::Outbound]
            .into_iter()
            .try_for_each(|direction| {
                let labels = [("reporter", reporter(direction))];
                encoder
                    .encode_family(&labels)?
                    .encode_gauge(&self.of(direction).get())
            })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// How many bytes a connection counts for itself before it adds them to counters that others
/// write too: often enough that a long connection shows, seldom enough that it costs nothing.
const SHARED_EVERY: u64 = 64 * 1024;

/// Counts one connection from its opening to its end, which is when this is dropped.
///
/// As Istio has it, and on both ends alike: *received* went from the caller to the one called,
/// *sent* came back.
#[derive(Debug)]
pub struct ConnectionMeter {
    series: Arc<ConnectionSeries>,
    active: Gauge,
    sent: Count,
    received: Count,
}

impl ConnectionMeter {
    pub(super) fn open(series: Arc<ConnectionSeries>, active: Gauge) -> Self {
        series.opened.fetch_add(1, Ordering::Relaxed);
        active.inc();
        Self {
            series,
            active,
            sent: Count::default(),
            received: Count::default(),
        }
    }

    /// `bytes` came back to the caller.
    pub fn sent(&self, bytes: u64) {
        self.sent.add(bytes, &self.series.sent);
    }

    /// `bytes` came from the caller.
    pub fn received(&self, bytes: u64) {
        self.received.add(bytes, &self.series.received);
    }

    /// All that came back to the caller so far.
    pub fn bytes_sent(&self) -> u64 {
        self.sent.total.load(Ordering::Relaxed)
    }

    /// All that came from the caller so far.
    pub fn bytes_received(&self) -> u64 {
        self.received.total.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionMeter {
    fn drop(&mut self) {
        self.sent.share(&self.series.sent);
        self.received.share(&self.series.received);
        self.series.closed.fetch_add(1, Ordering::Relaxed);
        self.active.dec();
    }
}

#[derive(Debug, Default)]
struct Count {
    total: AtomicU64,
    /// how much of `total` the shared counter has
    shared: AtomicU64,
}

impl Count {
    fn add(&self, bytes: u64, shared: &AtomicU64) {
        let total = self
            .total
            .fetch_add(bytes, Ordering::Relaxed)
            .wrapping_add(bytes);
        if total.wrapping_sub(self.shared.load(Ordering::Relaxed)) >= SHARED_EVERY {
            self.share(shared);
        }
    }

    fn share(&self, shared: &AtomicU64) {
        let total = self.total.load(Ordering::Relaxed);
        // of two threads that are here at once, each adds what the other did not
        let before = self.shared.fetch_max(total, Ordering::Relaxed);
        shared.fetch_add(total.saturating_sub(before), Ordering::Relaxed);
    }
}
