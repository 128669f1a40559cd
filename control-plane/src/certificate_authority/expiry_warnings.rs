//! What breaks the mesh if nobody acts, in sentences that say what to do. Pure: clock and facts
//! are arguments.

use std::time::SystemTime;

use super::{
    authority_facts::AuthorityFacts,
    root_mode::{RootMode, root_warns_from},
    rotation::Trust,
};
use crate::clock::readable;

/// A sentence for each end that is near. They name dates, not days left: each is logged once.
pub(crate) fn expiry_warnings(trust: &Trust, mode: RootMode, now: SystemTime) -> Vec<String> {
    let issuing = trust.authority.facts();
    let mut warnings = Vec::new();
    if now > mode.warns_from(issuing) {
        warnings.push(issuing_ends(issuing, mode, now));
    }
    if let Some(root) = root_facts(trust).filter(|root| now > root_warns_from(root)) {
        let until = readable(root.not_after);
        warnings.push(format!(
            "the root ends at {until} and with it everything that it vouches for: make the next one with \
             `mesh-lite root init --root-dir ANOTHER_DIRECTORY`, which adds it to the trust bundle and signs \
             with it; drop the old one from trust-bundle.pem when the last leaf signed under it has ended"
        ));
    }
    warnings
}

fn issuing_ends(facts: &AuthorityFacts, mode: RootMode, now: SystemTime) -> String {
    let ends = if now < facts.not_after {
        "ends"
    } else {
        "ended"
    };
    let until = readable(facts.not_after);
    let what_to_do = match mode {
        RootMode::Kept => format!(
            "root mode is kept, so `mesh-lite root renew --if-due` should have signed the next one at {}: \
             look why its timer did not, or run it now",
            readable(facts.half_life())
        ),
        RootMode::Offline => {
            "root mode is offline: bring the root and run `mesh-lite root renew --root-dir` with \
             the place where it lies, or `mesh-lite root import` if another PKI signs"
                .to_owned()
        }
    };
    format!("the issuing CA {ends} at {until} and nobody can be certified after that; {what_to_do}")
}

/// The root of the active issuing CA. An imported one may say less than ours.
pub(crate) fn root_facts(trust: &Trust) -> Option<AuthorityFacts> {
    let root = trust.authority.root_in(&trust.bundle).ok()?;
    AuthorityFacts::read(root).ok()
}

#[cfg(test)]
mod tests;
