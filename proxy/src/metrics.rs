//! Metrics: Istio's TCP names and labels under a prefix of our own, and what mesh-lite alone
//! can tell. Callers name facts; names and formats are known here only.
//!
//! Nothing here takes a lock or allocates while bytes are forwarded: a connection looks its
//! series up once, and its [`ConnectionMeter`] then counts in atomics of its own.

use std::{
    fmt, io,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use mesh_lite_proto::authorization::Decision;
use prometheus_client::{encoding::text, metrics::gauge::Gauge};

mod authorization;
mod connection;
mod reasons;
mod registered;
mod series;

use authorization::DecisionLabels;
pub use connection::{ConnectionLabels, ConnectionMeter, Direction};
pub use reasons::{
    AcceptError, BreakageCause, CertificateKind, LocalSecret, Plaintext, Reason, Refusal, Renewal,
    SocketRefusal, Termination,
};
use registered::Registered;

/// Label sets per family: 1,000 peers are more than a workload talks to in one life, and their
/// series take about 500 KB.
pub const DEFAULT_MAX_LABEL_SETS: usize = 1_000;
/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the sidecar. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Registered>);

impl Metrics {
    /// At most `max_label_sets` label sets are kept per family; further ones share one.
    pub fn new(prefix: &MetricsPrefix, max_label_sets: usize) -> Self {
        Self(Arc::new(Registered::new(prefix.as_str(), max_label_sets)))
    }

    /// The page that Prometheus reads.
    pub fn encode(&self, now: SystemTime) -> String {
        self.0
            .now
            .store(unix_seconds(now).to_bits(), Ordering::Relaxed);
        let mut page = String::new();
        // a `String` takes whatever is written to it: no error can come
        let _ = text::encode(&mut page, &self.0.registry);
        page
    }

    /// Counts a connection that was let through, until the meter is dropped.
    pub fn connection(&self, labels: &ConnectionLabels) -> ConnectionMeter {
        let active = self.0.active.of(labels.direction).clone();
        ConnectionMeter::open(self.0.connections.at(labels), active)
    }

    /// Connections that meters count now, both directions.
    pub fn active_connections(&self) -> u64 {
        let active = |direction| self.0.active.of(direction).get();
        u64::try_from(active(Direction::Inbound) + active(Direction::Outbound)).unwrap_or(0)
    }

    /// Policy decided on a new connection; what dry runs and AUDIT policies recorded is counted
    /// with it. Those that the decision does not name are counted as others.
    pub fn decided(&self, decision: &Decision) {
        let count = |labels| self.0.decisions.at(&labels).fetch_add(1, Ordering::Relaxed);
        count(DecisionLabels::of(decision));
        for recorded in &decision.recorded {
            count(DecisionLabels::of_recorded(recorded));
        }
        let others = u64::try_from(decision.recorded_more).unwrap_or(u64::MAX);
        let decisions = &self.0.decisions;
        decisions.others().fetch_add(others, Ordering::Relaxed);
    }

    pub fn terminated(&self, reason: Termination) {
        self.0.terminated.add(reason);
    }

    pub fn plaintext(&self, reason: Plaintext) {
        self.0.plaintext.add(reason);
    }

    pub fn refused(&self, reason: Refusal) {
        self.0.refused.add(reason);
    }

    pub fn accept_failed(&self, error: &io::Error) {
        self.0.accept_errors.add(error.into());
    }

    pub fn certificate_expires(&self, kind: CertificateKind, at: SystemTime) {
        self.0.certificate_expiry.set(kind, Some(unix_seconds(at)));
    }

    pub fn renewal(&self, result: Renewal) {
        self.0.renewals.add(result);
    }

    pub fn socket_refused(&self, reason: SocketRefusal) {
        self.0.socket_refusals.add(reason);
    }

    pub fn local_secrets(&self, outcome: LocalSecret, secrets: usize) {
        (0..secrets).for_each(|_| self.0.local_secrets.add(outcome));
    }

    /// Streams open at the workload socket: one more until what is returned is dropped.
    pub fn socket_stream(&self) -> OpenStream {
        self.0.socket_streams.inc();
        OpenStream(self.0.socket_streams.clone())
    }

    /// An identity that nobody could use, and that was sent to nobody.
    pub fn broken_secret(&self) {
        self.0.broken_secrets.inc();
    }

    pub fn bundle_generation(&self, generation: u64) {
        set(&self.0.bundle_generation, generation);
    }

    pub fn policy_revision(&self, revision: u64) {
        set(&self.0.policy_revision, revision);
    }

    pub fn policy_refused(&self) {
        self.0.policy_nacks.inc();
    }

    /// Documents of the snapshot in force that could not be loaded and deny in their scope.
    pub fn broken_policies(&self, documents: usize) {
        set(&self.0.broken_policies, documents as u64);
    }

    pub fn control_plane_connected(&self, connected: bool) {
        self.0.control_plane_connected.set(i64::from(connected));
    }

    pub fn control_plane_contact(&self, at: SystemTime) {
        self.0.control_plane_contact.set(unix_seconds(at));
    }

    pub fn directory_names(&self, names: usize) {
        set(&self.0.directory_names, names as u64);
    }

    /// The directory answered something that could not be used.
    pub fn directory_answer_refused(&self) {
        self.0.directory_answers_refused.inc();
    }

    /// How far the control plane's clock is ahead of ours, in seconds.
    pub fn clock_skew(&self, seconds: f64) {
        self.0.clock_skew.set(seconds);
    }

    pub fn capture_proved(&self, proved: bool) {
        self.0.capture_ok.set(i64::from(proved));
    }

    /// When `cause` will make connections fail, if nobody does anything; `None`: it will not.
    pub fn breakage_at(&self, cause: BreakageCause, at: Option<SystemTime>) {
        self.0.breakage.set(cause, at.map(unix_seconds));
    }

    /// A decision unlike the remembered ones is remembered.
    pub fn decision_recorded(&self) {
        self.0.decision_records.inc();
    }

    pub fn decisions_forgotten(&self, records: u64) {
        let gone = i64::try_from(records).unwrap_or(i64::MAX);
        self.0.decision_records.dec_by(gone);
        self.0.decision_records_forgotten.inc_by(records);
    }

    pub fn access_log_dropped(&self, lines: u64) {
        self.0.access_log_dropped.inc_by(lines);
    }

    /// A task ended by a panic, and with it one connection.
    pub fn panicked(&self) {
        self.0.panics.inc();
    }
}

/// Counted as open until it is dropped.
#[derive(Debug)]
pub struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Times before 1970 count as 1970.
fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}

/// What stands before every metric's name: `mesh_lite`, or `istio` where dashboards made for
/// Istio are to be used as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsPrefix(String);

impl MetricsPrefix {
    /// Long enough for any name, short enough for every line.
    const MAX: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for MetricsPrefix {
    fn default() -> Self {
        Self("mesh_lite".to_owned())
    }
}

impl FromStr for MetricsPrefix {
    type Err = InvalidMetricsPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
        let goes_on = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !starts || !goes_on || text.ends_with('_') || text.len() > Self::MAX {
            return Err(InvalidMetricsPrefix(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} can't start the names of metrics: use a letter, then letters, digits and underscores, \
     at most 64, the last one not an underscore (for example: mesh_lite, istio)"
)]
pub struct InvalidMetricsPrefix(String);

#[cfg(test)]
mod tests;
