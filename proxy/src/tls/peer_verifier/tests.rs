use mesh_lite_proto::svid::InvalidLeaf;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use super::*;
use crate::tls::fixture::{API, Authority, WEB, unix_now};

fn judge(
    trusted: &Authority,
    chain: &[CertificateDer<'static>],
) -> Result<Arc<PeerIdentity>, PeerRefused> {
    PeerVerifier::new(trusted.bundle())
        .unwrap()
        .verify(chain, Role::Client, unix_now())
}

fn judge_leaf(change: impl FnOnce(&mut CertificateParams)) -> Result<WorkloadId, PeerRefused> {
    let root = Authority::root();
    let (leaf, _) = root.leaf(WEB, change);
    judge(&root, &[leaf]).map(|peer| peer.id().clone())
}

fn date(offset_days: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from(crate::clock::now()) + time::Duration::days(offset_days)
}

/// SPIFFE-V1, SPIFFE-V13
#[test]
fn accepts_a_leaf_of_the_bundle_and_through_an_intermediate_in_any_order() {
    assert_eq!(judge_leaf(|_| ()).unwrap().as_str(), WEB);
    let root = Authority::root();
    let (first, second) = (root.intermediate(|_| ()), root.intermediate(|_| ()));
    let (leaf, _) = first.leaf(API, |_| ());
    for issuers in [[&first, &second], [&second, &first]] {
        let chain = [
            leaf.clone(),
            issuers[0].certificate.clone(),
            issuers[1].certificate.clone(),
        ];
        assert_eq!(judge(&root, &chain).unwrap().id().as_str(), API);
    }
    assert!(matches!(judge(&root, &[leaf]), Err(PeerRefused::Chain(_))));
}

/// SPIFFE-V2, SPIFFE-V3, SPIFFE-V4, SPIFFE-V5, SPIFFE-V6, SPIFFE-V18
#[test]
fn refuses_leaves_that_are_not_svids_though_the_root_signed_them() {
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let refused = |change: &dyn Fn(&mut CertificateParams), reason: InvalidLeaf| {
        assert_eq!(judge_leaf(|p| change(p)), Err(PeerRefused::Leaf(reason)));
    };
    refused(
        &|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained),
        InvalidLeaf::IsAuthority,
    );
    refused(
        &|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
        InvalidLeaf::MaySign,
    );
    refused(&|p| p.key_usages.clear(), InvalidLeaf::NoKeyUsage);
    refused(&|p| p.subject_alt_names.clear(), InvalidLeaf::UriSans(0));
    refused(
        &|p| p.subject_alt_names.push(uri(API)),
        InvalidLeaf::UriSans(2),
    );
    refused(
        &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        InvalidLeaf::ExtendedKeyUsage,
    );
}

/// SPIFFE-V10
#[test]
fn refuses_a_leaf_outside_its_time() {
    let expired = judge_leaf(|p| (p.not_before, p.not_after) = (date(-3), date(-1)));
    assert!(matches!(
        expired,
        Err(PeerRefused::Chain(webpki::Error::CertExpired { .. }))
    ));
    let future = judge_leaf(|p| (p.not_before, p.not_after) = (date(1), date(3)));
    assert!(matches!(
        future,
        Err(PeerRefused::Chain(webpki::Error::CertNotValidYet { .. }))
    ));
}

/// SPIFFE-V11, SPIFFE-V12
#[test]
fn refuses_strangers_and_other_trust_domains_even_of_our_root() {
    let (root, stranger) = (Authority::root(), Authority::root());
    let (leaf, _) = stranger.leaf(WEB, |_| ());
    assert!(matches!(judge(&root, &[leaf]), Err(PeerRefused::Chain(_))));
    let (foreign, _) = root.leaf("spiffe://b.test/ns/shop/sa/web", |_| ());
    assert!(matches!(
        judge(&root, &[foreign]),
        Err(PeerRefused::ForeignTrustDomain(_))
    ));
}

/// SPIFFE-V14
#[test]
fn refuses_an_intermediate_that_may_not_sign() {
    let root = Authority::root();
    let no_sign = root.intermediate(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let (leaf, _) = no_sign.leaf(WEB, |_| ());
    let chain = [leaf, no_sign.certificate.clone()];
    assert_eq!(
        judge(&root, &chain),
        Err(PeerRefused::Issuer(IssuerMayNotSign))
    );
    let no_ca = root.intermediate(|p| p.is_ca = IsCa::ExplicitNoCa);
    let (leaf, _) = no_ca.leaf(WEB, |_| ());
    let chain = [leaf, no_ca.certificate.clone()];
    assert!(matches!(judge(&root, &chain), Err(PeerRefused::Chain(_))));
}

#[test]
fn refuses_chains_that_only_make_work() {
    let root = Authority::root();
    let (leaf, _) = root.leaf(WEB, |_| ());
    assert_eq!(judge(&root, &vec![leaf; 5]), Err(ChainTooLong.into()));
    let huge = CertificateDer::from(vec![0_u8; 17 * 1024]);
    assert_eq!(judge(&root, &[huge]), Err(ChainTooLong.into()));
    assert_eq!(judge(&root, &[]), Err(PeerRefused::NoCertificate));
}

#[test]
fn a_chain_verified_before_is_refused_once_it_has_expired() {
    let root = Authority::root();
    let verifier = PeerVerifier::new(root.bundle()).unwrap();
    let (leaf, _) = root.leaf(WEB, |p| (p.not_before, p.not_after) = (date(-1), date(1)));
    let at = |days: u64| {
        UnixTime::since_unix_epoch(Duration::from_secs(unix_now().as_secs() + days * 86_400))
    };
    let chain = [leaf];
    assert!(verifier.verify(&chain, Role::Client, at(0)).is_ok());
    assert!(
        verifier.verify(&chain, Role::Client, at(0)).is_ok(),
        "from the cache"
    );
    assert!(verifier.verify(&chain, Role::Client, at(2)).is_err());
}

#[test]
fn a_chain_verified_before_is_refused_once_its_issuer_has_expired() {
    let root = Authority::root();
    let verifier = PeerVerifier::new(root.bundle()).unwrap();
    let issuer = root.intermediate(|p| (p.not_before, p.not_after) = (date(-1), date(1)));
    let (leaf, _) = issuer.leaf(WEB, |_| ());
    let chain = [leaf, issuer.certificate.clone()];
    assert!(verifier.verify(&chain, Role::Client, unix_now()).is_ok());
    let later = UnixTime::since_unix_epoch(Duration::from_secs(unix_now().as_secs() + 172_800));
    assert!(verifier.verify(&chain, Role::Client, later).is_err());
}

/// SPIFFE-V17
#[test]
fn knows_whether_the_root_of_a_peer_is_still_trusted() {
    let (root, other) = (Authority::root(), Authority::root());
    let (leaf, _) = root.leaf(WEB, |_| ());
    let peer = judge(&root, &[leaf]).unwrap();
    assert!(
        PeerVerifier::new(root.bundle())
            .unwrap()
            .trusts_root_of(&peer)
    );
    assert!(
        !PeerVerifier::new(other.bundle())
            .unwrap()
            .trusts_root_of(&peer)
    );
}
