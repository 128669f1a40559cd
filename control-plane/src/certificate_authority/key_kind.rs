//! Which public keys are certified: those that every peer of the mesh can verify at a handshake.

use std::fmt;

use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519, Oid,
    },
    public_key::{PublicKey as ParsedKey, RSAPublicKey},
    x509::SubjectPublicKeyInfo,
};

/// Below this an RSA key is no proof of anything any more.
pub(super) const MIN_RSA_BITS: usize = 2048;
/// Above this neither rustls nor BoringSSL verifies a signature: the certificate would be refused
/// everywhere, and checking the request would keep us busy.
pub(super) const MAX_RSA_BITS: usize = 8192;
/// With 1 everybody's signature is good; above 33 bits BoringSSL refuses the key.
const RSA_EXPONENTS: std::ops::Range<u64> = 3..1 << 33;
/// The first byte of a point with both coordinates; the compressed form is read by few.
const UNCOMPRESSED: u8 = 4;

/// P-521 and secp256k1 are missing because Envoy (BoringSSL) offers no signature scheme for them.
/// Nor does it for Ed25519, which rustls peers take: whoever chooses that key chooses its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    EcP256,
    EcP384,
    Ed25519,
    Rsa { bits: usize },
}

impl KeyKind {
    /// `None`: a kind that is not certified. The signature is not looked at: whether a key is
    /// worth that is decided first.
    pub(crate) fn of(key: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        let kind = &key.algorithm.algorithm;
        if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY {
            return elliptic_curve(key);
        }
        if *kind == OID_SIG_ED25519 {
            const LENGTH: usize = 32;
            let whole = key.subject_public_key.data.len() == LENGTH;
            return (whole && key.algorithm.parameters.is_none()).then_some(Self::Ed25519);
        }
        if *kind == OID_PKCS1_RSAENCRYPTION
            && let Ok(ParsedKey::RSA(rsa)) = key.parsed()
        {
            return rsa_of(&rsa);
        }
        None
    }
}

fn rsa_of(key: &RSAPublicKey<'_>) -> Option<KeyKind> {
    let exponent = key.try_exponent().ok()?;
    // the parser counts whole bytes, and a modulus may begin with zero bits
    let start = key.modulus.iter().position(|byte| *byte != 0)?;
    let modulus = key.modulus.get(start..)?;
    let unused = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    let bits = modulus.len().checked_mul(8)?.checked_sub(unused)?;
    let usable = (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits)
        && RSA_EXPONENTS.contains(&exponent)
        && exponent % 2 == 1;
    usable.then_some(KeyKind::Rsa { bits })
}

fn elliptic_curve(key: &SubjectPublicKeyInfo<'_>) -> Option<KeyKind> {
    let curve: Oid<'_> = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let (kind, coordinate) = if curve == OID_EC_P256 {
        (KeyKind::EcP256, 32_usize)
    } else if curve == OID_NIST_EC_P384 {
        (KeyKind::EcP384, 48)
    } else {
        return None;
    };
    match key.subject_public_key.data.split_first() {
        Some((&UNCOMPRESSED, point)) if point.len() == 2 * coordinate => Some(kind),
        _ => None,
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcP256 => f.write_str("EC P-256"),
            Self::EcP384 => f.write_str("EC P-384"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
        }
    }
}

#[cfg(test)]
mod tests;
