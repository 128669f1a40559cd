//! Metrics that keep a bounded number of series, whatever their labels are made of.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    marker::PhantomData,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter},
};

use super::reasons::Reason;

/// Series by label set. Past `limit` label sets, further ones share the one series `overflow`,
/// which is shown with the labels of `K::overflow`. A series is never forgotten: the limit, not
/// time, bounds the memory.
pub(super) struct CappedSeries<K, S> {
    limit: usize,
    by_labels: RwLock<HashMap<K, Arc<S>>>,
    overflow: Arc<S>,
}

/// Labels of the series for whatever did not fit.
pub(super) trait Overflow {
    fn encode_overflow(encoder: &mut LabelSetEncoder<'_>) -> fmt::Result;
}

impl<K: Eq + Hash + Clone, S: Default> CappedSeries<K, S> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            by_labels: RwLock::default(),
            overflow: Arc::default(),
        }
    }

    pub(super) fn at(&self, labels: &K) -> Arc<S> {
        let known = self
            .by_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(labels) {
            return Arc::clone(series);
        }
        let full = known.len() >= self.limit;
        drop(known);
        if full {
            return Arc::clone(&self.overflow);
        }
        let mut known = self
            .by_labels
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // another thread may have taken the last place
        if known.len() >= self.limit && !known.contains_key(labels) {
            return Arc::clone(&self.overflow);
        }
        Arc::clone(known.entry(labels.clone()).or_default())
    }
}

impl<K, S> CappedSeries<K, S> {
    /// The series of whatever did not fit.
    pub(super) fn others(&self) -> &S {
        &self.overflow
    }
}

/// One counter family out of [`CappedSeries`]: `value` picks the counter.
pub(super) struct CounterView<K, S> {
    pub(super) series: Arc<CappedSeries<K, S>>,
    pub(super) value: fn(&S) -> u64,
}

impl<K, S> EncodeMetric for CounterView<K, S>
where
    K: EncodeLabelSet + Overflow,
{
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let known = self
            .series
            .by_labels
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (labels, series) in known.iter() {
            let counter = ConstCounter::new((self.value)(series));
            counter.encode(encoder.encode_family(labels)?)?;
        }
        let others = (self.value)(&self.series.overflow);
        if known.len() >= self.series.limit || others > 0 {
            let counter = ConstCounter::new(others);
            counter.encode(encoder.encode_family(&OverflowLabels::<K>(PhantomData))?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl<K, S> fmt::Debug for CounterView<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CounterView")
    }
}

struct OverflowLabels<K>(PhantomData<K>);

impl<K: Overflow> EncodeLabelSet for OverflowLabels<K> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        K::encode_overflow(encoder)
    }
}

/// One counter for each value of a closed set.
pub(super) struct ByReason<R> {
    label: &'static str,
    counts: Arc<[AtomicU64]>,
    of: PhantomData<fn(R)>,
}

impl<R: Reason> ByReason<R> {
    pub(super) fn new(label: &'static str) -> Self {
        Self {
            label,
            counts: R::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            of: PhantomData,
        }
    }

    pub(super) fn add(&self, reason: R) {
        if let Some(count) = self.counts.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<R> Clone for ByReason<R> {
    fn clone(&self) -> Self {
        Self {
            label: self.label,
            counts: Arc::clone(&self.counts),
            of: PhantomData,
        }
    }
}

impl<R> fmt::Debug for ByReason<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

impl<R: Reason> EncodeMetric for ByReason<R> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (reason, count) in R::ALL.iter().zip(self.counts.iter()) {
            // zeros too: an alert on `increase()` needs the series to be there beforehand
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_family(&[(self.label, reason.as_str())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// One gauge for each value of a closed set; those never set are not shown, rather than shown
/// as 0, which for an expiry would be 1970.
pub(super) struct GaugeByReason<R> {
    label: &'static str,
    /// `f64` bits; NaN is "not set"
    values: Arc<[AtomicU64]>,
    /// how a stored value is shown
    shown: Shown,
    of: PhantomData<fn(R)>,
}

#[derive(Clone)]
pub(super) enum Shown {
    AsStored,
    /// Stored is a point in time, shown is how many seconds it is ahead of the clock here.
    SecondsAhead {
        now: Arc<AtomicU64>,
    },
}

impl<R: Reason> GaugeByReason<R> {
    pub(super) fn new(label: &'static str, shown: Shown) -> Self {
        let unset = || AtomicU64::new(f64::NAN.to_bits());
        Self {
            label,
            values: R::ALL.iter().map(|_| unset()).collect(),
            shown,
            of: PhantomData,
        }
    }

    pub(super) fn set(&self, reason: R, value: Option<f64>) {
        if let Some(place) = self.values.get(reason.index()) {
            place.store(value.unwrap_or(f64::NAN).to_bits(), Ordering::Relaxed);
        }
    }
}

impl<R> Clone for GaugeByReason<R> {
    fn clone(&self) -> Self {
        let (values, shown) = (Arc::clone(&self.values), self.shown.clone());
        Self {
            label: self.label,
            values,
            shown,
            of: PhantomData,
        }
    }
}

impl<R> fmt::Debug for GaugeByReason<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label)
    }
}

impl<R: Reason> EncodeMetric for GaugeByReason<R> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (reason, stored) in R::ALL.iter().zip(self.values.iter()) {
            let stored = f64::from_bits(stored.load(Ordering::Relaxed));
            if stored.is_nan() {
                continue;
            }
            let value = match &self.shown {
                Shown::AsStored => stored,
                Shown::SecondsAhead { now } => stored - f64::from_bits(now.load(Ordering::Relaxed)),
            };
            encoder
                .encode_family(&[(self.label, reason.as_str())])?
                .encode_gauge(&value)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
