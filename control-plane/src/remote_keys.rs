//! Keys made here, for clients that bring no certificate request (plain Envoy straight at the
//! control plane): only if the operator allowed it, one X509-SVID for each stream that asks.
//!
//! ```text
//! wanted ─▶ make (key, issuance queue) ─▶ check (SDS-S18) ─▶ held ─▶ secret, while it has life left
//!             ▲                              │ broken: alarm, nothing sent, tried again
//!             └── half of its life, soon after another issuing CA signs, at once if the bundle no
//!                 longer vouches for it
//! ```

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    secret_discovery::{VersionedSecret, svid_secret},
    svid::LeafFacts,
    trust_bundle::{TrustBundle, pem},
};
use rustls_pki_types::CertificateDer;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};
use zeroize::Zeroizing;

use crate::{
    certificate_authority::{random::random_bytes, rotation::Trust},
    clock::{Clock, wait_until},
    issuance::{queue::NotIssued, turns::Urgency},
    metrics::Metrics,
};

mod made_here;
pub(crate) mod svid_check;

pub(crate) use made_here::MadeHere;
use svid_check::check_svid;

/// After a failure: this long, then twice as long, up to the last.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(60);
/// However often a client drops it and asks again.
const BEGUN_AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// When another issuing CA signs, every stream's certificate is made anew within this time, each
/// at its own moment: at a millisecond each, 5,000 of them keep a processor half busy.
const REPLACED_WITHIN: Duration = Duration::from_secs(10);
/// The part of a certificate's life before which it must have been sent: with less left a client
/// would be in a hurry at once (SDS-S19).
const REST: u32 = 10;

/// A chain, leaf first, and its key.
pub(crate) struct Made {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8, DER.
    pub(crate) key: Zeroizing<Vec<u8>>,
    pub(crate) issuer_key_id: String,
}

/// Where a new key and its certificate come from: never the same key twice (SDS-S30).
pub(crate) trait Maker: Send + 'static {
    fn make(
        &self,
        urgency: Urgency,
    ) -> impl Future<Output = Result<Made, NotIssued>> + Send + 'static;
}

/// The X509-SVID of one stream.
pub(crate) struct RemoteSvid<M> {
    maker: M,
    trust: watch::Receiver<Arc<Trust>>,
    clock: Clock,
    metrics: Metrics,
    wanted: bool,
    held: Option<Held>,
    /// At most one; ends with the stream.
    making: JoinSet<Result<Made, NotIssued>>,
    begun_at: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
}

struct Held {
    made: Made,
    leaf: LeafFacts,
    /// The bundle that it was checked against.
    bundle: Arc<TrustBundle>,
    renew_at: SystemTime,
    send_before: SystemTime,
}

impl<M: Maker> RemoteSvid<M> {
    pub(crate) fn new(
        maker: M,
        trust: watch::Receiver<Arc<Trust>>,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self {
            maker,
            trust,
            clock,
            metrics,
            wanted: false,
            held: None,
            making: JoinSet::new(),
            begun_at: None,
            retry_at: None,
            failures: 0,
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether the stream now asks for it. A key that nobody asks for is not kept; the pause after a
    /// failure is.
    pub(crate) fn want(&mut self, wanted: bool) {
        if !wanted {
            self.held = None;
            // with what is done and was not looked at
            self.making = JoinSet::new();
        } else if !self.wanted {
            let soonest = self.begun_at.map(|at| at + BEGUN_AT_MOST_EVERY);
            match self.retry_at.max(soonest) {
                Some(at) if at > Instant::now() => self.retry_at = Some(at),
                _ => self.begin(),
            }
        }
        self.wanted = wanted;
    }

    /// `None` also while it is being made.
    pub(crate) fn secret(&self, name: &str) -> Option<VersionedSecret> {
        let made = &self.ready()?.made;
        let chain: String = made
            .chain
            .iter()
            .map(|certificate| pem("CERTIFICATE", certificate))
            .collect();
        let key = Zeroizing::new(pem("PRIVATE KEY", &made.key));
        Some(svid_secret(name, &chain, &key))
    }

    /// It is wanted, and there is nothing to send yet.
    pub(crate) fn is_being_made(&self) -> bool {
        self.wanted && self.ready().is_none()
    }

    fn ready(&self) -> Option<&Held> {
        let held = self.held.as_ref()?;
        let checked = Arc::ptr_eq(&held.bundle, &self.trust.borrow().bundle);
        (checked && (self.clock)() < held.send_before).then_some(held)
    }

    /// Completes when the secret has changed. Cancelled and called again at will.
    pub(crate) async fn changed(&mut self) {
        if !self.wanted {
            return std::future::pending().await;
        }
        loop {
            let retry_at = self.retry_at;
            let renew_at = self.held.as_ref().map(|held| held.renew_at);
            let idle = self.making.is_empty();
            tokio::select! {
                Some(made) = self.making.join_next() => {
                    let changed = match made {
                        Ok(Ok(made)) => self.take(made),
                        Ok(Err(error)) => self.failed(&error.to_string()),
                        Err(_) => self.failed("a defect; see the panic above"),
                    };
                    if changed {
                        return;
                    }
                }
                Ok(()) = self.trust.changed() => {
                    self.look_at_trust();
                    return;
                }
                () = sleep_until(retry_at), if idle => self.begin(),
                () = due(self.clock, renew_at), if idle && retry_at.is_none() => self.begin(),
            }
        }
    }

    fn begin(&mut self) {
        let urgency = match self.held {
            Some(_) => Urgency::Renewal,
            None => Urgency::First,
        };
        self.retry_at = None;
        self.begun_at = Some(Instant::now());
        self.making.spawn(self.maker.make(urgency));
    }

    /// Takes what was made if it is whole, and alarms if not (SDS-S18). What was held before goes
    /// on meanwhile.
    fn take(&mut self, made: Made) -> bool {
        let now = (self.clock)();
        // not marked as seen: what came meanwhile is still to be looked at
        let trust = Arc::clone(&self.trust.borrow());
        let bundle = Arc::clone(&trust.bundle);
        match check_svid(&made.chain, &made.key, &bundle, now) {
            Ok(leaf) => {
                let life = leaf.not_after.duration_since(now).unwrap_or_default();
                let renew_at = now.checked_add(around_half(life)).unwrap_or(now);
                let rest = leaf
                    .not_after
                    .duration_since(leaf.not_before)
                    .unwrap_or_default()
                    / REST;
                self.held = Some(Held {
                    send_before: leaf.not_after.checked_sub(rest).unwrap_or(now),
                    made,
                    leaf,
                    bundle,
                    renew_at,
                });
                self.failures = 0;
                // another issuing CA may have come, and been looked at, while this was made
                self.replace_if_of_another_authority(&trust, now);
                true
            }
            Err(broken) => {
                self.metrics.broken_secret();
                tracing::error!(
                    error = %broken,
                    "a secret is broken at its source and is not sent to anybody: the client keeps what it has"
                );
                self.back_off();
                false
            }
        }
    }

    fn failed(&mut self, error: &str) -> bool {
        self.back_off();
        tracing::warn!(
            error,
            tries = self.failures,
            "no X509-SVID for a client without a certificate request: tried again"
        );
        false
    }

    fn back_off(&mut self) {
        let doubled = 2_u32.saturating_pow(self.failures);
        let pause = FIRST_BACK_OFF.saturating_mul(doubled).min(LAST_BACK_OFF);
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(Instant::now() + pause / 2 + random_share(pause / 2));
    }

    /// What is held must be of the issuing CA that signs now: if not, it is good for the moments
    /// until its turn.
    fn replace_if_of_another_authority(&mut self, trust: &Trust, now: SystemTime) {
        let Some(held) = &mut self.held else { return };
        if held.made.issuer_key_id == trust.authority.facts().key_id {
            return;
        }
        let left = held.leaf.not_after.duration_since(now).unwrap_or_default();
        let soon = random_share(REPLACED_WITHIN.min(left / REST));
        held.renew_at = held.renew_at.min(now.checked_add(soon).unwrap_or(now));
    }

    /// What is held must be vouched for by the bundle that is served now.
    fn look_at_trust(&mut self) {
        let trust = Arc::clone(&self.trust.borrow_and_update());
        let now = (self.clock)();
        let Some(held) = &mut self.held else { return };
        let vouched = check_svid(&held.made.chain, &held.made.key, &trust.bundle, now);
        match vouched {
            Ok(_) => {
                held.bundle = Arc::clone(&trust.bundle);
                self.replace_if_of_another_authority(&trust, now);
            }
            Err(reason) => {
                let serial = &held.leaf.serial;
                tracing::info!(%serial, %reason, "an X509-SVID that was made here is no longer sent");
                self.held = None;
                if self.making.is_empty() {
                    self.begin();
                }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn due(clock: Clock, at: Option<SystemTime>) {
    match at {
        Some(at) => wait_until(clock, at).await,
        None => std::future::pending().await,
    }
}

/// Half of a life, give or take a tenth of that, so that what was made together is not renewed
/// together (SDS-S19).
fn around_half(life: Duration) -> Duration {
    let least = life.saturating_mul(45) / 100;
    least.saturating_add(random_share(life / 10))
}

/// Somewhere between nothing and all of it.
fn random_share(of: Duration) -> Duration {
    // Without random numbers everybody is in the middle, which is no reason to fail.
    let random = random_bytes::<2>().map_or(u16::MAX / 2, u16::from_be_bytes);
    of.saturating_mul(u32::from(random)) / u32::from(u16::MAX)
}

#[cfg(test)]
mod tests;
