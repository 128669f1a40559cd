//! A new private key, and the request that proves its possession.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use zeroize::Zeroize;

use super::PrivateKey;

/// A P-256 key and its certificate request.
pub struct KeyAndRequest {
    pub key: PrivateKey,
    /// PKCS#10, PEM. It names nobody: who we are, the issuer decides from our credential.
    pub request: String,
}

impl KeyAndRequest {
    /// Makes both. The key exists in this process only.
    ///
    /// # Errors
    /// If the cryptographic library can't.
    pub fn generate() -> Result<Self, KeyError> {
        let mut pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        let request = request_for(&pair);
        let key = PrivateKey::from_pkcs8(pair.serialize_der());
        pair.zeroize();
        Ok(Self {
            key,
            request: request?,
        })
    }
}

fn request_for(pair: &KeyPair) -> Result<String, KeyError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(pair).map_err(KeyError::Request)?;
    request.pem().map_err(KeyError::Request)
}

/// The public half, as DER SubjectPublicKeyInfo.
///
/// # Errors
/// If it is not a P-256 key in PKCS#8.
pub fn public_half(key: &PrivateKey) -> Result<Vec<u8>, KeyError> {
    let der = PrivatePkcs8KeyDer::from(key.secret_bytes());
    let mut pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
        .map_err(KeyError::Unreadable)?;
    let public = pair.subject_public_key_info();
    pair.zeroize();
    Ok(public)
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    #[error("a private key could not be made: {0}")]
    Generate(rcgen::Error),
    #[error("a certificate request could not be made: {0}")]
    Request(rcgen::Error),
    #[error("the private key can't be read: {0}")]
    Unreadable(rcgen::Error),
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
    use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

    use super::*;

    #[test]
    fn a_request_is_signed_by_its_key_and_names_nobody() {
        let made = KeyAndRequest::generate().unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(made.request.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(info.subject_pki.raw, public_half(&made.key).unwrap());
        assert_eq!(info.subject.iter().count(), 0);
        assert_eq!(request.requested_extensions().map_or(0, Iterator::count), 0);
    }

    #[test]
    fn every_key_is_a_new_one() {
        let one = KeyAndRequest::generate().unwrap();
        let other = KeyAndRequest::generate().unwrap();
        assert_ne!(
            public_half(&one.key).unwrap(),
            public_half(&other.key).unwrap()
        );
    }

    #[test]
    fn refuses_bytes_that_are_no_key() {
        for bytes in [
            Vec::new(),
            vec![0; 32],
            b"-----BEGIN PRIVATE KEY-----".to_vec(),
        ] {
            assert!(matches!(
                public_half(&PrivateKey::from_pkcs8(bytes)),
                Err(KeyError::Unreadable(_))
            ));
        }
    }
}
