use std::time::{Duration, SystemTime};

use mesh_lite_proto::{identity::WorkloadId, svid::inspect_leaf, trust_bundle::TrustBundle};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use spiffe::TrustDomain;
use tokio::sync::watch;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{
    certificate_authority::{
        CertificateAuthority, IssuedSvid,
        authority::IssuingAuthority,
        authority_facts::{AuthorityFacts, InvalidAuthority},
        certificate_request::PublicKey,
        rotation::{Found, Rotation, RotationError},
    },
    clock::{from_unix_seconds, unix_seconds},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A CA of somebody else's PKI.
struct Ca {
    certificate: CertificateDer<'static>,
    parameters: CertificateParams,
    key: KeyPair,
}

/// As X509-SVID wants it, valid for a year from now, any number of CAs below it.
fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters
        .distinguished_name
        .push(DnType::CommonName, name.to_owned());
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.subject_alt_names = vec![uri("spiffe://mesh.test")];
    parameters.not_before = now().into();
    parameters.not_after = (now() + 365 * DAY).into();
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

impl Ca {
    fn root(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut parameters = parameters("company root");
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap().into();
        Self {
            certificate,
            parameters,
            key,
        }
    }

    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut parameters = parameters(name);
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::from_params(&self.parameters, &self.key);
        let certificate = parameters.signed_by(&key, &issuer).unwrap().into();
        Self {
            certificate,
            parameters,
            key,
        }
    }

    fn key(&self) -> KeyPair {
        KeyPair::try_from(self.key.serialize_der()).unwrap()
    }

    fn import(&self, above: &[&Self]) -> Result<IssuingAuthority, InvalidAuthority> {
        let above = above.iter().map(|ca| ca.certificate.clone()).collect();
        let certificate = self.certificate.clone();
        IssuingAuthority::with_intermediates(certificate, above, self.key(), &trust_domain())
    }
}

type Change = fn(&mut CertificateParams);

fn as_it_is(_: &mut CertificateParams) {}

fn path_length(length: u8) -> impl FnOnce(&mut CertificateParams) {
    move |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(length))
}

fn read(change: impl FnOnce(&mut CertificateParams)) -> Result<AuthorityFacts, InvalidAuthority> {
    AuthorityFacts::read(&Ca::root(change).certificate)
}

fn bundle(root: &Ca) -> TrustBundle {
    TrustBundle::new(trust_domain(), vec![root.certificate.clone()]).unwrap()
}

fn start(authority: IssuingAuthority, root: &Ca) -> Result<Rotation, RotationError> {
    let bundle = bundle(root);
    Rotation::start(Found { bundle, authority }, DAY, now())
}

fn issue(authority: IssuingAuthority, root: &Ca) -> IssuedSvid {
    let trust = start(authority, root).unwrap().trust();
    let id: WorkloadId = "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap();
    let key = KeyPair::generate().unwrap().subject_public_key_info();
    CertificateAuthority::new(watch::channel(trust).1, DAY)
        .issue(
            id,
            Some("web".to_owned()),
            PublicKey::from_der(&key).unwrap(),
            now(),
        )
        .unwrap()
}

/// As a rustls peer judges it.
fn verify(chain: &[CertificateDer<'_>], root: &Ca) -> Result<(), webpki::Error> {
    let anchors = [anchor_from_trusted_cert(&root.certificate).unwrap()];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds(now())));
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    let usage = KeyUsage::client_auth();
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    leaf.verify_for_usage(algorithms, &anchors, &chain[1..], now, usage, None, None)
        .map(|_| ())
}

/// SPIFFE-A1 and A2 bind what we make; of an imported CA a key usage and a URI are only missed.
#[test]
fn takes_a_ca_without_key_usage_or_uri() {
    assert_eq!(read(as_it_is).unwrap().trust_domain, Some(trust_domain()));
    let plain = read(|parameters| {
        parameters.key_usages.clear();
        parameters.subject_alt_names.clear();
    });
    assert_eq!(plain.unwrap().trust_domain, None);
}

/// SPIFFE-A1
#[test]
fn refuses_a_leaf_and_a_ca_that_may_not_sign() {
    let leaf = read(|parameters| parameters.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(leaf, Err(InvalidAuthority::NotAnAuthority));
    let silent = read(|parameters| parameters.is_ca = IsCa::NoCa);
    assert_eq!(silent, Err(InvalidAuthority::NotAnAuthority));
    let usage = read(|parameters| parameters.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert_eq!(usage, Err(InvalidAuthority::MayNotSign));
}

/// SPIFFE-A2, SPIFFE-A3
#[test]
fn refuses_a_ca_whose_uri_is_not_its_trust_domain_alone() {
    for text in [
        "spiffe://mesh.test/",
        "spiffe://mesh.test/ca",
        "https://mesh.test",
        "spiffe://MESH.test",
        "spiffe://",
    ] {
        let facts = read(|parameters| parameters.subject_alt_names = vec![uri(text)]);
        assert!(
            matches!(facts, Err(InvalidAuthority::UriWithPath(_))),
            "{text}: {facts:?}"
        );
    }
    let two = read(|parameters| {
        let second = uri("spiffe://other.test");
        parameters.subject_alt_names.push(second);
    });
    assert_eq!(two, Err(InvalidAuthority::Uris));
}

#[test]
fn refuses_a_ca_of_another_trust_domain() {
    let other = Ca::root(|parameters| {
        parameters.subject_alt_names = vec![uri("spiffe://other.test")];
    });
    let refused = other.import(&[]).err().unwrap();
    assert!(matches!(refused, InvalidAuthority::OtherTrustDomain { .. }));
}

/// SPIFFE-A4: those of DNS names bind no SPIFFE ID.
#[test]
fn takes_name_constraints_of_dns_names_and_warns() {
    let root = Ca::root(as_it_is);
    let constrained = root.sign("issuing", |parameters| {
        parameters.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("mesh.test".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let authority = constrained.import(&[]).unwrap();
    assert!(authority.warnings().concat().contains("name constraints"));
    assert_eq!(verify(&issue(authority, &root).chain, &root), Ok(()));
}

/// SPIFFE-A4 as design §3. rcgen writes no URI subtree, so the extension is made by hand:
/// SEQUENCE { [0] { SEQUENCE { [6] "mesh.test" } } }.
#[test]
fn refuses_name_constraints_of_uris_which_no_rustls_peer_would_take() {
    let constrain = |parameters: &mut CertificateParams| {
        let name = b"\x30\x0f\xa0\x0d\x30\x0b\x86\x09mesh.test".to_vec();
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], name);
        extension.set_criticality(true);
        parameters.custom_extensions = vec![extension];
    };
    assert_eq!(read(constrain), Err(InvalidAuthority::UriConstraints));
    let root = Ca::root(as_it_is);
    let above = root.sign("regional", constrain);
    let refused = above.sign("issuing", as_it_is).import(&[&above]);
    let reason = Box::new(InvalidAuthority::UriConstraints);
    let expected = InvalidAuthority::Intermediate {
        position: 1,
        reason,
    };
    assert_eq!(refused.err(), Some(expected));
}

#[test]
fn refuses_a_key_that_is_not_the_certificates() {
    let root = Ca::root(as_it_is);
    let other = KeyPair::generate().unwrap();
    let authority = IssuingAuthority::new(root.certificate.clone(), other, &trust_domain());
    assert_eq!(authority.err(), Some(InvalidAuthority::OtherKey));
}

/// Leaf, issuing CA, intermediates up to the root and without it, even if the file has it.
#[test]
fn sends_the_intermediates_and_not_the_root() {
    let root = Ca::root(as_it_is);
    let continental = root.sign("continental", as_it_is);
    let regional = continental.sign("regional", as_it_is);
    let issuing = regional.sign("issuing", path_length(0));
    let authority = issuing.import(&[&regional, &continental, &root]).unwrap();
    assert_eq!(authority.warnings(), &[] as &[String]);
    let svid = issue(authority, &root);
    let expected = [&issuing, &regional, &continental].map(|ca| ca.certificate.clone());
    assert_eq!(svid.chain[1..], expected);
    assert_eq!(verify(&svid.chain, &root), Ok(()));
    assert!(verify(&svid.chain[..3], &root).is_err(), "each is needed");
    assert_eq!(svid.chain_pem().matches("BEGIN CERTIFICATE").count(), 4);
}

#[test]
fn refuses_a_chain_with_a_gap_a_stranger_or_another_order() {
    let (root, other) = (Ca::root(as_it_is), Ca::root(as_it_is));
    let continental = root.sign("continental", as_it_is);
    let regional = continental.sign("regional", as_it_is);
    let issuing = regional.sign("issuing", as_it_is);
    let broken = |above: &[&Ca]| issuing.import(above).err();
    let at = |position| Some(InvalidAuthority::BrokenChain { position });
    assert_eq!(broken(&[&continental, &regional]), at(1));
    assert_eq!(broken(&[&continental]), at(1));
    assert_eq!(broken(&[&regional, &other.sign("x", as_it_is)]), at(2));
    // in order, but it ends below the root, or at another one
    for (above, root) in [
        (vec![&regional], &root),
        (vec![&regional, &continental], &other),
    ] {
        let authority = issuing.import(&above).unwrap();
        let refused = start(authority, root).err();
        let expected = RotationError::Authority(InvalidAuthority::NotOfThisBundle);
        assert_eq!(refused, Some(expected));
    }
}

#[test]
fn refuses_an_intermediate_that_is_no_ca_of_this_mesh() {
    let root = Ca::root(as_it_is);
    let cases: [(&str, Change); 4] = [
        ("not a CA's", |parameters| {
            parameters.is_ca = IsCa::ExplicitNoCa;
        }),
        ("does not allow it to sign", |parameters| {
            parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }),
        ("without a path", |parameters| {
            parameters.subject_alt_names = vec![uri("spiffe://mesh.test/ca")];
        }),
        ("trust domain other.test", |parameters| {
            parameters.subject_alt_names = vec![uri("spiffe://other.test")];
        }),
    ];
    for (says, change) in cases {
        let above = root.sign("regional", change);
        let issuing = above.sign("issuing", as_it_is);
        let refused = issuing.import(&[&above]).err().unwrap().to_string();
        assert!(
            refused.contains("certificate 1 after the issuing CA"),
            "{refused}"
        );
        assert!(refused.contains(says), "{refused}");
    }
}

/// SPIFFE-A6
#[test]
fn obeys_path_lengths() {
    let expected = |allowed, below| InvalidAuthority::PathLength { allowed, below };
    let root = Ca::root(as_it_is);
    let tight = root.sign("regional", path_length(0));
    let issuing = tight.sign("issuing", as_it_is);
    assert_eq!(issuing.import(&[&tight]).err(), Some(expected(0, 1)));
    let enough = root.sign("regional", path_length(1));
    let issuing = enough.sign("issuing", path_length(0));
    let svid = issue(issuing.import(&[&enough]).unwrap(), &root);
    assert_eq!(verify(&svid.chain, &root), Ok(()));

    let tight_root = Ca::root(path_length(1));
    let regional = tight_root.sign("regional", as_it_is);
    let issuing = regional.sign("issuing", as_it_is);
    let refused = start(issuing.import(&[&regional]).unwrap(), &tight_root).err();
    assert_eq!(refused, Some(RotationError::Authority(expected(1, 2))));
    let direct = tight_root.sign("issuing", as_it_is);
    assert!(start(direct.import(&[]).unwrap(), &tight_root).is_ok());
}

#[test]
fn refuses_chains_longer_than_peers_follow() {
    let root = Ca::root(as_it_is);
    let mut chain = vec![root.sign("1", as_it_is)];
    for name in ["2", "3", "4"] {
        let next = chain.last().unwrap().sign(name, as_it_is);
        chain.push(next);
    }
    let import = |length: usize| {
        let (issuing, above) = chain[..length].split_last().unwrap();
        let above: Vec<_> = above.iter().rev().collect();
        issuing.import(&above)
    };
    assert_eq!(
        verify(&issue(import(3).unwrap(), &root).chain, &root),
        Ok(())
    );
    assert_eq!(import(4).err(), Some(InvalidAuthority::TooLong(3)));
}

/// SPIFFE-L8, along the whole chain.
#[test]
fn lives_no_longer_than_the_cas_above_it() {
    let root = Ca::root(as_it_is);
    let regional = root.sign("regional", |parameters| {
        parameters.not_after = (now() + 3 * DAY).into();
    });
    let authority = regional
        .sign("issuing", as_it_is)
        .import(&[&regional])
        .unwrap();
    assert_eq!(authority.facts().not_after, now() + 3 * DAY);
    let late = now() + 3 * DAY;
    let expired = authority.check_time(late).err();
    assert!(matches!(expired, Some(InvalidAuthority::Expired(_))));
    let short = root.sign("regional", |parameters| {
        parameters.not_after = (now() + DAY).into();
    });
    let authority = short.sign("issuing", as_it_is).import(&[&short]).unwrap();
    let refused = start(authority, &root).err();
    assert!(matches!(refused, Some(RotationError::TooShort { .. })));
}

/// SPIFFE-A1, A5: what is unusual is used all the same, and said.
#[test]
fn warns_of_what_some_peers_refuse() {
    let cases: [(&str, Change); 3] = [
        ("may also sign data", |parameters| {
            parameters
                .key_usages
                .push(KeyUsagePurpose::DigitalSignature);
        }),
        ("has an extended key usage", |parameters| {
            parameters.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
        }),
        ("names no trust domain", |parameters| {
            parameters.subject_alt_names.clear();
        }),
    ];
    for (says, change) in cases {
        let root = Ca::root(as_it_is);
        let authority = root.sign("issuing", change).import(&[]).unwrap();
        let [warning] = authority.warnings() else {
            panic!("{says}: {:?}", authority.warnings())
        };
        assert!(warning.contains(says), "{warning}");
        assert!(warning.starts_with("the issuing CA "), "{warning}");
        assert_eq!(verify(&issue(authority, &root).chain, &root), Ok(()));
    }
}

/// Each is a CA that signs, and of which our own peers take nothing.
#[test]
fn refuses_a_ca_whose_leaves_our_own_peers_would_refuse() {
    let cases: [(&str, Change); 4] = [
        ("may not sign certificates", |parameters| {
            parameters.key_usages.clear();
        }),
        ("RequiredEkuNotFound", |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        ("RequiredEkuNotFound", |parameters| {
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("more than 4 certificates or 16384 bytes", |parameters| {
            let name = "x".repeat(14 * 1024);
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, name);
        }),
    ];
    for (says, change) in cases {
        let root = Ca::root(as_it_is);
        let direct = root.sign("issuing", change).import(&[]).unwrap();
        let above = root.sign("regional", change);
        let issuing = above.sign("issuing", as_it_is);
        let through = issuing.import(&[&above]).unwrap();
        for authority in [direct, through] {
            let refused = start(authority, &root).err().unwrap();
            let RotationError::Authority(InvalidAuthority::RefusedByPeers(reason)) = &refused
            else {
                panic!("{refused}")
            };
            assert!(reason.contains(says), "{reason}");
        }
    }
}

/// The one in use goes on.
#[test]
fn does_not_let_such_a_ca_replace_one_that_serves() {
    let root = Ca::root(as_it_is);
    let good = root.sign("issuing", as_it_is);
    let mut rotation = start(good.import(&[]).unwrap(), &root).unwrap();
    let bad = root.sign("issuing", |parameters| parameters.key_usages.clear());
    let (bundle, authority) = (bundle(&root), bad.import(&[]).unwrap());
    let refused = rotation.look(Found { bundle, authority }, now());
    assert!(matches!(
        refused,
        Err(RotationError::Authority(InvalidAuthority::RefusedByPeers(
            _
        )))
    ));
    let in_use = rotation.trust();
    assert_eq!(in_use.authority.certificate(), &good.certificate);
}

/// SPIFFE-A7
#[test]
fn is_no_leaf_itself() {
    let root = Ca::root(as_it_is);
    let issuing = root.sign("issuing", as_it_is);
    assert!(inspect_leaf(&issuing.certificate).is_err());
    let with_path = root.sign("issuing", |parameters| {
        parameters.subject_alt_names = vec![uri("spiffe://mesh.test/ns/shop/sa/web")];
    });
    assert!(inspect_leaf(&with_path.certificate).is_err());
}

/// What is wrong is half of a sentence; the other half is what to do.
#[test]
fn says_what_to_do_in_every_refusal() {
    let other = || "x".to_owned();
    let refusals = [
        InvalidAuthority::Malformed(other()),
        InvalidAuthority::NotAnAuthority,
        InvalidAuthority::MayNotSign,
        InvalidAuthority::Uris,
        InvalidAuthority::UriWithPath(other()),
        InvalidAuthority::UriConstraints,
        InvalidAuthority::OtherKey,
        InvalidAuthority::Expired(other()),
        InvalidAuthority::NotYetValid(other()),
        InvalidAuthority::OtherTrustDomain {
            found: other(),
            expected: other(),
        },
        InvalidAuthority::NotOfThisBundle,
        InvalidAuthority::BrokenChain { position: 1 },
        InvalidAuthority::PathLength {
            allowed: 0,
            below: 1,
        },
        InvalidAuthority::TooLong(9),
        InvalidAuthority::RefusedByPeers(other()),
    ];
    let remedies = [
        "have ", "give ", "add ", "sign ", "compare ", "shorten ", "Give ",
    ];
    for refusal in refusals {
        let text = refusal.to_string();
        assert!(
            remedies.iter().any(|remedy| text.contains(remedy)),
            "{text}"
        );
    }
}
