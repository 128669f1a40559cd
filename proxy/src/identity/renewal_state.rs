//! How issuing and renewing stand, for whoever looks in from outside: written by the identity's
//! owner alone; only how far the clocks are apart, the stream of trust bundles may tell too.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;
use tonic::metadata::MetadataMap;

use super::issuer_client::IssueError;
use crate::{
    clock::Clock,
    clock::ClockSkew,
    metrics::{BreakageCause, Metrics},
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RenewalState {
    /// When the next certificate is asked for, if nothing happens before; `None` without one.
    pub due: Option<SystemTime>,
    /// When the certificate in use was issued to this process; `None` if it came from the state
    /// file.
    pub issued: Option<SystemTime>,
    /// When the last certificate ended, if none has come since.
    pub ended: Option<SystemTime>,
    /// `None` once an attempt has worked.
    pub failure: Option<RenewalFailure>,
    /// By the last answer of the control plane, good or bad.
    pub clock_skew: Option<ClockSkew>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalFailure {
    /// Of the last attempt, in words.
    pub error: String,
    pub advice: String,
    /// When the first attempt of this row failed.
    pub since: SystemTime,
    pub attempts: u32,
    pub next_attempt: SystemTime,
}

/// The writers' end.
#[derive(Clone)]
pub(crate) struct RenewalReporter {
    state: Arc<watch::Sender<RenewalState>>,
    metrics: Metrics,
    clock: Clock,
}

impl RenewalReporter {
    pub(crate) fn new(metrics: &Metrics, clock: Clock) -> (Self, watch::Receiver<RenewalState>) {
        let (state, receiver) = watch::channel(RenewalState::default());
        let reporter = Self {
            state: Arc::new(state),
            metrics: metrics.clone(),
            clock,
        };
        (reporter, receiver)
    }

    /// The control plane answered, and perhaps stated its date.
    pub(crate) fn answered(&self, answer: &MetadataMap) {
        self.measured(ClockSkew::measured(answer, (self.clock)()));
    }

    /// Told each time around: sends only what has changed.
    pub(crate) fn due(&self, at: Option<SystemTime>) {
        self.state.send_if_modified(|state| {
            let changed = state.due != at;
            state.due = at;
            changed
        });
    }

    pub(crate) fn issued(&self, now: SystemTime, skew: Option<ClockSkew>) {
        self.metrics.breakage_at(BreakageCause::Leaf, None);
        self.measured(skew);
        self.state.send_modify(|state| {
            state.issued = Some(now);
            state.ended = None;
            state.failure = None;
        });
    }

    /// A certificate from the state file is in use.
    pub(crate) fn restored(&self) {
        self.state.send_modify(|state| state.ended = None);
    }

    pub(crate) fn ended(&self, at: SystemTime) {
        self.state.send_modify(|state| state.ended = Some(at));
    }

    /// `leaf_end`: of the certificate in use, which breaks connections when nothing helps.
    pub(crate) fn failed(
        &self,
        error: &IssueError,
        now: SystemTime,
        next_attempt: SystemTime,
        leaf_end: Option<SystemTime>,
    ) {
        if let Some(end) = leaf_end {
            self.metrics.breakage_at(BreakageCause::Leaf, Some(end));
        }
        self.measured(error.clock_skew());
        self.state.send_modify(|state| {
            let before = state.failure.take();
            state.failure = Some(RenewalFailure {
                error: error.to_string(),
                advice: error.advice(state.clock_skew),
                since: before.as_ref().map_or(now, |failure| failure.since),
                attempts: before
                    .map_or(0, |failure| failure.attempts)
                    .saturating_add(1),
                next_attempt,
            });
        });
    }

    fn measured(&self, skew: Option<ClockSkew>) {
        let Some(skew) = skew else { return };
        self.metrics
            .clock_skew(skew.seconds.saturating_neg() as f64);
        self.state
            .send_modify(|state| state.clock_skew = Some(skew));
    }
}
