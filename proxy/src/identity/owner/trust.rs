//! Whom the identity's owner believes: the bundle file, what the control plane announces, and
//! which issuing CA is in use.

use std::sync::Arc;

use mesh_lite_proto::trust_bundle::TrustBundle;
use tokio::time::Instant;

use super::{
    super::{
        issued_chain::{check_chain, end_of, issuer_key_id},
        issuer_client::IssueError,
        secret_stream::Announced,
        trust_bundle_file,
    },
    IdentityOwner, Leaf,
};
use crate::metrics::{BreakageCause, CertificateKind};

impl IdentityOwner {
    /// Adopts the bundle file if it changed since it was last read.
    pub(super) fn read_bundle_file(&mut self) -> Result<(), IssueError> {
        let path = &self.settings.trust_bundle_file;
        let read = trust_bundle_file::read(path, &self.settings.trust_domain)?;
        let digest = read.digest();
        if *self.outputs.bundle_file.borrow() == digest {
            return Ok(());
        }
        self.outputs.bundle_file.send_replace(digest);
        self.set_bundle(Arc::new(read));
        self.republish_with_bundle();
        Ok(())
    }

    pub(super) fn follow_announcement(&mut self) {
        let Announced {
            trust_bundle,
            active_authority,
        } = self.announced.borrow_and_update().clone();
        if let Some(bundle) = trust_bundle
            && self.bundle.as_ref() != Some(&bundle)
        {
            self.set_bundle(bundle);
            self.republish_with_bundle();
        }
        if let Some(active) = active_authority {
            self.follow_authority(active);
        }
    }

    /// Asks for a certificate of the authority in use, once for each that is announced.
    fn follow_authority(&mut self, active: Arc<str>) {
        let Some(identity) = self.current() else {
            return;
        };
        let ours = identity.chain.first().and_then(issuer_key_id);
        if ours.as_deref() == Some(&*active) || self.followed_authority.as_ref() == Some(&active) {
            return;
        }
        tracing::info!(authority = %active, "another issuing CA is in use: rotating");
        self.followed_authority = Some(active);
        let point = self.schedule.rotation_point((self.clock)(), &identity.leaf);
        self.renew_at = self.renew_at.min(point);
        self.retry_at = Instant::now();
    }

    pub(super) fn set_bundle(&mut self, bundle: Arc<TrustBundle>) {
        self.bundle_generation = self.bundle_generation.saturating_add(1);
        self.outputs
            .metrics
            .bundle_generation(self.bundle_generation);
        let ends = bundle
            .authorities()
            .iter()
            .filter_map(|root| end_of(root))
            .max();
        if let Some(end) = ends {
            self.outputs
                .metrics
                .certificate_expires(CertificateKind::Root, end);
            self.outputs
                .metrics
                .breakage_at(BreakageCause::TrustBundle, Some(end));
        }
        tracing::info!(
            roots = bundle.authorities().len(),
            digest = bundle.digest(),
            "trust bundle"
        );
        self.bundle = Some(bundle);
    }

    /// The same leaf with another bundle. If the bundle no longer proves our own leaf, a new one
    /// is due at once: peers will refuse this one.
    fn republish_with_bundle(&mut self) {
        let (Some(identity), Some(bundle)) = (self.current(), &self.bundle) else {
            return;
        };
        let now = (self.clock)();
        if let Err(reason) = check_chain(&identity.chain, &identity.key, bundle, None, now) {
            tracing::warn!(%reason, "the new trust bundle does not prove our own certificate");
            self.renew_at = now;
            self.retry_at = Instant::now();
        }
        self.publish(Leaf {
            leaf: identity.leaf.clone(),
            chain: identity.chain.clone(),
            key: identity.key.copy(),
        });
    }
}
