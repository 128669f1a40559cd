use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

use super::*;

fn certificate(is_ca: IsCa) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.key_usages = match is_ca {
        IsCa::Ca(_) => vec![KeyUsagePurpose::KeyCertSign],
        _ => vec![KeyUsagePurpose::DigitalSignature],
    };
    params.is_ca = is_ca;
    params
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .clone()
}

fn authority() -> CertificateDer<'static> {
    certificate(IsCa::Ca(BasicConstraints::Unconstrained))
}

fn domain() -> TrustDomain {
    TrustDomain::new("a.test").unwrap()
}

#[test]
fn survives_a_round_trip_through_pem() {
    let bundle = TrustBundle::new(domain(), vec![authority(), authority()]).unwrap();
    let again = TrustBundle::from_pem(domain(), bundle.to_pem().as_bytes()).unwrap();
    assert_eq!(again, bundle);
}

#[test]
fn its_digest_names_the_content_and_not_the_order() {
    let (a, b) = (authority(), authority());
    let digest = |list: &[&CertificateDer<'static>]| {
        TrustBundle::new(domain(), list.iter().map(|c| (*c).clone()).collect())
            .unwrap()
            .digest()
    };
    assert_eq!(digest(&[&a, &b]), digest(&[&b, &a]));
    assert_eq!(digest(&[&a, &a]), digest(&[&a]));
    assert_ne!(digest(&[&a]), digest(&[&b]));
}

#[test]
fn refuses_what_would_trust_nobody_or_the_wrong_ones() {
    assert_eq!(
        TrustBundle::new(domain(), vec![]),
        Err(InvalidTrustBundle::Empty)
    );
    assert_eq!(
        TrustBundle::from_pem(domain(), b""),
        Err(InvalidTrustBundle::Empty)
    );
    assert_eq!(
        TrustBundle::from_pem(domain(), b"hello"),
        Err(InvalidTrustBundle::Empty)
    );
    let leaf = TrustBundle::new(domain(), vec![authority(), certificate(IsCa::ExplicitNoCa)]);
    assert!(
        matches!(
            leaf,
            Err(InvalidTrustBundle::NotAnAuthority { index: 2, .. })
        ),
        "{leaf:?}"
    );
    let junk = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        TrustBundle::from_pem(domain(), junk.as_bytes()),
        Err(InvalidTrustBundle::Pem(_))
    ));
    assert_eq!(
        TrustBundle::new(domain(), vec![authority(); 65]),
        Err(InvalidTrustBundle::TooMany(65))
    );
}

#[test]
fn base64_pads_as_rfc_4648_says() {
    let pairs = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
    ];
    for (plain, encoded) in pairs {
        let mut text = String::new();
        base64(plain.as_bytes(), &mut text);
        assert_eq!(text, encoded);
    }
}
