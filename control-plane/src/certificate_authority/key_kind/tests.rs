use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
};
use x509_parser::prelude::FromDer;

use super::*;

const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const SECP256K1: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x0a";
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const RSA_PSS: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
const ED448: &[u8] = b"\x06\x03\x2b\x65\x71";

fn kind(spki: &[u8]) -> Option<KeyKind> {
    KeyKind::of(&SubjectPublicKeyInfo::from_der(spki).unwrap().1)
}

/// DER with a length of two bytes, which every decoder takes that takes BER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        short @ 0..=127 => vec![tag, u8::try_from(short).unwrap()],
        128..=255 => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [&head, content].concat()
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = der(3, &[&[0], key].concat());
    der(0x30, &[der(0x30, algorithm), bits].concat())
}

fn rsa(bits: usize, exponent: &[u8]) -> Vec<u8> {
    let mut modulus = vec![0xff; bits.div_ceil(8)];
    modulus[0] = 0xff >> (modulus.len() * 8 - bits);
    if modulus[0] & 0x80 != 0 {
        modulus.insert(0, 0);
    }
    let key = der(0x30, &[der(2, &modulus), der(2, exponent)].concat());
    spki(RSA, &key)
}

const F4: &[u8] = &[1, 0, 1];

/// CSR-C3
#[test]
fn knows_every_kind_that_is_certified() {
    for (algorithm, expected) in [
        (&PKCS_ECDSA_P256_SHA256, KeyKind::EcP256),
        (&PKCS_ECDSA_P384_SHA384, KeyKind::EcP384),
        (&PKCS_ED25519, KeyKind::Ed25519),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(kind(&key.subject_public_key_info()), Some(expected));
    }
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap();
    assert_eq!(
        kind(&key.subject_public_key_info()),
        Some(KeyKind::Rsa { bits: 3072 })
    );
}

/// CSR-C3, SPIFFE-L12
#[test]
fn takes_rsa_between_its_bounds_and_not_a_bit_beyond() {
    for (bits, taken) in [
        (1024, false),
        (2047, false),
        (2048, true),
        (4096, true),
        (8192, true),
        (8193, false),
        (16_384, false),
    ] {
        let expected = taken.then_some(KeyKind::Rsa { bits });
        assert_eq!(kind(&rsa(bits, F4)), expected, "{bits}");
    }
}

/// CSR-C3: a zero in front makes a key no longer.
#[test]
fn does_not_count_the_zeros_before_a_modulus() {
    let modulus = [vec![0; 129], vec![0xff; 128]].concat();
    let key = der(0x30, &[der(2, &modulus), der(2, F4)].concat());
    assert_eq!(kind(&spki(RSA, &key)), None);
}

/// CSR-C3
#[test]
fn refuses_rsa_exponents_that_make_every_signature_good_or_that_peers_refuse() {
    for exponent in [
        &[0][..],
        &[1],
        &[2],
        &[1, 0, 0],
        &[2, 0, 0, 0, 1],
        &[0xff],
        &[1; 9],
    ] {
        assert_eq!(kind(&rsa(2048, exponent)), None, "{exponent:?}");
    }
    assert!(kind(&rsa(2048, &[3])).is_some());
}

/// CSR-C3, SPIFFE-L12: as their signature would be verified by some peers and not by others.
#[test]
fn refuses_curves_that_peers_do_not_verify() {
    let p521 = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    assert_eq!(kind(&p521.subject_public_key_info()), None);
    let point = [vec![4], vec![7; 64]].concat();
    assert_eq!(
        kind(&spki(&[EC_PUBLIC_KEY, P256].concat(), &point)),
        Some(KeyKind::EcP256)
    );
    assert_eq!(
        kind(&spki(&[EC_PUBLIC_KEY, SECP256K1].concat(), &point)),
        None
    );
    assert_eq!(
        kind(&spki(EC_PUBLIC_KEY, &point)),
        None,
        "a key without a curve"
    );
    assert_eq!(kind(&spki(ED448, &[7; 57])), None);
    assert_eq!(kind(&spki(RSA_PSS, b"")), None);
}

/// CSR-C3
#[test]
fn refuses_points_that_are_compressed_cut_or_at_infinity() {
    let algorithm = [EC_PUBLIC_KEY, P256].concat();
    for point in [
        [vec![2], vec![7; 32]].concat(),
        [vec![4], vec![7; 63]].concat(),
        [vec![4], vec![7; 96]].concat(),
        vec![0],
        vec![],
    ] {
        assert_eq!(kind(&spki(&algorithm, &point)), None, "{point:?}");
    }
    assert_eq!(kind(&spki(ED25519, &[7; 31])), None);
    assert_eq!(kind(&spki(ED25519, &[7; 32])), Some(KeyKind::Ed25519));
}
