//! When a new root is announced and when a new issuing CA begins to sign. Pure: files and clock
//! are arguments.
//!
//! An authority is *prepared* when it lies in the data directory, *active* when it signs, and
//! *retired* when another one does. A root is announced before anything signed by it is handed
//! out, or peers that have not heard of it would refuse each other (SDS-S17).

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::trust_bundle::TrustBundle;
use rustls_pki_types::CertificateDer;

use super::{
    authority::IssuingAuthority, authority_facts::InvalidAuthority, trial::check_as_peers_do,
};

/// A client that lost its stream may take this long to come back (Envoy's cap is 30 s) and hear
/// of a new root.
pub(crate) const SETTLE: Duration = Duration::from_secs(35);
/// In a cluster each replica learns of a new root from its own kubelet, which looks at volumes every
/// 60 to 90 s: none may sign under it before the last one can have told its sidecars.
pub(crate) const SETTLE_IN_CLUSTER: Duration = SETTLE.saturating_add(Duration::from_secs(90));
/// An issuing CA that lives less than twice as long as its leaves would cut them short for most
/// of its life.
const MIN_LIFETIMES: u32 = 2;

/// What everybody trusts, and who signs: published whole.
#[derive(Clone)]
pub(crate) struct Trust {
    pub(crate) bundle: Arc<TrustBundle>,
    pub(crate) authority: Arc<IssuingAuthority>,
}

/// What lies in the data directory.
pub(crate) struct Found {
    pub(crate) bundle: TrustBundle,
    pub(crate) authority: IssuingAuthority,
}

/// What to tell after a look at the data directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Unchanged,
    Announced,
    Activated {
        key_id: String,
    },
    /// A new issuing CA waits until its root is known everywhere.
    Prepared {
        until: SystemTime,
    },
}

pub(crate) struct Rotation {
    trust: Arc<Trust>,
    leaf_lifetime: Duration,
    settle: Duration,
    /// When each root that came while we ran was announced.
    announced: Vec<(CertificateDer<'static>, SystemTime)>,
}

impl Rotation {
    /// # Errors
    /// If the issuing CA can't serve: the control plane then refuses to start.
    pub(crate) fn start(
        found: Found,
        leaf_lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, RotationError> {
        check(&found.authority, &found.bundle, leaf_lifetime, now)?;
        check_as_peers_do(&found.authority, &found.bundle, now)?;
        let trust = Arc::new(Trust {
            bundle: Arc::new(found.bundle),
            authority: Arc::new(found.authority),
        });
        Ok(Self {
            trust,
            leaf_lifetime,
            settle: SETTLE,
            announced: Vec::new(),
        })
    }

    /// How long a root is announced before anything is signed under it.
    pub(crate) fn settle_for(&mut self, settle: Duration) {
        self.settle = settle;
    }

    pub(crate) fn leaf_lifetime(&self) -> Duration {
        self.leaf_lifetime
    }

    pub(crate) fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust)
    }

    /// # Errors
    /// If what was found can't serve: what was there before then goes on.
    pub(crate) fn look(&mut self, found: Found, now: SystemTime) -> Result<Step, RotationError> {
        check(&found.authority, &found.bundle, self.leaf_lifetime, now)?;
        let same_bundle = found.bundle == *self.trust.bundle;
        let same_authority = found.authority.chain().eq(self.trust.authority.chain());
        if same_bundle && same_authority {
            return Ok(Step::Unchanged);
        }
        check_as_peers_do(&found.authority, &found.bundle, now)?;
        // The leaves in use were signed by the active authority: its root may go only together
        // with it, after the next one is active.
        if self.trust.authority.root_in(&found.bundle).is_err() {
            return Err(RotationError::RootDroppedTooEarly);
        }
        self.remember_new_roots(&found.bundle, now);
        let root = found.authority.root_in(&found.bundle)?.clone();
        let activates_at = self.activates_at(&root, now);
        if same_authority || activates_at > now {
            self.publish(found.bundle, None);
            return Ok(match (same_authority, same_bundle) {
                (true, _) => Step::Announced,
                (false, _) => Step::Prepared {
                    until: activates_at,
                },
            });
        }
        let key_id = found.authority.facts().key_id.clone();
        self.publish(found.bundle, Some(found.authority));
        Ok(Step::Activated { key_id })
    }

    fn remember_new_roots(&mut self, bundle: &TrustBundle, now: SystemTime) {
        self.announced
            .retain(|(root, _)| bundle.authorities().contains(root));
        for root in bundle.authorities() {
            let known = self.trust.bundle.authorities().contains(root);
            if !known
                && !self
                    .announced
                    .iter()
                    .any(|(announced, _)| announced == root)
            {
                self.announced.push((root.clone(), now));
            }
        }
    }

    fn activates_at(&self, root: &CertificateDer<'_>, now: SystemTime) -> SystemTime {
        let announced = self
            .announced
            .iter()
            .find(|(announced, _)| announced == root);
        announced
            .and_then(|(_, since)| since.checked_add(self.settle))
            .unwrap_or(now)
    }

    fn publish(&mut self, bundle: TrustBundle, authority: Option<IssuingAuthority>) {
        let authority = authority.map_or_else(|| Arc::clone(&self.trust.authority), Arc::new);
        self.trust = Arc::new(Trust {
            bundle: Arc::new(bundle),
            authority,
        });
    }
}

fn check(
    authority: &IssuingAuthority,
    bundle: &TrustBundle,
    leaf_lifetime: Duration,
    now: SystemTime,
) -> Result<(), RotationError> {
    authority.check_time(now)?;
    authority.root_in(bundle)?;
    let lifetime = authority.facts().lifetime();
    if lifetime < leaf_lifetime.saturating_mul(MIN_LIFETIMES) {
        return Err(RotationError::TooShort {
            lifetime,
            leaf_lifetime,
        });
    }
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RotationError {
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    #[error(
        "the issuing CA lives {lifetime:?} and leaves live {leaf_lifetime:?}: it must live at least {MIN_LIFETIMES} times as long. \
         Sign a longer one with `mesh-lite root renew --issuing-lifetime`, or lower --leaf-lifetime"
    )]
    TooShort {
        lifetime: Duration,
        leaf_lifetime: Duration,
    },
    #[error(
        "the root of the active issuing CA is missing in the trust bundle: its leaves are in use. \
         Put it back, let the next issuing CA become active and its leaves take over, then drop it"
    )]
    RootDroppedTooEarly,
}

#[cfg(test)]
mod tests;
