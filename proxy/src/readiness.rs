//! Whether the workload may be sent traffic, and if not, who is still pending and why.
//!
//! Each part of the start-up takes a guard before the health listener answers, and reports
//! through it. A guard that goes away leaves its last word standing: a task that failed before
//! it was ready does not make the sidecar ready.

use std::{
    borrow::Cow,
    fmt,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// What must be there before the first connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    Svid,
    Policy,
    Capture,
    Listeners,
    Drain,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Svid => "svid",
            Self::Policy => "policy",
            Self::Capture => "capture",
            Self::Listeners => "listeners",
            Self::Drain => "drain",
        }
    }

    /// What is said before the part said anything itself.
    fn pending(self) -> &'static str {
        match self {
            Self::Svid => {
                "no certificate yet: check that the control plane can be reached at \
                 --control-plane, that --trust-bundle is its trust bundle, and that the join \
                 token has not ended"
            }
            Self::Policy => {
                "no policy snapshot yet: it comes from the control plane after the certificate; \
                 check the control plane's log for documents it refuses"
            }
            Self::Capture => {
                "capture is not proved yet: check that `mesh-lite redirect` ran in this network \
                 namespace and that its log says so"
            }
            Self::Listeners => {
                "not all listeners are bound yet: check that no other program holds the \
                 sidecar's ports (the log names the one that failed)"
            }
            Self::Drain => "draining: this sidecar is about to end; send traffic elsewhere",
        }
    }
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Readiness {
    parts: Arc<Mutex<Vec<(Part, State)>>>,
    ready: Arc<watch::Sender<bool>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ready,
    NotReady(Cow<'static, str>),
}

impl Readiness {
    /// Not ready until a guard was taken and all taken guards are ready.
    pub fn new() -> Self {
        Self {
            parts: Arc::default(),
            ready: Arc::new(watch::Sender::new(false)),
        }
    }

    /// Not ready until the guard says so. Parts may have several guards; there are a handful in
    /// a process's life, taken at its start.
    pub fn block(&self, part: Part) -> BlockReady {
        self.block_because(part, part.pending().into())
    }

    /// As [`Self::block`], but ready from the start: for what can only stop being so.
    pub fn watch(&self, part: Part) -> BlockReady {
        let guard = self.block(part);
        guard.ready();
        guard
    }

    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until everything is ready.
    pub async fn ready(&self) {
        let mut changes = self.ready.subscribe();
        // the sender lives as long as `self`: no error can come
        let _ = changes.wait_for(|ready| *ready).await;
    }

    /// The text of `/readyz`: who is pending, and what to do.
    pub fn describe(&self) -> String {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        if parts.is_empty() {
            text.push_str("not ready\n- start: the sidecar has only just been started\n");
        }
        for (part, state) in parts.iter() {
            let State::NotReady(reason) = state else {
                continue;
            };
            if text.is_empty() {
                text.push_str("not ready\n");
            }
            // a `String` takes whatever is written to it
            let _ = writeln!(text, "- {part}: {}", OneLine(reason));
        }
        if text.is_empty() {
            "ready\n".to_owned()
        } else {
            text
        }
    }

    fn block_because(&self, part: Part, reason: Cow<'static, str>) -> BlockReady {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let place = parts.len();
        parts.push((part, State::NotReady(reason)));
        drop(parts);
        self.publish();
        BlockReady {
            readiness: self.clone(),
            place,
        }
    }

    fn set(&self, place: usize, state: State) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((part, before)) = parts.get_mut(place) else {
            return;
        };
        if *before == state {
            return;
        }
        match &state {
            State::Ready => tracing::info!(%part, "ready"),
            State::NotReady(reason) => tracing::warn!(%part, %reason, "not ready"),
        }
        *before = state;
        drop(parts);
        self.publish();
    }

    fn publish(&self) {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let all = !parts.is_empty() && parts.iter().all(|(_, state)| *state == State::Ready);
        // under the lock, so that no older answer overtakes a newer one
        self.ready.send_replace(all);
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One part's word on readiness.
#[derive(Debug)]
#[must_use = "dropped before it is ready, it blocks for ever"]
pub struct BlockReady {
    readiness: Readiness,
    place: usize,
}

impl BlockReady {
    pub fn ready(&self) {
        self.readiness.set(self.place, State::Ready);
    }

    /// `reason` is read by people: what is missing, and what to do about it.
    pub fn not_ready(&self, reason: impl Into<Cow<'static, str>>) {
        self.readiness
            .set(self.place, State::NotReady(reason.into()));
    }
}

/// Reasons may quote errors, and those what a peer sent.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

#[cfg(test)]
mod tests;
