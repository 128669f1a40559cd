//! Every leaf as it comes out of the control plane, for every kind of key (SPIFFE-L1 to L12).

use std::time::Duration;

use mesh_lite_control_plane::clock;
use mesh_lite_proto::{secret_discovery::OWN_BUNDLE, trust_bundle::pem};
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SanType,
    SignatureAlgorithm,
};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use tonic::{Code, Status};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
    },
    parse_x509_certificate,
};

use super::{
    client::{Svid, csr, fetch_request, request_for, with_token},
    running::{Running, WORKLOADS, eventually},
};

const WEB: &str = "spiffe://mesh.test/ns/shop/sa/web";

pub(super) fn kinds() -> [&'static SignatureAlgorithm; 4] {
    [
        &PKCS_ECDSA_P256_SHA256,
        &PKCS_ECDSA_P384_SHA384,
        &PKCS_RSA_SHA256,
        &PKCS_ED25519,
    ]
}

async fn ask(running: &Running, csr: &str, key: KeyPair) -> Result<Svid, Status> {
    let token = running.directories.token("shop/web");
    let request = with_token(fetch_request(csr), &token);
    let response = running.fetch(running.anonymous().await, request).await?;
    Ok(Svid::new(&response, key))
}

pub(super) async fn issue(running: &Running, kind: &'static SignatureAlgorithm) -> Svid {
    let key = KeyPair::generate_for(kind).unwrap();
    ask(running, &csr(&key, &[]), key).await.unwrap()
}

fn names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<GeneralName<'a>> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.clone()
}

/// Whether the extension is there, once, and critical.
fn critical(certificate: &X509Certificate<'_>, oid: &Oid<'_>) -> Option<bool> {
    let extension = certificate.get_extension_unique(oid).unwrap();
    extension.map(|extension| extension.critical)
}

fn key_ids(certificate: &X509Certificate<'_>) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let mut ids = (None, None);
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => ids.0 = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                ids.1 = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    ids
}

/// CSR-C7, SPIFFE-L1, SPIFFE-L2, SPIFFE-L3, SPIFFE-L4, SPIFFE-L5, SPIFFE-L6
#[tokio::test]
async fn says_of_a_workload_what_spiffe_demands_and_nothing_else() {
    let running = Running::start().await;
    for kind in kinds() {
        let svid = issue(&running, kind).await;
        let (_, leaf) = parse_x509_certificate(&svid.chain[0]).unwrap();
        assert_eq!(names(&leaf), [GeneralName::URI(WEB)]);
        assert_eq!(critical(&leaf, &OID_X509_EXT_SUBJECT_ALT_NAME), Some(true));
        assert_ne!(leaf.subject().iter().count(), 0);

        let constraints = leaf.basic_constraints().unwrap().unwrap().value;
        assert!(!constraints.ca && constraints.path_len_constraint.is_none());
        assert!(critical(&leaf, &OID_X509_EXT_BASIC_CONSTRAINTS).is_some());
        assert_eq!(critical(&leaf, &OID_X509_EXT_KEY_USAGE), Some(true));
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert_eq!(usage.flags, 1, "digitalSignature alone: {usage}");
        assert!(critical(&leaf, &OID_X509_EXT_EXTENDED_KEY_USAGE).is_some());
        let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth && !purposes.any);
        assert_eq!(leaf.extensions().len(), 6, "and nothing else");
    }
}

/// CSR-C7, SPIFFE-L7, SPIFFE-L8, SPIFFE-L9, SPIFFE-L10
#[tokio::test]
async fn stays_within_its_issuer_and_names_it() {
    let running = Running::start().await;
    let mut serials = std::collections::HashSet::new();
    for kind in kinds() {
        let asked = clock::now();
        let svid = issue(&running, kind).await;
        let (_, leaf) = parse_x509_certificate(&svid.chain[0]).unwrap();
        let (_, issuer) = parse_x509_certificate(&svid.chain[1]).unwrap();
        assert_eq!(names(&issuer), [GeneralName::URI("spiffe://mesh.test")]);
        assert_eq!(leaf.issuer(), issuer.subject());
        assert!(leaf.validity().not_after <= issuer.validity().not_after);
        assert!(leaf.validity().not_before >= issuer.validity().not_before);
        // leaves here live an hour: a tenth of it is more than two minutes
        let (not_before, two_minutes) = (svid.facts.not_before, Duration::from_secs(120));
        let early = asked.duration_since(not_before).unwrap();
        assert!(early <= two_minutes + Duration::from_secs(1), "{early:?}");
        assert!(not_before + two_minutes <= clock::now(), "{early:?}");

        let serial = leaf.raw_serial();
        assert!(serial.len() >= 9 && serial[0] & 0x80 == 0, "{serial:?}");
        assert!(serials.insert(serial.to_vec()));
        let (own, of_issuer) = key_ids(&leaf);
        assert!(own.is_some_and(|own| Some(&own) != of_issuer.as_ref()));
        assert_eq!(of_issuer, key_ids(&issuer).0);
        assert!(of_issuer.is_some());
    }
}

/// The holder of each kind of key comes back with it.
#[tokio::test]
async fn opens_connections_with_every_kind_of_key() {
    let running = Running::start().await;
    for kind in kinds() {
        let svid = issue(&running, kind).await;
        let channel = running.connect(Some(&svid)).await.unwrap();
        let bundle = running.fetch(channel, request_for(&[OWN_BUNDLE])).await;
        assert_eq!(bundle.unwrap().resources.len(), 1);
    }
}

/// SPIFFE-L11, CSR-C4: a request may wish for anything; only its key and its proof count.
#[tokio::test]
async fn takes_nothing_from_a_request_but_its_key() {
    let running = Running::start().await;
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name.push(DnType::CommonName, "admin");
    wishes.subject_alt_names = vec![
        SanType::URI(WEB.try_into().unwrap()),
        SanType::DnsName("control-plane.mesh.test".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 9].into()),
    ];
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    // basic constraints: SEQUENCE { CA TRUE }
    let authority = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
    wishes.custom_extensions = vec![authority];
    let request = wishes.serialize_request(&key).unwrap().pem().unwrap();
    let svid = ask(&running, &request, key).await.unwrap();
    let (_, leaf) = parse_x509_certificate(&svid.chain[0]).unwrap();
    assert_eq!(names(&leaf), [GeneralName::URI(WEB)]);
    assert_eq!(svid.facts.common_name.as_deref(), Some("web"));
    assert!(!leaf.is_ca());
    assert_eq!(leaf.key_usage().unwrap().unwrap().value.flags, 1);
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.code_signing);
}

/// SPIFFE-L11: another's name is refused, and so is a second one beside the caller's own.
#[tokio::test]
async fn refuses_requests_that_name_somebody_else() {
    let running = Running::start().await;
    let other = "spiffe://mesh.test/ns/shop/sa/api";
    for uris in [vec![other], vec![WEB, other], vec![other, WEB]] {
        let key = KeyPair::generate().unwrap();
        let request = csr(&key, &uris);
        let refused = ask(&running, &request, key).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    }
    assert_eq!(granted(&running).await, 0.0);
}

/// SPIFFE-I9: in the document, the request, the name of the secret and the certificate.
#[tokio::test]
async fn certifies_the_longest_spiffe_id_and_none_that_is_longer() {
    let running = Running::start().await;
    let before = "spiffe://mesh.test/ns/shop/sa/";
    let account = "x".repeat(2048 - before.len());
    let (longest, longer) = (format!("{before}{account}"), format!("{before}{account}x"));
    let document = WORKLOADS.replace("serviceAccount: web", &format!("serviceAccount: {account}"));
    running.directories.write("workloads.yaml", &document);
    let ask_for = async |named: &str| {
        let key = KeyPair::generate().unwrap();
        let mut request = fetch_request(&csr(&key, &[named]));
        request.resource_names = vec![named.to_owned()];
        let request = with_token(request, &running.directories.token("shop/web"));
        let response = running.fetch(running.anonymous().await, request).await?;
        Ok::<_, Status>(Svid::new(&response, key))
    };
    let svid = eventually("the document is read", async || {
        ask_for(&longest).await.ok()
    })
    .await;
    assert_eq!(svid.facts.id.as_str(), longest);
    let refused = ask_for(&longer).await.err().unwrap();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // a name that is no SPIFFE ID and longer than any is a mistake in the request itself
    let refused = ask_for(&"x".repeat(2048 + 17)).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

/// SPIFFE-L12, CSR-C3
#[tokio::test]
async fn signs_nothing_for_requests_that_prove_no_key() {
    let running = Running::start().await;
    let good = csr(&KeyPair::generate().unwrap(), &[]);
    let der = CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let mut broken = der.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let mut longer = der.to_vec();
    longer.push(0);
    let requests = [
        pem("CERTIFICATE REQUEST", &broken),
        pem("CERTIFICATE REQUEST", &longer),
        pem("CERTIFICATE REQUEST", b"rubbish"),
        pem("CERTIFICATE", &der),
        "rubbish".to_owned(),
    ];
    for request in requests {
        let key = KeyPair::generate().unwrap();
        let refused = ask(&running, &request, key).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    assert_eq!(granted(&running).await, 0.0);
}

async fn granted(running: &Running) -> f64 {
    running
        .metric("mesh_lite_control_plane_issuances_total{outcome=\"granted\"}")
        .await
}
