//! Who is certified next when more ask than can be served at once: a workload that has no
//! certificate yet can do nothing, one that renews has half of its certificate's life left. So
//! first certificates go first, and renewals get every eighth turn, or a storm of restarts that
//! does not end would let every other certificate run out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time};

/// How long one waits before the client is asked to come back: half of what a request may take.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Waiting, of each kind. At a millisecond a turn, some four seconds of work on one processor:
/// whoever comes after that would wait in vain.
const MAX_WAITING: usize = 4_096;
/// One turn of so many goes to a renewal, if any waits.
const RENEWAL_SHARE: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Has no certificate.
    First,
    /// Has one that lives on for a while.
    Renewal,
}

#[derive(Clone)]
pub(crate) struct Turns(Arc<Mutex<State>>);

struct State {
    free: usize,
    first: VecDeque<oneshot::Sender<Turn>>,
    renewals: VecDeque<oneshot::Sender<Turn>>,
    passed_on: u32,
}

/// The right to use a processor and the disk for one certificate; goes to the next when dropped.
pub(crate) struct Turn(Option<Turns>);

impl Turns {
    pub(crate) fn new(at_once: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: at_once,
            first: VecDeque::new(),
            renewals: VecDeque::new(),
            passed_on: 0,
        })))
    }

    pub(crate) async fn take(&self, urgency: Urgency) -> Result<Turn, NoTurn> {
        let waiting = {
            let mut state = self.state();
            if let Some(left) = state.free.checked_sub(1) {
                state.free = left;
                return Ok(Turn(Some(self.clone())));
            }
            state.wait(urgency)?
        };
        match time::timeout(MAX_WAIT, waiting).await {
            Ok(Ok(turn)) => Ok(turn),
            // the sender is dropped with the state alone, and we hold the state
            Ok(Err(_)) | Err(_) => Err(NoTurn),
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let state = self.state();
        state.first.len() + state.renewals.len()
    }

    /// A poisoned lock means a panic in here; what it guards is whole all the same.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a turn to whoever is next, or keeps it for whoever comes.
    fn pass_on(self) {
        loop {
            let next = {
                let mut state = self.state();
                let Some(next) = state.next() else {
                    state.free = state.free.saturating_add(1);
                    return;
                };
                next
            };
            // not under the lock: a turn that can't be sent comes back, and one that is sent to
            // somebody who gives up before reading it is dropped there, which passes it on
            match next.send(Turn(Some(self.clone()))) {
                Ok(()) => return,
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

impl State {
    fn wait(&mut self, urgency: Urgency) -> Result<oneshot::Receiver<Turn>, NoTurn> {
        let line = match urgency {
            Urgency::First => &mut self.first,
            Urgency::Renewal => &mut self.renewals,
        };
        if line.len() >= MAX_WAITING {
            line.retain(|waiting| !waiting.is_closed());
        }
        if line.len() >= MAX_WAITING {
            return Err(NoTurn);
        }
        let (turn, waiting) = oneshot::channel();
        line.push_back(turn);
        Ok(waiting)
    }

    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.passed_on = self.passed_on.wrapping_add(1);
        let (one, other) = if self.passed_on.is_multiple_of(RENEWAL_SHARE) {
            (&mut self.renewals, &mut self.first)
        } else {
            (&mut self.first, &mut self.renewals)
        };
        one.pop_front().or_else(|| other.pop_front())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many certificates are asked for at once: try again in a few seconds")]
pub(crate) struct NoTurn;

#[cfg(test)]
mod tests;
