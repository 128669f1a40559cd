//! What the socket hands out now: made from each identity once, checked before anybody sees it.

use std::{sync::Arc, time::SystemTime};

use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::{
        ALL_BUNDLES, BundleForm, DEFAULT_SVID, OWN_BUNDLE, VersionedSecret, bundle_secret,
        svid_secret,
    },
    trust_bundle::{TrustBundle, pem},
};
use tokio::sync::watch;

use crate::{
    clock::Clock,
    identity::{
        Identity,
        issued_chain::{UnusableChain, check_chain},
    },
    metrics::Metrics,
};

/// The last tenth of its life: a certificate that is this close to its end is sent to nobody
/// (SDS-S19). Ours is renewed at half, so it comes to this only if that has failed for long.
const REST: u32 = 10;

/// Replaced whole: no stream sees half of one identity and half of another (SDS-S30).
#[derive(Default)]
pub(super) struct Served {
    svid: Option<OwnSvid>,
    bundle: Option<Arc<TrustBundle>>,
}

/// Key and chain in one secret, under both of its names.
struct OwnSvid {
    id: WorkloadId,
    not_before: SystemTime,
    send_before: SystemTime,
    by_default: VersionedSecret,
    by_id: VersionedSecret,
}

impl Served {
    /// What of an identity may be handed out: the bundle in any case, key and chain only if
    /// peers would take them (SDS-S18).
    fn of(identity: &Identity, now: SystemTime) -> (Self, Option<UnusableChain>) {
        let bundle = &identity.trust_bundle;
        let checked = check_chain(&identity.chain, &identity.key, bundle, None, now);
        let (svid, broken) = match checked {
            Ok(_) => (Some(OwnSvid::of(identity)), None),
            Err(reason) => (None, Some(reason)),
        };
        let served = Self {
            svid,
            bundle: Some(Arc::clone(bundle)),
        };
        (served, broken)
    }

    /// `None`: nothing of that name, at least not now.
    pub(super) fn secret(
        &self,
        name: &str,
        form: BundleForm,
        now: SystemTime,
    ) -> Option<VersionedSecret> {
        match name {
            DEFAULT_SVID => Some(self.svid_at(now)?.by_default.clone()),
            OWN_BUNDLE => self.bundle_secret(name, form),
            ALL_BUNDLES => self.bundle_secret(name, BundleForm::SpiffeValidator),
            _ => match self.svid_at(now) {
                Some(svid) if svid.id.as_str() == name => Some(svid.by_id.clone()),
                _ => self.named_bundle(name, form),
            },
        }
    }

    /// The SVID, as long as peers would take it for a while.
    fn svid_at(&self, now: SystemTime) -> Option<&OwnSvid> {
        self.svid
            .as_ref()
            .filter(|svid| svid.not_before <= now && now < svid.send_before)
    }

    fn named_bundle(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        let own = self.bundle.as_ref()?.trust_domain().to_string();
        let asked = name.strip_prefix("spiffe://")?;
        (asked == own).then(|| self.bundle_secret(name, form))?
    }

    fn bundle_secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        let bundle = self.bundle.as_ref()?;
        Some(VersionedSecret::new(bundle_secret(name, &[bundle], form)))
    }
}

impl OwnSvid {
    fn of(identity: &Identity) -> Self {
        let chain: String = identity
            .chain
            .iter()
            .map(|certificate| pem("CERTIFICATE", certificate))
            .collect();
        let key = identity.key.to_pem();
        let id = identity.leaf.id.clone();
        let (begin, end) = (identity.leaf.not_before, identity.leaf.not_after);
        let rest = end.duration_since(begin).unwrap_or_default() / REST;
        Self {
            not_before: begin,
            send_before: end.checked_sub(rest).unwrap_or(begin),
            by_default: svid_secret(DEFAULT_SVID, &chain, &key),
            by_id: svid_secret(id.as_str(), &chain, &key),
            id,
        }
    }
}

/// Runs until the identity's owner is gone.
pub(super) async fn follow(
    mut identities: watch::Receiver<Option<Arc<Identity>>>,
    served: watch::Sender<Arc<Served>>,
    metrics: Metrics,
    clock: Clock,
) {
    loop {
        let identity = identities.borrow_and_update().clone();
        let (next, broken) = match &identity {
            Some(identity) => Served::of(identity, clock()),
            // it has ended, or none has come: peers are still known by the last bundle
            None => (
                Served {
                    svid: None,
                    bundle: served.borrow().bundle.clone(),
                },
                None,
            ),
        };
        if let Some(reason) = broken {
            metrics.broken_secret();
            tracing::error!(
                %reason,
                "our own certificate is handed to nobody at the workload socket: peers would refuse it"
            );
        }
        served.send_replace(Arc::new(next));
        if identities.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
