use spiffe::TrustDomain;

use super::*;
use crate::{certificate_authority::root::Root, clock::from_unix_seconds};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn root() -> Root {
    Root::create(&trust_domain(), 365 * DAY, now()).unwrap()
}

fn issuing(root: &Root) -> IssuingAuthority {
    let new = root.sign_issuing_authority(30 * DAY, now()).unwrap();
    IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap()
}

fn same(authority: &IssuingAuthority, of: &Trust) -> bool {
    authority.certificate() == of.authority.certificate()
}

fn bundle(roots: &[&Root]) -> TrustBundle {
    let certificates = roots
        .iter()
        .map(|root| root.certificate().clone())
        .collect();
    TrustBundle::new(trust_domain(), certificates).unwrap()
}

/// A rotation under one root, and its first issuing CA signed again for a second look.
fn started(root: &Root) -> Rotation {
    let found = Found {
        bundle: bundle(&[root]),
        authority: issuing(root),
    };
    Rotation::start(found, DAY, now()).unwrap()
}

#[test]
fn activates_a_new_issuing_authority_of_a_known_root_at_once() {
    let root = root();
    let mut rotation = started(&root);
    let next = issuing(&root);
    let key_id = next.facts().key_id.clone();
    let found = Found {
        bundle: bundle(&[&root]),
        authority: next,
    };
    assert_eq!(
        rotation.look(found, now()),
        Ok(Step::Activated {
            key_id: key_id.clone()
        })
    );
    assert_eq!(rotation.trust().authority.facts().key_id, key_id);
}

/// SDS-S17: bundle first, then the settle time, then the new authority.
#[test]
fn announces_a_new_root_before_it_signs_anything() {
    let (old, new) = (root(), root());
    let mut rotation = started(&old);
    let next = new.sign_issuing_authority(30 * DAY, now()).unwrap();
    let key = next.key.serialize_der();
    let found = || Found {
        bundle: bundle(&[&old, &new]),
        authority: IssuingAuthority::new(
            next.certificate.clone(),
            key.clone().try_into().unwrap(),
            &trust_domain(),
        )
        .unwrap(),
    };
    let until = now() + SETTLE;
    assert_eq!(rotation.look(found(), now()), Ok(Step::Prepared { until }));
    assert_eq!(*rotation.trust().bundle, bundle(&[&old, &new]));
    assert!(!same(&found().authority, &rotation.trust()));
    let soon = until - Duration::from_millis(1);
    assert_eq!(rotation.look(found(), soon), Ok(Step::Prepared { until }));
    assert!(!same(&found().authority, &rotation.trust()));
    let key_id = next.facts.key_id.clone();
    assert_eq!(
        rotation.look(found(), until),
        Ok(Step::Activated { key_id })
    );
    assert!(same(&found().authority, &rotation.trust()));
    assert_eq!(rotation.look(found(), until), Ok(Step::Unchanged));
}

#[test]
fn forgets_when_a_root_was_announced_that_was_withdrawn() {
    let (old, new) = (root(), root());
    let mut rotation = started(&old);
    let (certificate, key) = {
        let first = rotation.trust();
        let new = new.sign_issuing_authority(30 * DAY, now()).unwrap();
        assert_ne!(first.authority.certificate(), &new.certificate);
        (new.certificate, new.key.serialize_der())
    };
    let next = || {
        let key = key.clone().try_into().unwrap();
        IssuingAuthority::new(certificate.clone(), key, &trust_domain()).unwrap()
    };
    let both = || Found {
        bundle: bundle(&[&old, &new]),
        authority: next(),
    };
    rotation.look(both(), now()).unwrap();
    let only_old = Found {
        bundle: bundle(&[&old]),
        authority: issuing(&old),
    };
    rotation.look(only_old, now() + SETTLE / 2).unwrap();
    let again = now() + SETTLE;
    let until = again + SETTLE;
    assert_eq!(rotation.look(both(), again), Ok(Step::Prepared { until }));
}

#[test]
fn keeps_the_root_of_the_active_authority_in_the_bundle() {
    let (old, new) = (root(), root());
    let mut rotation = started(&old);
    let found = Found {
        bundle: bundle(&[&new]),
        authority: issuing(&new),
    };
    assert_eq!(
        rotation.look(found, now()),
        Err(RotationError::RootDroppedTooEarly)
    );
    assert_eq!(*rotation.trust().bundle, bundle(&[&old]));
}

#[test]
fn refuses_an_authority_that_no_root_signed_or_that_is_not_valid_now() {
    let (own, other) = (root(), root());
    let found = || Found {
        bundle: bundle(&[&own]),
        authority: issuing(&own),
    };
    let stranger = Found {
        bundle: bundle(&[&own]),
        authority: issuing(&other),
    };
    let refused = |found: Found, now: SystemTime| Rotation::start(found, DAY, now).err().unwrap();
    assert!(matches!(
        refused(stranger, now()),
        RotationError::Authority(InvalidAuthority::NotOfThisBundle)
    ));
    assert!(matches!(
        refused(found(), now() + 31 * DAY),
        RotationError::Authority(InvalidAuthority::Expired(_))
    ));
    assert!(matches!(
        refused(found(), now() - DAY),
        RotationError::Authority(InvalidAuthority::NotYetValid(_))
    ));
}

#[test]
fn refuses_leaves_of_more_than_half_the_authoritys_life() {
    let own = root();
    let found = || Found {
        bundle: bundle(&[&own]),
        authority: issuing(&own),
    };
    assert!(Rotation::start(found(), 15 * DAY, now()).is_ok());
    let refused = Rotation::start(found(), 16 * DAY, now()).err().unwrap();
    assert!(
        refused.to_string().contains("lower --leaf-lifetime"),
        "{refused}"
    );
}
