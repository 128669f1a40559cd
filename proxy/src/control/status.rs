//! How the control side is doing, for the readiness text, the admin page and metrics.

use std::{sync::Arc, time::SystemTime};

use tokio::sync::watch;

use crate::{clock::Clock, metrics::Metrics};

/// One condition per part of the control side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ControlStatus {
    /// Issuing and renewing.
    pub issuing: Condition,
    /// The stream of trust bundles.
    pub trust: Condition,
    pub directory: Condition,
    pub policy: Condition,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// The stream is open now; for issuing: the last attempt worked.
    pub connected: bool,
    /// When the control plane last said something here.
    pub last_contact: Option<SystemTime>,
    /// The last thing that went wrong, in words; gone when it works again.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ControlPart {
    Issuing,
    Trust,
    Directory,
    Policy,
}

impl ControlPart {
    fn name(self) -> &'static str {
        match self {
            Self::Issuing => "issuing",
            Self::Trust => "trust bundles",
            Self::Directory => "directory",
            Self::Policy => "policy",
        }
    }

    fn of(self, status: &mut ControlStatus) -> &mut Condition {
        match self {
            Self::Issuing => &mut status.issuing,
            Self::Trust => &mut status.trust,
            Self::Directory => &mut status.directory,
            Self::Policy => &mut status.policy,
        }
    }
}

/// Writes the condition of one part.
#[derive(Clone)]
pub(crate) struct Reporter {
    status: Arc<watch::Sender<ControlStatus>>,
    part: ControlPart,
    metrics: Metrics,
    clock: Clock,
}

impl Reporter {
    pub(crate) fn new(
        status: &Arc<watch::Sender<ControlStatus>>,
        part: ControlPart,
        metrics: &Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            status: Arc::clone(status),
            part,
            metrics: metrics.clone(),
            clock,
        }
    }

    /// The control plane said something.
    pub(crate) fn contact(&self) {
        let now = (self.clock)();
        self.metrics.control_plane_contact(now);
        self.change(|condition| {
            condition.connected = true;
            condition.last_contact = Some(now);
        });
    }

    /// What was wrong is right again.
    pub(crate) fn fine(&self) {
        self.change(|condition| condition.error = None);
    }

    /// Something does not work; the connection stands.
    pub(crate) fn wrong(&self, reason: &str) {
        self.change(|condition| condition.error = Some(reason.to_owned()));
    }

    /// There is no connection, for this reason.
    pub(crate) fn disconnected(&self, reason: &str) {
        self.change(|condition| {
            condition.connected = false;
            condition.error = Some(reason.to_owned());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Condition)) {
        let part = self.part;
        self.status.send_if_modified(|status| {
            let before = part.of(status).clone();
            change(part.of(status));
            let after = part.of(status).clone();
            let all =
                status.trust.connected && status.directory.connected && status.policy.connected;
            self.metrics.control_plane_connected(all);
            log_change(part.name(), &before, &after);
            before != after
        });
    }
}

fn log_change(part: &'static str, before: &Condition, after: &Condition) {
    if after.error != before.error {
        match &after.error {
            Some(reason) => tracing::warn!(part, %reason, "control plane"),
            None => tracing::info!(part, "control plane: works again"),
        }
    } else if after.connected && !before.connected {
        tracing::info!(part, "control plane: connected");
    }
}
