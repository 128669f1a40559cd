//! Deciding on a connection, and holding it to what is decided later.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::authorization::{
    Caller, Decision, Facts, MutualTlsMode, PolicySnapshot, decide,
};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, interval_at},
};

use crate::{
    clock::Clock,
    live_connections::{CutReason, Live, LiveConnections, Registered, Subject},
    metrics::{Direction, Metrics, Termination},
    tls::context::TlsContext,
};

/// Everything is judged again at each change; this catches what changes by time alone.
const JUDGE_AGAIN: Duration = Duration::from_secs(30);
/// Connections that are judged before others on this thread get their turn: probes and renewals,
/// and the policy that comes next. One that is cut among hundreds of rules takes 30 µs.
const JUDGED_AT_A_TIME: usize = 64;

/// The right to connect one caller to the application. Only [`Enforcement`] makes one, and
/// nothing dials the application without one.
pub struct Permit {
    decision: Decision,
}

impl Permit {
    pub fn decision(&self) -> &Decision {
        &self.decision
    }
}

/// Why a connection may not be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Denial {
    #[error("no policy has arrived yet")]
    NoPolicy,
    #[error("the peer is evicted by {0}")]
    Evicted(String),
    #[error("the root that the peer was proved by is not in the trust bundle")]
    Untrusted,
    #[error(
        "plaintext to port {0}, which takes mutual TLS only: put the caller into the mesh, or set PeerAuthentication to PERMISSIVE for this port"
    )]
    PlaintextToStrict(u16),
    #[error("{}", .0.reason())]
    Policy(Box<Decision>),
}

impl From<Denial> for CutReason {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Evicted(document) => Self::Evicted(document),
            Denial::PlaintextToStrict(_) => Self::PlaintextToStrict,
            Denial::Policy(decision) => Self::Policy(decision),
            Denial::Untrusted | Denial::NoPolicy => Self::TrustChanged,
        }
    }
}

#[derive(Clone)]
pub struct Enforcement {
    policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
    tls: watch::Receiver<Option<Arc<TlsContext>>>,
    live: LiveConnections,
    metrics: Metrics,
    clock: Clock,
}

impl Enforcement {
    pub fn new(
        policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
        tls: watch::Receiver<Option<Arc<TlsContext>>>,
        live: LiveConnections,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            policy,
            tls,
            live,
            metrics,
            clock,
        }
    }

    pub fn live(&self) -> &LiveConnections {
        &self.live
    }

    /// Decides on an inbound connection that is registered already.
    ///
    /// # Errors
    /// The denial, which names policy, rule, field and the nearest rule that would have matched.
    pub fn permit(&self, registered: &Registered) -> Result<Permit, Denial> {
        let judged = self.judge(registered.subject());
        self.count(&judged);
        judged.map(|decision| Permit { decision })
    }

    /// Whether an outbound connection may be: its peer is not evicted and still trusted. What it
    /// may do there is the other side's decision.
    ///
    /// # Errors
    /// The denial.
    pub fn may_talk_to(&self, registered: &Registered) -> Result<(), Denial> {
        let (snapshot, tls) = self.facts()?;
        check_peer(
            registered.subject(),
            &snapshot,
            tls.as_deref(),
            (self.clock)(),
        )
    }

    fn judge(&self, subject: &Subject) -> Result<Decision, Denial> {
        let (snapshot, tls) = self.facts()?;
        judge(subject, &snapshot, tls.as_deref(), (self.clock)())
    }

    fn facts(&self) -> Result<(Arc<PolicySnapshot>, Option<Arc<TlsContext>>), Denial> {
        let snapshot = self.policy.borrow().clone().ok_or(Denial::NoPolicy)?;
        Ok((snapshot, self.tls.borrow().clone()))
    }

    fn count(&self, judged: &Result<Decision, Denial>) {
        match judged {
            Ok(decision) => self.metrics.decided(decision),
            Err(Denial::Policy(decision)) => self.metrics.decided(decision),
            Err(_) => {}
        }
    }

    /// Judges every live connection again whenever policy or trust changes, for ever. Only those
    /// whose verdict flipped are cut.
    pub async fn hold(mut self) {
        let mut again = interval_at(Instant::now() + JUDGE_AGAIN, JUDGE_AGAIN);
        let mut trusted = None;
        loop {
            // while there is no certificate of our own, the trust of before holds for what is open
            trusted = self.tls.borrow_and_update().clone().or(trusted);
            self.policy.mark_unchanged();
            self.judge_all(&mut trusted).await;
            tokio::select! {
                changed = self.policy.changed() => if changed.is_err() { return },
                changed = self.tls.changed() => if changed.is_err() { return },
                _ = again.tick() => {}
            }
        }
    }

    /// Each by what is in force at its turn: nobody is cut by a policy that is no more. What
    /// changes in the meantime is a change for the next pass.
    async fn judge_all(&self, trusted: &mut Option<Arc<TlsContext>>) {
        for some in self.live.all().chunks(JUDGED_AT_A_TIME) {
            *trusted = self.tls.borrow().clone().or_else(|| trusted.take());
            let snapshot = self.policy.borrow().clone();
            if let Some(snapshot) = snapshot {
                self.judge_some(some, &snapshot, trusted.as_deref());
            }
            yield_now().await;
        }
    }

    fn judge_some(&self, some: &[Arc<Live>], snapshot: &PolicySnapshot, tls: Option<&TlsContext>) {
        let now = (self.clock)();
        for live in some {
            if live.cut.reason().is_some() {
                continue;
            }
            if let Err(denial) = judge_again(&live.subject, snapshot, tls, now) {
                self.metrics.terminated(termination(&denial));
                live.cut.cut(denial.into());
            }
        }
    }
}

fn termination(denial: &Denial) -> Termination {
    match denial {
        Denial::Evicted(_) => Termination::Evicted,
        Denial::Untrusted | Denial::NoPolicy => Termination::TrustChanged,
        Denial::PlaintextToStrict(_) | Denial::Policy(_) => Termination::PolicyChanged,
    }
}

fn judge_again(
    subject: &Subject,
    snapshot: &PolicySnapshot,
    tls: Option<&TlsContext>,
    now: SystemTime,
) -> Result<(), Denial> {
    match subject.direction {
        Direction::Inbound => judge(subject, snapshot, tls, now).map(drop),
        Direction::Outbound => check_peer(subject, snapshot, tls, now),
    }
}

fn judge(
    subject: &Subject,
    snapshot: &PolicySnapshot,
    tls: Option<&TlsContext>,
    now: SystemTime,
) -> Result<Decision, Denial> {
    check_peer(subject, snapshot, tls, now)?;
    let port = subject.destination.port();
    let caller = match &subject.peer {
        Some(peer) => Caller::Authenticated(peer.id()),
        None if snapshot.mutual_tls.mode(port) == MutualTlsMode::Strict => {
            return Err(Denial::PlaintextToStrict(port));
        }
        None => Caller::Plaintext,
    };
    let decision = decide(
        snapshot,
        &Facts {
            caller,
            source: subject.source,
            port,
        },
    );
    if decision.is_allowed() {
        Ok(decision)
    } else {
        Err(Denial::Policy(Box::new(decision)))
    }
}

fn check_peer(
    subject: &Subject,
    snapshot: &PolicySnapshot,
    tls: Option<&TlsContext>,
    now: SystemTime,
) -> Result<(), Denial> {
    let Some(peer) = &subject.peer else {
        return Ok(());
    };
    if let Some(eviction) = snapshot.evicted(peer.id(), &peer.leaf.serial, now) {
        return Err(Denial::Evicted(eviction.source.to_string()));
    }
    match tls {
        Some(tls) if tls.verifier().trusts_root_of(peer) => Ok(()),
        _ => Err(Denial::Untrusted),
    }
}

#[cfg(test)]
mod tests;
