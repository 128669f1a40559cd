//! Trust bundles and the active authority as SDS secrets.

use std::sync::Arc;

use mesh_lite_proto::secret_discovery::{
    ACTIVE_AUTHORITY, ALL_BUNDLES, BundleForm, OWN_BUNDLE, Secrets, VersionedSecret,
    active_authority_secret, bundle_secret,
};

use crate::certificate_authority::rotation::Trust;

/// What every caller of the trust domain may have. SVIDs are not here: a client that makes its
/// own key asks for one at a time, with FetchSecrets.
pub(crate) struct PublicSecrets(pub(crate) Arc<Trust>);

impl PublicSecrets {
    /// The name and form that a bundle is asked by; `None` if it is no bundle of ours.
    fn bundle_form(&self, name: &str, form: BundleForm) -> Option<BundleForm> {
        match name {
            OWN_BUNDLE => Some(form),
            ALL_BUNDLES => Some(BundleForm::SpiffeValidator),
            _ => {
                let trust_domain = self.0.bundle.trust_domain().to_string();
                (name.strip_prefix("spiffe://") == Some(&trust_domain)).then_some(form)
            }
        }
    }
}

impl Secrets for PublicSecrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        if name == ACTIVE_AUTHORITY {
            let key_id = &self.0.authority.facts().key_id;
            return Some(VersionedSecret::new(active_authority_secret(key_id)));
        }
        let form = self.bundle_form(name, form)?;
        Some(VersionedSecret::new(bundle_secret(
            name,
            &[&self.0.bundle],
            form,
        )))
    }
}
