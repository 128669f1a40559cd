//! What the control plane counts. Labels come from closed sets, never from callers.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::SystemTime,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::clock::unix_seconds;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStream {
    stream: &'static str,
}

/// The three long streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Secrets,
    Directory,
    Policies,
}

impl StreamKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Directory => "directory",
            Self::Policies => "policies",
        }
    }

    fn label(self) -> ByStream {
        ByStream {
            stream: self.name(),
        }
    }
}

/// A certificate whose end breaks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CertificateKind {
    Root,
    IssuingAuthority,
    Serving,
}

impl CertificateKind {
    const ALL: [Self; 3] = [Self::Root, Self::IssuingAuthority, Self::Serving];

    fn label(self) -> ByKind {
        let kind = match self {
            Self::Root => "root",
            Self::IssuingAuthority => "issuing_ca",
            Self::Serving => "control_plane",
        };
        ByKind { kind }
    }

    /// What its end breaks. The root: every certificate of the mesh. The issuing CA: nobody can
    /// be certified, and leaves end within their lifetime. The serving certificate, which renews
    /// itself: no sidecar connects any more.
    fn cause(self) -> ByCause {
        let cause = match self {
            Self::Root => "root",
            Self::IssuingAuthority => "issuing_ca",
            Self::Serving => "serving_certificate",
        };
        ByCause { cause }
    }
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    series: Arc<Series>,
    registry: Arc<Registry>,
}

#[derive(Default)]
struct Series {
    issuances: Family<Outcome, Counter>,
    token_reviews: Family<Outcome, Counter>,
    connections: Gauge,
    handshakes: Family<Outcome, Counter>,
    streams: Family<ByStream, Gauge>,
    acknowledged: Family<ByStream, Counter>,
    rejected: Family<ByStream, Counter>,
    unknown_secrets: Counter,
    broken_secrets: Counter,
    expiry: Family<ByKind, Gauge<f64, AtomicU64>>,
    time_to_breakage: Family<ByCause, Gauge<f64, AtomicU64>>,
    problems: Family<ByKind, Gauge>,
    facts: Family<ByKind, Gauge>,
    stale: Family<ByKind, Gauge<f64, AtomicU64>>,
}

impl Series {
    /// What callers do and get.
    fn register_counts(&self, registry: &mut Registry) {
        registry.register(
            "issuances",
            "Certificates asked for, by outcome",
            self.issuances.clone(),
        );
        registry.register(
            "token_reviews",
            "Service-account tokens that were judged anew, by outcome",
            self.token_reviews.clone(),
        );
        registry.register(
            "connections",
            "Open gRPC connections",
            self.connections.clone(),
        );
        registry.register(
            "handshakes",
            "TLS handshakes, by outcome",
            self.handshakes.clone(),
        );
        registry.register("streams", "Open streams", self.streams.clone());
        registry.register(
            "acknowledged",
            "Updates that clients took",
            self.acknowledged.clone(),
        );
        registry.register(
            "rejected",
            "Updates that clients refused (NACK)",
            self.rejected.clone(),
        );
        registry.register(
            "unknown_secrets",
            "Secrets asked for that do not exist or are not the caller's",
            self.unknown_secrets.clone(),
        );
        registry.register(
            "broken_secrets",
            "Secrets that were broken at their source and sent to nobody; the log says what is wrong",
            self.broken_secrets.clone(),
        );
    }

    /// What the control plane holds, and how long it lasts.
    fn register_state(&self, registry: &mut Registry) {
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When a certificate ends, in seconds since 1970",
            self.expiry.clone(),
        );
        registry.register(
            "time_to_breakage_seconds",
            "How long until this breaks the mesh if nobody acts and nothing renews it; below zero it is broken",
            self.time_to_breakage.clone(),
        );
        registry.register(
            "problems",
            "Things that are wrong now, by part; /readyz says them in words",
            self.problems.clone(),
        );
        registry.register(
            "facts",
            "What the directory of workloads holds",
            self.facts.clone(),
        );
        registry.register(
            "stale_seconds",
            "For how long objects of the cluster have not been followed, by kind; 0 while they are",
            self.stale.clone(),
        );
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("mesh_lite_control_plane");
        let series = Series::default();
        series.register_counts(&mut registry);
        series.register_state(&mut registry);
        Self {
            series: Arc::new(series),
            registry: Arc::new(registry),
        }
    }

    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// `outcome` is a word of ours, never the caller's.
    pub(crate) fn issuance(&self, outcome: &'static str) {
        self.series
            .issuances
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    /// `outcome` is a word of ours.
    pub(crate) fn token_review(&self, outcome: &'static str) {
        self.series
            .token_reviews
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    pub(crate) fn handshake(&self, outcome: &'static str) {
        self.series
            .handshakes
            .get_or_create(&Outcome { outcome })
            .inc();
    }

    pub(crate) fn connection(&self) -> OpenGauge {
        OpenGauge::new(self.series.connections.clone())
    }

    pub(crate) fn stream(&self, kind: StreamKind) -> OpenGauge {
        OpenGauge::new(self.series.streams.get_or_create_owned(&kind.label()))
    }

    pub(crate) fn accepted(&self, kind: StreamKind) {
        self.series.acknowledged.get_or_create(&kind.label()).inc();
    }

    pub(crate) fn rejected(&self, kind: StreamKind) {
        self.series.rejected.get_or_create(&kind.label()).inc();
    }

    pub(crate) fn unknown_secret(&self) {
        self.series.unknown_secrets.inc();
    }

    /// An alarm: something that should never happen did, and nobody was harmed.
    pub(crate) fn broken_secret(&self) {
        self.series.broken_secrets.inc();
    }

    pub(crate) fn expiry(&self, kind: CertificateKind, at: SystemTime) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds of this millennium fit into 53 bits"
        )]
        let seconds = unix_seconds(at) as f64;
        self.series.expiry.get_or_create(&kind.label()).set(seconds);
    }

    /// Of every certificate whose expiry is known.
    pub(crate) fn time_to_breakage(&self, now: SystemTime) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds of this millennium fit into 53 bits"
        )]
        let now = unix_seconds(now) as f64;
        for kind in CertificateKind::ALL {
            if let Some(expiry) = self.series.expiry.get(&kind.label()) {
                let left = expiry.get() - now;
                self.series
                    .time_to_breakage
                    .get_or_create(&kind.cause())
                    .set(left);
            }
        }
    }

    pub(crate) fn problems(&self, part: &'static str, count: usize) {
        self.series
            .problems
            .get_or_create(&ByKind { kind: part })
            .set(gauge_value(count));
    }

    pub(crate) fn stale(&self, kind: &'static str, seconds: f64) {
        self.series
            .stale
            .get_or_create(&ByKind { kind })
            .set(seconds);
    }

    pub(crate) fn facts(&self, kind: &'static str, count: usize) {
        self.series
            .facts
            .get_or_create(&ByKind { kind })
            .set(gauge_value(count));
    }
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Counts something for as long as it is open.
pub(crate) struct OpenGauge(Gauge);

impl OpenGauge {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
