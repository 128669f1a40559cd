use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use spiffe::TrustDomain;

use super::*;
use crate::clock::from_unix_seconds;

const HOUR: Duration = Duration::from_secs(3_600);
const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority_parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    parameters.subject_alt_names = vec![uri("spiffe://mesh.test")];
    parameters
}

fn root() -> Authority {
    CertifiedIssuer::self_signed(authority_parameters("root"), KeyPair::generate().unwrap())
        .unwrap()
}

fn bundle(root: &Authority) -> TrustBundle {
    let trust_domain = TrustDomain::new("mesh.test").unwrap();
    TrustBundle::new(trust_domain, vec![root.der().clone()]).unwrap()
}

fn leaf_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.not_before = (now() - HOUR).into();
    parameters.not_after = (now() + HOUR).into();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    parameters.subject_alt_names = vec![uri(WEB)];
    parameters
}

struct Source {
    root: Authority,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// A leaf of the root, changed before it was signed.
fn source(change: impl FnOnce(&mut CertificateParams)) -> Source {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let mut parameters = leaf_parameters();
    change(&mut parameters);
    let leaf = parameters.signed_by(&key, &root).unwrap();
    Source {
        root,
        chain: vec![leaf.der().clone()],
        key: key.serialize_der(),
    }
}

impl Source {
    fn check(&self, at: SystemTime) -> Result<LeafFacts, BrokenSvid> {
        check_svid(&self.chain, &self.key, &bundle(&self.root), at)
    }
}

/// SDS-S18
#[test]
fn passes_what_is_whole_and_answers_what_it_says() {
    let facts = source(|_| {}).check(now()).unwrap();
    assert_eq!(facts.id.as_str(), WEB);
    // the first and the last second count
    let whole = source(|_| {});
    assert!(whole.check(now() - HOUR).is_ok());
    assert!(whole.check(now() + HOUR - Duration::from_secs(1)).is_ok());
}

/// SDS-S18
#[test]
fn refuses_a_key_that_is_not_the_certificates() {
    let mut other = source(|_| {});
    other.key = KeyPair::generate().unwrap().serialize_der();
    assert!(matches!(other.check(now()), Err(BrokenSvid::OtherKey)));
    other.key = KeyPair::generate_for(&PKCS_ED25519)
        .unwrap()
        .serialize_der();
    assert!(matches!(other.check(now()), Err(BrokenSvid::OtherKey)));
}

/// SDS-S18
#[test]
fn refuses_a_key_that_is_none_and_shows_nothing_of_it() {
    let mut broken = source(|_| {});
    let whole = broken.key.clone();
    for key in [Vec::new(), b"no key".to_vec(), whole[..60].to_vec()] {
        broken.key = key;
        let refused = broken.check(now()).unwrap_err();
        assert!(matches!(refused, BrokenSvid::Key), "{refused}");
    }
}

/// SDS-S18
#[test]
fn refuses_what_is_not_valid_now_and_names_both_times() {
    let source = source(|_| {});
    let early = source
        .check(now() - HOUR - Duration::from_secs(1))
        .unwrap_err();
    assert!(matches!(early, BrokenSvid::NotYetValid { .. }), "{early}");
    assert!(early.to_string().contains("compare the clocks"), "{early}");
    let late = source.check(now() + HOUR).unwrap_err();
    assert!(matches!(late, BrokenSvid::Expired { .. }), "{late}");
}

/// SDS-S18, SPIFFE-L1, V5 to V8
#[test]
fn refuses_any_number_of_uris_but_one_and_any_that_is_no_workloads() {
    for uris in [
        &[][..],
        &[WEB, "spiffe://mesh.test/ns/shop/sa/api"],
        &["spiffe://mesh.test/ns/shop/sa/api", WEB],
        &[WEB, "https://mesh.test"],
        &["https://mesh.test/ns/shop/sa/web"],
        &["spiffe://mesh.test"],
        &["spiffe://mesh.test/"],
    ] {
        let source =
            source(|leaf| leaf.subject_alt_names = uris.iter().copied().map(uri).collect());
        let refused = source.check(now()).unwrap_err();
        assert!(matches!(refused, BrokenSvid::NotALeaf(_)), "{uris:?}");
    }
}

type Change = fn(&mut CertificateParams);

/// SDS-S18, SPIFFE-L3 to L5
#[test]
fn refuses_a_leaf_that_could_be_more_or_less_than_one() {
    let authority: Change = |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let signer: Change = |leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let usage: Change = |leaf| leaf.key_usages.clear();
    let server: Change =
        |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let unknown: Change = |leaf| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(true);
        leaf.custom_extensions = vec![extension];
    };
    for change in [authority, signer, usage, server, unknown] {
        let refused = source(change).check(now()).unwrap_err();
        assert!(matches!(refused, BrokenSvid::NotALeaf(_)), "{refused}");
    }
}

/// SDS-S18
#[test]
fn refuses_a_chain_that_the_served_bundle_does_not_vouch_for() {
    let whole = source(|_| {});
    let elsewhere = bundle(&root());
    let refused = check_svid(&whole.chain, &whole.key, &elsewhere, now()).unwrap_err();
    assert!(matches!(refused, BrokenSvid::Chain(_)), "{refused}");
    let mut forged = source(|_| {});
    let mut bytes = forged.chain[0].to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    forged.chain = vec![bytes.into()];
    assert!(matches!(forged.check(now()), Err(BrokenSvid::Chain(_))));
    let foreign = source(|leaf| {
        leaf.subject_alt_names = vec![uri("spiffe://other.test/ns/shop/sa/web")];
    });
    let refused = foreign.check(now()).unwrap_err();
    assert!(
        matches!(refused, BrokenSvid::TrustDomain { .. }),
        "{refused}"
    );
}

/// SDS-S18: the leaf first, then CAs that can be read, up to the bundle.
#[test]
fn refuses_chains_that_are_empty_in_another_order_or_incomplete() {
    let (root, key) = (root(), KeyPair::generate().unwrap());
    let issuing = CertifiedIssuer::signed_by(
        authority_parameters("issuing"),
        KeyPair::generate().unwrap(),
        &root,
    )
    .unwrap();
    let leaf = leaf_parameters().signed_by(&key, &issuing).unwrap();
    let (leaf, issuing) = (leaf.der().clone(), issuing.der().clone());
    let check = |chain: &[CertificateDer<'_>]| {
        check_svid(chain, &key.serialize_der(), &bundle(&root), now())
    };
    assert!(check(&[leaf.clone(), issuing.clone()]).is_ok());
    assert!(matches!(check(&[]), Err(BrokenSvid::NoChain)));
    assert!(matches!(
        check(&[issuing.clone(), leaf.clone()]),
        Err(BrokenSvid::NotALeaf(_))
    ));
    assert!(matches!(
        check(std::slice::from_ref(&leaf)),
        Err(BrokenSvid::Chain(_))
    ));
    assert!(matches!(
        check(&[leaf.clone(), issuing.clone(), leaf.clone()]),
        Err(BrokenSvid::SecondLeaf { place: 3 })
    ));
    let cut = CertificateDer::from(issuing[..100].to_vec());
    assert!(matches!(
        check(&[leaf, cut]),
        Err(BrokenSvid::Unreadable { place: 2 })
    ));
    let no_certificate = CertificateDer::from(b"not a certificate".to_vec());
    assert!(matches!(
        check(&[no_certificate]),
        Err(BrokenSvid::NotALeaf(InvalidLeaf::Malformed(_)))
    ));
}
