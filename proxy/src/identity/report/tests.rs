use super::*;
use crate::{
    clock::ClockSkew,
    identity::renewal_state::RenewalFailure,
    tls::fixture::{Authority, WEB},
};

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn failure() -> RenewalFailure {
    RenewalFailure {
        error: "away".to_owned(),
        advice: "look".to_owned(),
        since: at(10),
        attempts: 2,
        next_attempt: at(20),
    }
}

fn due(seconds: u64) -> RenewalState {
    RenewalState {
        due: Some(at(seconds)),
        ..RenewalState::default()
    }
}

#[test]
fn a_certificate_whose_renewal_is_still_to_come_is_valid() {
    assert_eq!(verdict(Some(at(100)), &due(50), at(20)), Verdict::Valid);
    // its renewal is under way
    assert_eq!(verdict(Some(at(100)), &due(50), at(51)), Verdict::Valid);
}

#[test]
fn a_renewal_that_does_not_happen_is_overdue_before_the_end() {
    let late = verdict(Some(at(1000)), &due(50), at(111));
    assert_eq!(late, Verdict::Overdue);
}

#[test]
fn a_failed_attempt_is_told_although_the_certificate_holds() {
    let state = RenewalState {
        failure: Some(failure()),
        ..due(50)
    };
    assert_eq!(verdict(Some(at(1000)), &state, at(60)), Verdict::Failing);
}

#[test]
fn none_is_told_from_one_that_has_ended() {
    let nothing = RenewalState::default();
    assert_eq!(verdict(None, &nothing, at(0)), Verdict::NoCertificate);
    let ended = RenewalState {
        ended: Some(at(5)),
        failure: Some(failure()),
        ..nothing
    };
    assert_eq!(verdict(None, &ended, at(6)), Verdict::Expired);
    assert_eq!(verdict(Some(at(6)), &due(3), at(6)), Verdict::Expired);
}

#[test]
fn a_report_names_the_signer_and_the_root_among_several() {
    let (root, other) = (Authority::root(), Authority::root());
    let issuing = root.intermediate(|_| ());
    let (leaf, key) = issuing.leaf(WEB, |_| ());
    let bundle = TrustBundle::new(
        "a.test".parse().unwrap(),
        vec![other.certificate, root.certificate.clone()],
    )
    .unwrap();
    let identity = Identity {
        revision: 7,
        leaf: mesh_lite_proto::svid::inspect_leaf(&leaf).unwrap(),
        chain: vec![leaf, issuing.certificate.clone()],
        key: crate::identity::PrivateKey::from_pkcs8(key.serialize_der()),
        trust_bundle: std::sync::Arc::new(bundle),
    };
    let state = RenewalState {
        clock_skew: Some(ClockSkew { seconds: -4 }),
        ..due(50)
    };
    let report = IdentityReport::new(Some(&identity), &state, at(20));
    let certificate = report.certificate.clone().unwrap();
    assert_eq!(certificate.spiffe_id, WEB);
    let key_id = |der| AuthorityReport::of(der).key_id.unwrap();
    assert_eq!(
        certificate.issuer.key_id,
        Some(key_id(&issuing.certificate))
    );
    assert_eq!(
        certificate.root.unwrap().key_id,
        Some(key_id(&root.certificate))
    );
    assert_eq!((certificate.roots, certificate.revision), (2, 7));
    assert_eq!(report.clock_skew_seconds, Some(-4));
}

#[test]
fn a_report_survives_its_way_through_the_page_and_holds_no_key() {
    let identity = Authority::root().identity(WEB);
    let state = RenewalState {
        failure: Some(failure()),
        ..due(50)
    };
    let report = IdentityReport::new(Some(&identity), &state, at(20));
    let page = serde_json::to_string(&report).unwrap();
    assert_eq!(
        serde_json::from_str::<IdentityReport>(&page).unwrap(),
        report
    );
    for window in identity.key.secret_bytes().windows(16) {
        assert!(!page.contains(&hex(window)), "{page}");
    }
}
