//! Requests that could not be taken further: each is tried again for itself, later and later, and
//! holds up no other.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{self, Instant};

use super::standing::SigningRequest;

/// Some kilobytes each. One that finds no room is found again by the next list.
const MAX_ASIDE: usize = 1000;
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// So many are told of.
const SHOWN: usize = 3;

#[derive(Default)]
pub(super) struct SetAside(BTreeMap<String, Held>);

struct Held {
    request: SigningRequest,
    delay: Duration,
    again: Instant,
    problem: String,
}

/// A request whose time has come again.
pub(super) struct Due {
    pub(super) request: SigningRequest,
    /// Waited for it this time.
    pub(super) delay: Duration,
}

impl SetAside {
    /// `waited` is how long it waited before the attempt that failed, if it was not the first.
    pub(super) fn put(
        &mut self,
        name: String,
        request: SigningRequest,
        waited: Option<Duration>,
        problem: String,
    ) {
        if self.0.len() >= MAX_ASIDE && !self.0.contains_key(&name) {
            return;
        }
        let longer = |waited: Duration| waited.saturating_mul(2).min(LONGEST_DELAY);
        let delay = waited.map_or(FIRST_DELAY, longer);
        let now = Instant::now();
        let held = Held {
            request,
            delay,
            again: now.checked_add(delay).unwrap_or(now),
            problem,
        };
        self.0.insert(name, held);
    }

    /// It is gone, or known as it is now.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Waits for the next. Nothing is lost if it is cancelled.
    pub(super) async fn due(&mut self) -> Due {
        let next = self.0.iter().min_by_key(|(_, held)| held.again);
        let Some((name, at)) = next.map(|(name, held)| (name.clone(), held.again)) else {
            return std::future::pending().await;
        };
        time::sleep_until(at).await;
        match self.0.remove(&name) {
            Some(Held { request, delay, .. }) => Due { request, delay },
            None => std::future::pending().await,
        }
    }

    /// In words, of some of them.
    pub(super) fn problems(&self) -> Vec<String> {
        let problems = self.0.values().map(|held| held.problem.clone());
        let mut shown: Vec<String> = problems.take(SHOWN).collect();
        if let Some(more) = self.0.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            shown.push(format!("{more} other CertificateSigningRequests wait too"));
        }
        shown
    }
}
