//! What the injector counts. Labels come from closed sets, never from callers.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    clock::unix_seconds,
    serving_certificate::keeper::{Registered, Serving},
};

/// Seconds. Below three, after which the API server gives up.
const BUCKETS: [f64; 8] = [0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
    reason: &'static str,
}

/// Cheap to clone: all clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    series: Arc<Series>,
    registry: Arc<Registry>,
}

struct Series {
    decisions: Family<Decided, Counter>,
    review_time: Histogram,
    connections: Gauge,
    handshakes: Family<Outcome, Counter>,
    expiry: Gauge<f64, AtomicU64>,
    time_to_breakage: Gauge<f64, AtomicU64>,
    registered: Gauge,
}

impl Series {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "decisions",
            "Pods judged, by what was decided and why",
            self.decisions.clone(),
        );
        registry.register(
            "review_seconds",
            "From the whole of a request to its answer",
            self.review_time.clone(),
        );
        registry.register(
            "connections",
            "Open connections of API servers",
            self.connections.clone(),
        );
        registry.register(
            "handshakes",
            "TLS handshakes, by outcome",
            self.handshakes.clone(),
        );
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the webhook's certificate ends, in seconds since 1970",
            self.expiry.clone(),
        );
        registry.register(
            "time_to_breakage_seconds",
            "How long until the webhook's certificate ends if nothing renews it",
            self.time_to_breakage.clone(),
        );
        registry.register(
            "registered",
            "1 while the API server trusts the webhook's certificate",
            self.registered.clone(),
        );
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("mesh_lite_injector");
        let series = Series {
            decisions: Family::default(),
            review_time: Histogram::new(BUCKETS),
            connections: Gauge::default(),
            handshakes: Family::default(),
            expiry: Gauge::default(),
            time_to_breakage: Gauge::default(),
            registered: Gauge::default(),
        };
        series.register(&mut registry);
        Self {
            series: Arc::new(series),
            registry: Arc::new(registry),
        }
    }

    pub(crate) fn encode(
        &self,
        serving: &Serving,
        now: SystemTime,
    ) -> Result<String, std::fmt::Error> {
        if let Some(generation) = &serving.generation {
            let ends = seconds(generation.not_after());
            self.series.expiry.set(ends);
            self.series.time_to_breakage.set(ends - seconds(now));
        }
        let registered = serving.registered == Registered::Current;
        self.series.registered.set(i64::from(registered));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// `reason` is a word of ours, never the caller's.
    pub(crate) fn decision(&self, decision: &'static str, reason: &'static str) {
        let label = Decided { decision, reason };
        self.series.decisions.get_or_create(&label).inc();
    }

    pub(crate) fn review_time(&self, took: Duration) {
        self.series.review_time.observe(took.as_secs_f64());
    }

    pub(crate) fn handshake(&self, outcome: &'static str) {
        let label = Outcome { outcome };
        self.series.handshakes.get_or_create(&label).inc();
    }

    pub(crate) fn connection(&self) -> OpenGauge {
        OpenGauge::new(self.series.connections.clone())
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of this millennium fit into 53 bits"
)]
fn seconds(time: SystemTime) -> f64 {
    unix_seconds(time) as f64
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
