use std::time::Duration;

use super::*;
use crate::tls::fixture::{Authority, WEB};

fn served() -> (Served, SystemTime) {
    let identity = Authority::root().identity(WEB);
    let (served, broken) = Served::of(&identity, crate::clock::now());
    assert!(broken.is_none(), "{broken:?}");
    let leaf = &identity.leaf;
    let life = leaf.not_after.duration_since(leaf.not_before).unwrap();
    (served, leaf.not_after - life / 10)
}

/// SDS-S18, SDS-S19
#[test]
fn a_certificate_is_not_handed_out_in_the_last_tenth_of_its_life() {
    let (served, end) = served();
    let found = |name, now| served.secret(name, BundleForm::default(), now).is_some();
    for name in [DEFAULT_SVID, WEB] {
        assert!(found(name, end - Duration::from_secs(1)));
        assert!(!found(name, end));
        assert!(!found(name, SystemTime::UNIX_EPOCH), "not yet valid");
    }
    assert!(found(OWN_BUNDLE, end));
}

/// SDS-S5
#[test]
fn a_name_that_only_looks_like_ours_is_unknown() {
    let (served, end) = served();
    let now = end - Duration::from_secs(1);
    let upper = WEB.replace("web", "Web");
    for name in [
        "",
        "Default",
        "default ",
        "spiffe://A.test",
        "spiffe://a.test/",
        "a.test",
        "spiffe://spiffe://a.test",
        &upper,
    ] {
        let found = served.secret(name, BundleForm::default(), now);
        assert!(found.is_none(), "{name:?}");
    }
}

/// SDS-S5, SDS-S6
#[test]
fn all_bundles_are_a_spiffe_validator_whatever_form_is_asked_for() {
    let (served, end) = served();
    let secret = |name, form| served.secret(name, form, end).unwrap().version;
    let both = [BundleForm::TrustedCa, BundleForm::SpiffeValidator];
    let [all, also_all] = both.map(|form| secret(ALL_BUNDLES, form));
    assert_eq!(all, also_all);
    let [plain, validator] = both.map(|form| secret(OWN_BUNDLE, form));
    assert_ne!(plain, validator);
}

/// SDS-S29
#[test]
fn what_is_served_shows_no_key() {
    let (served, end) = served();
    let now = end - Duration::from_secs(1);
    let secret = served.secret(DEFAULT_SVID, BundleForm::default(), now);
    let shown = format!("{secret:?}");
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("encoded"),
        "{shown}"
    );
}
