use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// As one that is good, changed.
fn request(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.subject_alt_names = vec![uri(WEB)];
    change(&mut parameters);
    let key = KeyPair::generate().unwrap();
    let request = parameters.serialize_request(&key).unwrap();
    request.pem().unwrap().into_bytes()
}

fn spec(request: Vec<u8>) -> Spec {
    Spec {
        request: ByteString(request),
        signer_name: "mesh-lite.io/spiffe".to_owned(),
        usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
        expiration_seconds: None,
        username: "system:serviceaccount:shop:web".to_owned(),
        extra: [
            (POD_UID.to_owned(), vec!["uid-1".to_owned()]),
            (POD_NAME.to_owned(), vec!["web-0".to_owned()]),
        ]
        .into(),
    }
}

fn good() -> Spec {
    spec(request(|_| {}))
}

fn judged(spec: &Spec) -> Result<Accepted, Refused> {
    judge(spec, &trust_domain(), DAY)
}

#[test]
fn a_request_for_exactly_its_own_identity_is_accepted() {
    let accepted = judged(&good()).unwrap();
    assert_eq!(accepted.id.as_str(), WEB);
    assert_eq!(accepted.lifetime, DAY);
    assert_eq!(accepted.pod_uid, "uid-1");
    // what a leaf says anyway may be asked for
    let usual = spec(request(|parameters| {
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }));
    assert!(judged(&usual).is_ok(), "{:?}", judged(&usual).err());
    let shorter = Spec {
        expiration_seconds: Some(3600),
        ..good()
    };
    assert_eq!(
        judged(&shorter).unwrap().lifetime,
        Duration::from_secs(3600)
    );
}

#[test]
fn only_a_service_account_has_an_identity() {
    for username in [
        "",
        "jane",
        "system:admin",
        "system:node:a",
        "system:serviceaccount:",
        "system:serviceaccount:shop",
        "system:serviceaccount:shop:",
        "system:serviceaccount::web",
        "system:serviceaccount:shop:web:x",
        "system:serviceaccount:shop:web/../admin",
        "system:serviceaccount:Shop:web",
        "x:system:serviceaccount:shop:web",
    ] {
        let spec = Spec {
            username: username.to_owned(),
            ..good()
        };
        assert!(
            matches!(judged(&spec), Err(Refused::NotAServiceAccount(_))),
            "{username}"
        );
    }
}

#[test]
fn another_identity_is_refused_however_alike() {
    for asked in [
        "spiffe://mesh.test/ns/shop/sa/admin",
        "spiffe://mesh.test/ns/other/sa/web",
        "spiffe://other.test/ns/shop/sa/web",
        "spiffe://MESH.test/ns/shop/sa/web",
        "spiffe://mesh.test/ns/shop/sa/web/",
        "spiffe://mesh.test/ns/shop/sa/web2",
        "spiffe://mesh.test/ns/shop/sa/we%62",
        "spiffe://mesh.test//ns/shop/sa/web",
        "SPIFFE://mesh.test/ns/shop/sa/web",
        "spiffe://mesh.test",
        "https://mesh.test/ns/shop/sa/web",
    ] {
        let spec = spec(request(|parameters| {
            parameters.subject_alt_names = vec![uri(asked)];
        }));
        assert!(
            matches!(judged(&spec), Err(Refused::OtherUri { .. })),
            "{asked}"
        );
    }
}

#[test]
fn whoever_asks_for_more_than_its_identity_gets_nothing() {
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Change); 13] = [
        ("a DNS name", |it| {
            it.subject_alt_names.push(dns("bank.example"))
        }),
        ("only a DNS name", |it| {
            it.subject_alt_names = vec![dns("bank.example")]
        }),
        ("an address", |it| {
            let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
            it.subject_alt_names.push(address);
        }),
        ("an e-mail address", |it| {
            let mail = SanType::Rfc822Name("a@b.example".try_into().unwrap());
            it.subject_alt_names.push(mail);
        }),
        ("two URIs", |it| {
            it.subject_alt_names
                .push(uri("spiffe://mesh.test/ns/shop/sa/admin"))
        }),
        ("its URI twice", |it| it.subject_alt_names.push(uri(WEB))),
        ("a common name", |it| {
            it.distinguished_name.push(DnType::CommonName, "web")
        }),
        ("an organization", |it| {
            it.distinguished_name
                .push(DnType::OrganizationName, "system:masters");
        }),
        ("to be a CA", |it| {
            it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
        }),
        ("to sign certificates", |it| {
            it.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ];
        }),
        ("key agreement", |it| {
            it.key_usages = vec![KeyUsagePurpose::KeyAgreement]
        }),
        ("to sign code", |it| {
            it.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
        }),
        ("an extension that nobody knows", |it| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            it.custom_extensions.push(extension);
        }),
    ];
    for (asked, change) in cases {
        let refused = judged(&spec(request(change)));
        assert!(
            matches!(refused, Err(Refused::Asked(_))),
            "{asked}: {:?}",
            refused.err()
        );
    }
    let nameless = spec(request(|it| it.subject_alt_names.clear()));
    assert_eq!(judged(&nameless).unwrap_err(), Refused::NoUri);
}

#[test]
fn a_token_that_is_bound_to_no_pod_is_refused() {
    let mut without = good();
    without.extra.remove(POD_UID);
    assert_eq!(judged(&without).unwrap_err(), Refused::NoPod);
    for values in [
        vec![],
        vec![String::new()],
        vec!["a".to_owned(), "b".to_owned()],
    ] {
        let mut odd = good();
        odd.extra.insert(POD_UID.to_owned(), values.clone());
        assert!(judged(&odd).is_err(), "{values:?}");
    }
}

#[test]
fn usages_and_lifetimes_that_we_do_not_sign_are_refused() {
    for usage in [
        "any",
        "signing",
        "cert sign",
        "key encipherment",
        "Digital Signature",
        "",
    ] {
        let mut spec = good();
        spec.usages.push(usage.to_owned());
        assert_eq!(judged(&spec).unwrap_err(), Refused::Usage(usage.to_owned()));
    }
    for seconds in [-1, 0, 599, 86_401, i32::MAX, i32::MIN] {
        let spec = Spec {
            expiration_seconds: Some(seconds),
            ..good()
        };
        assert!(
            matches!(judged(&spec), Err(Refused::Lifetime { .. })),
            "{seconds}"
        );
    }
}

#[test]
fn what_is_no_request_of_its_key_is_refused() {
    let whole = request(|_| {});
    let text = String::from_utf8(whole.clone()).unwrap();
    let certificate = text.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    for pem in [
        Vec::new(),
        b"x".to_vec(),
        certificate.into_bytes(),
        vec![b'x'; 100_000],
    ] {
        assert!(matches!(judged(&spec(pem)), Err(Refused::Request(_))));
    }
    // signed by another key
    let der = CertificateSigningRequestDer::from_pem_slice(&whole).unwrap();
    let mut der = der.to_vec();
    if let Some(last) = der.last_mut() {
        *last ^= 1;
    }
    let pem = mesh_lite_proto::trust_bundle::pem("CERTIFICATE REQUEST", &der);
    assert!(matches!(
        judged(&spec(pem.into_bytes())),
        Err(Refused::Request(_))
    ));
}
