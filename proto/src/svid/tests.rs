use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
    SerialNumber,
};

use super::*;

const WEB: &str = "spiffe://a.test/ns/shop/sa/web";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn good() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri(WEB)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.serial_number = Some(SerialNumber::from_slice(&[0x0a, 0xff]));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params
}

fn inspect(change: impl FnOnce(&mut CertificateParams)) -> Result<LeafFacts, InvalidLeaf> {
    let mut params = good();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    inspect_leaf(params.self_signed(&key).unwrap().der())
}

/// SPIFFE-V1
#[test]
fn reads_a_good_leaf() {
    let facts = inspect(|_| ()).unwrap();
    assert_eq!(facts.id.as_str(), WEB);
    assert_eq!(facts.serial.to_string(), "0aff");
    assert!(facts.not_before < facts.not_after);
}

/// SPIFFE-V2, SPIFFE-V3, SPIFFE-V4, SPIFFE-V18
#[test]
fn refuses_a_certificate_that_may_do_more_or_less_than_a_leaf() {
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    assert_eq!(inspect(ca), Err(InvalidLeaf::IsAuthority));
    assert_eq!(
        inspect(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)),
        Err(InvalidLeaf::MaySign)
    );
    assert_eq!(
        inspect(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)),
        Err(InvalidLeaf::MaySign)
    );
    assert_eq!(
        inspect(|p| p.key_usages.clear()),
        Err(InvalidLeaf::NoKeyUsage)
    );
    assert_eq!(
        inspect(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]),
        Err(InvalidLeaf::NoDigitalSignature)
    );
    assert_eq!(
        inspect(|p| p.extended_key_usages.truncate(1)),
        Err(InvalidLeaf::ExtendedKeyUsage)
    );
    assert!(inspect(|p| p.extended_key_usages.clear()).is_ok());
}

/// SPIFFE-V5, SPIFFE-V6
#[test]
fn refuses_any_number_of_uri_names_but_one() {
    assert_eq!(
        inspect(|p| p.subject_alt_names.clear()),
        Err(InvalidLeaf::UriSans(0))
    );
    assert_eq!(
        inspect(|p| p.subject_alt_names = vec![SanType::DnsName("web.shop".try_into().unwrap())]),
        Err(InvalidLeaf::UriSans(0))
    );
    for names in [
        vec![uri(WEB), uri("spiffe://a.test/ns/shop/sa/api")],
        vec![uri("spiffe://a.test/ns/shop/sa/api"), uri(WEB)],
        vec![uri(WEB), uri("https://a.test/")],
        vec![uri("https://a.test/"), uri(WEB)],
        vec![uri(WEB), uri(WEB)],
    ] {
        assert_eq!(
            inspect(|p| p.subject_alt_names = names),
            Err(InvalidLeaf::UriSans(2))
        );
    }
}

/// SPIFFE-V7, SPIFFE-V8, SPIFFE-V9, SPIFFE-V20
#[test]
fn refuses_a_uri_that_is_not_a_workloads_spiffe_id() {
    for text in [
        "https://a.test/ns/shop/sa/web",
        "spiffe://a.test",
        "spiffe://a.test/",
        "spiffe://A.test/ns/shop/sa/web",
        "spiffe://a.test/ns//sa/web",
        "spiffe://a.test/ns/shop/sa/web?x",
        "spiffe://a.test/%6es/shop/sa/web",
    ] {
        let result = inspect(|p| p.subject_alt_names = vec![uri(text)]);
        assert!(
            matches!(result, Err(InvalidLeaf::Id(_))),
            "{text}: {result:?}"
        );
    }
}

/// SPIFFE-V19
#[test]
fn refuses_a_critical_extension_that_it_does_not_know() {
    let unknown = |p: &mut CertificateParams| {
        let mut extension =
            rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    };
    assert_eq!(inspect(unknown), Err(InvalidLeaf::UnknownCriticalExtension));
}

#[test]
fn refuses_bytes_that_are_not_exactly_one_certificate() {
    let key = KeyPair::generate().unwrap();
    let good = good().self_signed(&key).unwrap().der().to_vec();
    let mut longer = good.clone();
    longer.push(0);
    let cut = good[..good.len() - 1].to_vec();
    for bytes in [Vec::new(), longer, cut, b"junk".to_vec()] {
        let result = inspect_leaf(&CertificateDer::from(bytes));
        assert!(
            matches!(result, Err(InvalidLeaf::Malformed(_))),
            "{result:?}"
        );
    }
}

#[test]
fn serials_are_compared_by_value() {
    assert_eq!("0aff".parse(), Serial::new(&[0, 0x0a, 0xff]));
    assert_eq!("aff".parse::<Serial>(), "0AFF".parse());
    for text in ["", "0", "xyz", "0x1", &"a".repeat(60)] {
        assert_eq!(text.parse::<Serial>(), Err(InvalidSerial), "{text}");
    }
}

#[test]
fn a_chain_is_too_long_by_its_certificates_or_by_their_bytes() {
    let chain = |bytes: usize, certificates: usize| {
        let chain = vec![CertificateDer::from(vec![0; bytes]); certificates];
        check_chain_size(&chain)
    };
    assert_eq!(chain(MAX_CHAIN_BYTES / MAX_CHAIN, MAX_CHAIN), Ok(()));
    assert_eq!(chain(1, MAX_CHAIN + 1), Err(ChainTooLong));
    assert_eq!(chain(MAX_CHAIN_BYTES + 1, 1), Err(ChainTooLong));
}
