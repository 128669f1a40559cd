use std::time::Duration;

use mesh_lite_proto::trust_bundle::TrustBundle;
use spiffe::TrustDomain;

use super::*;
use crate::{
    certificate_authority::{
        authority::IssuingAuthority,
        root::Root,
        rotation::{Found, Rotation},
    },
    clock::from_unix_seconds,
};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

/// A root that lives so long, an issuing CA that lives so long, both made now.
fn trust(root: Duration, issuing: Duration) -> std::sync::Arc<Trust> {
    let trust_domain = TrustDomain::new("mesh.test").unwrap();
    let root = Root::create(&trust_domain, root, now()).unwrap();
    let new = root.sign_issuing_authority(issuing, now()).unwrap();
    let bundle = TrustBundle::new(trust_domain.clone(), vec![root.certificate().clone()]).unwrap();
    let authority = IssuingAuthority::new(new.certificate, new.key, &trust_domain).unwrap();
    Rotation::start(Found { bundle, authority }, HOUR, now())
        .unwrap()
        .trust()
}

/// Not an hour before, and an hour after.
fn speaks_from(trust: &Trust, mode: RootMode, hours: u32) {
    let said = |hours: u32| expiry_warnings(trust, mode, now() + hours * HOUR);
    assert_eq!(said(hours - 1), [""; 0], "{hours}");
    assert_eq!(said(hours + 1).len(), 1, "{hours}");
}

#[test]
fn speaks_sixty_days_before_the_end_of_what_a_person_renews() {
    for (lifetime, first) in [(365, 305), (366, 306), (200, 140), (90, 45)] {
        let trust = trust(3650 * DAY, lifetime * DAY);
        speaks_from(&trust, RootMode::Offline, first * 24);
    }
}

#[test]
fn speaks_in_the_last_quarter_of_what_a_timer_should_have_renewed_at_half() {
    for (lifetime, first) in [(30, 22 * 24 + 12), (90, 67 * 24 + 12), (4, 3 * 24)] {
        let trust = trust(3650 * DAY, lifetime * DAY);
        speaks_from(&trust, RootMode::Kept, first);
    }
}

#[test]
fn says_what_to_do_by_the_mode() {
    let trust = trust(3650 * DAY, 30 * DAY);
    let late = now() + 29 * DAY;
    let [kept] = expiry_warnings(&trust, RootMode::Kept, late)
        .try_into()
        .unwrap();
    assert!(kept.contains("look why its timer did not"), "{kept}");
    let [offline] = expiry_warnings(&trust, RootMode::Offline, late)
        .try_into()
        .unwrap();
    assert!(offline.contains("bring the root and run `mesh-lite root renew --root-dir`"));
    for text in [&kept, &offline] {
        assert!(
            text.contains("nobody can be certified after that"),
            "{text}"
        );
        // dates, not days left: said once in a log
        let later = expiry_warnings(&trust, RootMode::Kept, late + HOUR);
        assert!(later.contains(&kept), "{later:?}");
    }
}

#[test]
fn speaks_of_the_root_in_both_modes() {
    let trust = trust(100 * DAY, 100 * DAY);
    for mode in [RootMode::Kept, RootMode::Offline] {
        let said = expiry_warnings(&trust, mode, now() + 90 * DAY);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[1].contains("mesh-lite root init --root-dir"),
            "{said:?}"
        );
        assert_eq!(expiry_warnings(&trust, mode, now() + 40 * DAY), [""; 0]);
    }
}
