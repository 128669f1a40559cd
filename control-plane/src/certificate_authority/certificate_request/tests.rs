use mesh_lite_test_support::requirements::program;
use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize, SanType,
};

use super::*;

fn pem_of(key: &KeyPair, uris: &[&str]) -> String {
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    parameters.serialize_request(key).unwrap().pem().unwrap()
}

fn refused(pem: &[u8]) -> InvalidRequest {
    CertificateRequest::from_pem(pem).unwrap_err()
}

/// CSR-C3
#[test]
fn takes_the_public_key_and_the_names_asked_for() {
    for key in [
        KeyPair::generate().unwrap(),
        KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
    ] {
        let request =
            CertificateRequest::from_pem(pem_of(&key, &["spiffe://a/b", "x:y"]).as_bytes());
        let request = request.unwrap();
        let spki = key.subject_public_key_info();
        assert_eq!(request.public_key.info().subject_public_key_info(), spki);
        assert_eq!(request.key_print, KeyPrint::of(&spki));
        assert_eq!(request.uris, ["spiffe://a/b", "x:y"]);
    }
}

/// rcgen's own reader takes the key's kind from the signature's: openssl signs P-384 with SHA-256.
#[test]
fn takes_a_p_384_key_that_signed_with_sha_256() {
    if !program("takes_a_p_384_key_that_signed_with_sha_256", "openssl") {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let key = directory.path().join("key.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
        ])
        .args(["-sha256", "-subj", "/", "-keyout"])
        .arg(&key)
        .output()
        .unwrap();
    let request = CertificateRequest::from_pem(&made.stdout).unwrap();
    let key = KeyPair::from_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
    assert_eq!(
        request.public_key.info().subject_public_key_info(),
        key.subject_public_key_info()
    );
}

/// CSR-C3
#[test]
fn refuses_other_kinds_of_key() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    assert_eq!(
        refused(pem_of(&key, &[]).as_bytes()),
        InvalidRequest::KeyKind
    );
}

/// SPIFFE-L12
#[test]
fn refuses_weak_rsa_and_curves_nobody_else_verifies() {
    let test = "refuses_weak_rsa_and_curves_nobody_else_verifies";
    if !program(test, "openssl") {
        return;
    }
    let request = |newkey: &[&str]| {
        let common = ["-nodes", "-subj", "/", "-keyout", "/dev/null"];
        let arguments = [&["req", "-new", "-newkey"], newkey, &common].concat();
        let made = std::process::Command::new("openssl")
            .args(arguments)
            .output();
        made.unwrap().stdout
    };
    let weak = request(&["rsa:1024"]);
    assert_eq!(refused(&weak), InvalidRequest::KeyKind);
    let curve = request(&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]);
    assert_eq!(refused(&curve), InvalidRequest::KeyKind);
    let sha1 = request(&["rsa:2048", "-sha1"]);
    assert_eq!(refused(&sha1), InvalidRequest::Sha1);
    let pss = &[
        "-sigopt",
        "rsa_padding_mode:pss",
        "-sigopt",
        "rsa_pss_saltlen:32",
    ];
    let pss = request(&[&["rsa:2048"], &pss[..]].concat());
    assert!(CertificateRequest::from_pem(&pss).is_ok());
    let enough = request(&["rsa:2048"]);
    assert!(CertificateRequest::from_pem(&enough).is_ok());
}

/// CSR-C3, SPIFFE-L12
#[test]
fn refuses_a_signature_of_another_key() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let request = pem_of(&key, &[]);
    let request = CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
        .unwrap()
        .to_vec();
    let (spki, other) = (
        key.subject_public_key_info(),
        other.subject_public_key_info(),
    );
    let place = request
        .windows(spki.len())
        .position(|window| window == spki)
        .unwrap();
    let mut forged = request.clone();
    forged[place..place + spki.len()].copy_from_slice(&other);
    assert!(CertificateRequest::from_der(&request).is_ok());
    assert_eq!(
        CertificateRequest::from_der(&forged).unwrap_err(),
        InvalidRequest::Signature
    );
}

/// CSR-C3, SPIFFE-L12
#[test]
fn refuses_every_change_of_a_byte_or_reads_the_same_key() {
    let key = KeyPair::generate().unwrap();
    let request = pem_of(&key, &["spiffe://a/b"]);
    let good = CertificateSigningRequestDer::from_pem_slice(request.as_bytes())
        .unwrap()
        .to_vec();
    for place in 0..good.len() {
        let mut changed = good.clone();
        changed[place] ^= 0x01;
        if let Ok(request) = CertificateRequest::from_der(&changed) {
            let spki = key.subject_public_key_info();
            assert_eq!(request.public_key.info().subject_public_key_info(), spki);
        }
        assert!(CertificateRequest::from_der(&good[..place]).is_err());
    }
}

/// CSR-C3, SPIFFE-L12
#[test]
fn refuses_what_is_no_request() {
    let good = pem_of(&KeyPair::generate().unwrap(), &[]);
    assert!(matches!(refused(b""), InvalidRequest::Malformed(_)));
    assert!(matches!(
        refused(good.replace("REQUEST", "THING").as_bytes()),
        InvalidRequest::Malformed(_)
    ));
    assert!(matches!(
        refused(&[b'x'; MAX_REQUEST + 1]),
        InvalidRequest::TooLong(_)
    ));
}
