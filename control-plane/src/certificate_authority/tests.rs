use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use spiffe::TrustDomain;
use tokio::sync::watch;
use x509_parser::prelude::FromDer;

use super::{
    authority::IssuingAuthority,
    root::Root,
    rotation::{Found, Rotation},
    *,
};
use crate::clock::from_unix_seconds;
use mesh_lite_proto::trust_bundle::TrustBundle;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn id(text: &str) -> WorkloadId {
    text.parse().unwrap()
}

fn web() -> WorkloadId {
    id("spiffe://mesh.test/ns/shop/sa/web")
}

fn authority(issuing: Duration, leaf: Duration) -> CertificateAuthority {
    let root = Root::create(&trust_domain(), 365 * DAY, now()).unwrap();
    let new = root.sign_issuing_authority(issuing, now()).unwrap();
    let found = Found {
        bundle: TrustBundle::new(trust_domain(), vec![root.certificate().clone()]).unwrap(),
        authority: IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap(),
    };
    let trust = Rotation::start(found, leaf, now()).unwrap().trust();
    CertificateAuthority::new(watch::channel(trust).1, leaf)
}

fn public_key() -> PublicKey {
    PublicKey::from_der(&KeyPair::generate().unwrap().subject_public_key_info()).unwrap()
}

fn issue(authority: &CertificateAuthority, now: SystemTime) -> Result<IssuedSvid, IssueError> {
    authority.issue(web(), Some("web".to_owned()), public_key(), now)
}

/// SPIFFE-L9, SDS-S19: as design §16 has it.
#[test]
fn backdates_by_two_minutes_or_a_tenth_whichever_is_less() {
    for (lifetime, backdate) in [
        (DAY, 120),
        (Duration::from_secs(1200), 120),
        (Duration::from_secs(20), 2),
    ] {
        let issued = issue(&authority(30 * DAY, lifetime), now()).unwrap();
        assert_eq!(
            issued.facts.not_before,
            now() - Duration::from_secs(backdate)
        );
        assert_eq!(issued.facts.not_after, now() + lifetime);
    }
}

/// CSR-C5: nobody can ask for a lifetime here, so the clamp is the issuer's end. SPIFFE-L8.
#[test]
fn never_issues_past_the_issuer() {
    let authority = authority(30 * DAY, DAY);
    let late = now() + 30 * DAY - Duration::from_secs(60);
    let issued = issue(&authority, late).unwrap();
    assert_eq!(issued.facts.not_after, now() + 30 * DAY);
    let refused = issue(&authority, now() + 30 * DAY).unwrap_err();
    assert!(
        refused.to_string().contains("mesh-lite root renew"),
        "{refused}"
    );
}

#[test]
fn issues_nothing_before_the_issuer_is_valid() {
    let refused = issue(&authority(30 * DAY, DAY), now() - DAY).unwrap_err();
    assert!(matches!(
        refused,
        IssueError::Template(TemplateError::IssuerNotYetValid)
    ));
}

#[test]
fn gives_every_leaf_a_serial_of_its_own() {
    let authority = authority(30 * DAY, DAY);
    let key = public_key();
    let serials: std::collections::HashSet<_> = (0..50)
        .map(|_| {
            let issued = authority
                .issue(web(), Some("web".to_owned()), key.clone(), now())
                .unwrap();
            issued.facts.serial
        })
        .collect();
    assert_eq!(serials.len(), 50);
}

#[test]
fn issues_for_its_own_trust_domain_only() {
    let authority = authority(30 * DAY, DAY);
    let other = id("spiffe://other.test/ns/shop/sa/web");
    let refused = authority
        .issue(other, Some("web".to_owned()), public_key(), now())
        .unwrap_err();
    assert!(matches!(
        refused,
        IssueError::Template(TemplateError::TrustDomain { .. })
    ));
}

#[test]
fn refuses_names_that_no_certificate_can_carry() {
    let authority = authority(30 * DAY, DAY);
    for name in [String::new(), "n".repeat(65)] {
        let refused = authority
            .issue(web(), Some(name), public_key(), now())
            .unwrap_err();
        assert!(matches!(
            refused,
            IssueError::Template(TemplateError::CommonName(_))
        ));
    }
}

/// The longest SPIFFE ID needs two bytes for its length in DER, a short one none.
#[test]
fn carries_identities_of_every_length() {
    let authority = authority(30 * DAY, DAY);
    for length in [40, 127, 128, 129, 255, 256, 2048] {
        let start = "spiffe://mesh.test/ns/n/sa/";
        let long = id(&format!("{start}{}", "a".repeat(length - start.len())));
        let issued = authority
            .issue(long.clone(), Some("web".to_owned()), public_key(), now())
            .unwrap();
        assert_eq!(issued.facts.id, long);
    }
}

#[test]
fn hands_out_nothing_that_differs_from_what_was_meant() {
    let authority = authority(30 * DAY, DAY);
    let trust = authority.trust();
    let template = || {
        SvidTemplate::new(
            Subject {
                common_name: Some("web".to_owned()),
                dns_names: vec!["web.shop.svc".to_owned()],
                ..Subject::of(web())
            },
            public_key(),
            DAY,
            trust.authority.limits(),
            now(),
        )
        .unwrap()
    };
    let meant = template();
    let leaf = trust.authority.sign(&meant).unwrap();
    assert!(svid_inspection::inspect(&leaf, &meant, &trust.authority).is_ok());
    // another template's leaf
    assert!(svid_inspection::inspect(&leaf, &template(), &trust.authority).is_err());
    let mut later = meant.clone();
    later.not_after += Duration::from_secs(1);
    assert!(svid_inspection::inspect(&leaf, &later, &trust.authority).is_err());
    let mut other = meant.clone();
    other.id = id("spiffe://mesh.test/ns/shop/sa/api");
    assert!(svid_inspection::inspect(&leaf, &other, &trust.authority).is_err());
    // renewable although it was not to be
    let mut nameless = meant.clone();
    nameless.common_name = None;
    assert!(svid_inspection::inspect(&leaf, &nameless, &trust.authority).is_err());
    // names of services: one less than was meant, one more, none
    for names in [
        vec!["web.shop.svc", "bank.example"],
        vec![],
        vec!["web.shop"],
    ] {
        let mut others = meant.clone();
        others.dns_names = names.into_iter().map(str::to_owned).collect();
        assert!(svid_inspection::inspect(&leaf, &others, &trust.authority).is_err());
    }
    // another authority's signature, and a broken one
    let elsewhere = self::authority(30 * DAY, DAY).trust();
    assert!(svid_inspection::inspect(&leaf, &meant, &elsewhere.authority).is_err());
    let mut broken = leaf.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    assert!(svid_inspection::inspect(&broken.into(), &meant, &trust.authority).is_err());
    // a CA in place of a leaf
    let ca = trust.authority.certificate();
    assert!(svid_inspection::inspect(ca, &meant, &trust.authority).is_err());
}

#[test]
fn a_leaf_has_one_uri_and_the_dns_names_that_were_meant() {
    let authority = authority(30 * DAY, DAY);
    let names = ["web.shop.svc", "web.shop", "web.shop.svc.cluster.local"];
    let subject = Subject {
        common_name: Some("web-1".to_owned()),
        dns_names: names.map(str::to_owned).into(),
        ..Subject::of(web())
    };
    let issued = authority
        .issue_for(subject, public_key(), DAY, now())
        .unwrap();
    assert_eq!(issued.facts.id, web());
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&issued.chain[0]).unwrap();
    let found = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(found.critical);
    let mut meant = vec![x509_parser::extensions::GeneralName::URI(
        "spiffe://mesh.test/ns/shop/sa/web",
    )];
    meant.extend(names.map(x509_parser::extensions::GeneralName::DNSName));
    assert_eq!(found.value.general_names, meant);
}

#[test]
fn refuses_dns_names_that_are_none_and_more_than_there_is_room_for() {
    let authority = authority(30 * DAY, DAY);
    let issue = |dns_names: Vec<String>| {
        let subject = Subject {
            dns_names,
            ..Subject::of(web())
        };
        authority.issue_for(subject, public_key(), DAY, now())
    };
    for name in [
        "",
        ".",
        "a..b",
        "*.shop.svc",
        "A.b",
        "a b",
        "-a.b",
        "a\0.b",
        "é.b",
        "a.",
    ] {
        let refused = issue(vec![name.to_owned()]);
        assert!(matches!(refused, Err(IssueError::Template(_))), "{name}");
    }
    assert!(issue(vec!["a".repeat(64)]).is_err());
    assert!(issue(vec!["a.b".to_owned(); 32]).is_ok());
    assert!(issue(vec!["a.b".to_owned(); 33]).is_err());
}

/// SPIFFE-A1, SPIFFE-A2, SPIFFE-A4, SPIFFE-A5, SPIFFE-A6
#[test]
fn makes_signing_certificates_as_spiffe_demands() {
    let root = Root::create(&trust_domain(), 365 * DAY, now()).unwrap();
    let issuing = root.sign_issuing_authority(30 * DAY, now()).unwrap();
    for (der, path_length) in [(root.certificate(), 1), (&issuing.certificate, 0)] {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
        let constraints = certificate.basic_constraints().unwrap().unwrap();
        assert!(constraints.critical && constraints.value.ca);
        assert_eq!(constraints.value.path_len_constraint, Some(path_length));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.key_cert_sign() && !usage.value.digital_signature());
        assert!(certificate.extended_key_usage().unwrap().is_none());
        assert!(certificate.name_constraints().unwrap().is_none());
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let uri = x509_parser::extensions::GeneralName::URI("spiffe://mesh.test");
        assert_eq!(names.value.general_names, [uri]);
    }
    assert_ne!(root.facts().key_id, issuing.facts.key_id);
}

#[test]
fn never_signs_an_issuing_authority_past_the_root() {
    let root = Root::create(&trust_domain(), 40 * DAY, now()).unwrap();
    let later = now() + 20 * DAY;
    let issuing = root.sign_issuing_authority(30 * DAY, later).unwrap();
    assert_eq!(issuing.facts.not_after, root.facts().not_after);
    assert!(
        root.sign_issuing_authority(30 * DAY, now() + 40 * DAY)
            .is_err()
    );
}
