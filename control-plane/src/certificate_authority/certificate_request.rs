//! What a caller's certificate request contributes: a public key and the proof that the caller
//! holds its private half. Nothing else in it is listened to (CSR-C3, C4 as design §3).

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    public_key::PublicKey as ParsedKey,
};

/// A request for a P-256 key has some 250 bytes, one for RSA 8192 under 4 KiB (CSR-C3).
pub(crate) const MAX_REQUEST: usize = 16 * 1024;
/// Below this an RSA key is no proof of anything any more.
const MIN_RSA_BITS: usize = 2048;
/// Above this one verification costs so much that callers could keep us busy with it.
const MAX_RSA_BITS: usize = 8192;

/// SHA-256 of a public key's DER: how keys are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct KeyPrint([u8; 32]);

impl KeyPrint {
    pub(crate) fn of(spki: &[u8]) -> Self {
        let mut print = [0; 32];
        print
            .iter_mut()
            .zip(digest(&SHA256, spki).as_ref())
            .for_each(|(to, from)| *to = *from);
        Self(print)
    }

    pub(crate) fn to_hex(self) -> String {
        mesh_lite_proto::trust_bundle::hex(&self.0)
    }
}

/// A public key whose holder proved to have the private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey(SubjectPublicKeyInfo);

impl PublicKey {
    /// From DER SubjectPublicKeyInfo.
    pub(crate) fn from_der(spki: &[u8]) -> Result<Self, InvalidRequest> {
        SubjectPublicKeyInfo::from_der(spki)
            .map(Self)
            .map_err(|_| InvalidRequest::KeyKind)
    }

    pub(super) fn info(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

/// A request whose signature was checked.
#[derive(Debug, Clone)]
pub(crate) struct CertificateRequest {
    pub(crate) public_key: PublicKey,
    pub(crate) key_print: KeyPrint,
    /// The URI names it asks for: each must be the one the caller gets anyway.
    pub(crate) uris: Vec<String>,
}

impl CertificateRequest {
    pub(crate) fn from_pem(pem: &[u8]) -> Result<Self, InvalidRequest> {
        if pem.len() > MAX_REQUEST {
            return Err(InvalidRequest::TooLong(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|error| InvalidRequest::Malformed(error.to_string()))?;
        Self::from_der(&der)
    }

    fn from_der(der: &[u8]) -> Result<Self, InvalidRequest> {
        let (rest, request) = X509CertificationRequest::from_der(der)
            .map_err(|error| InvalidRequest::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(InvalidRequest::Malformed(
                "bytes follow the request".to_owned(),
            ));
        }
        let key = &request.certification_request_info.subject_pki;
        check_strength(&key.parsed().map_err(|_| InvalidRequest::KeyKind)?)?;
        request
            .verify_signature()
            .map_err(|_| InvalidRequest::Signature)?;
        Ok(Self {
            public_key: PublicKey::from_der(key.raw)?,
            key_print: KeyPrint::of(key.raw),
            uris: uris(&request)?,
        })
    }
}

/// Before the signature is checked: the check of an enormous key costs too much.
fn check_strength(key: &ParsedKey<'_>) -> Result<(), InvalidRequest> {
    match key {
        ParsedKey::EC(point) if matches!(point.key_size(), 256 | 384) => Ok(()),
        ParsedKey::RSA(rsa) if (MIN_RSA_BITS..=MAX_RSA_BITS).contains(&rsa.key_size()) => Ok(()),
        _ => Err(InvalidRequest::KeyKind),
    }
}

fn uris(request: &X509CertificationRequest<'_>) -> Result<Vec<String>, InvalidRequest> {
    let mut uris = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                GeneralName::Invalid(..) => {
                    let reason = "a subject alternative name can't be read".to_owned();
                    return Err(InvalidRequest::Malformed(reason));
                }
                _ => {}
            }
        }
    }
    Ok(uris)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InvalidRequest {
    #[error("the certificate request has {0} bytes, more than {MAX_REQUEST}")]
    TooLong(usize),
    #[error("the certificate request is not PKCS#10 in PEM: {0}")]
    Malformed(String),
    #[error(
        "the certificate request's key must be EC P-256 or P-384, or RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
    )]
    KeyKind,
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

#[cfg(test)]
mod tests;
