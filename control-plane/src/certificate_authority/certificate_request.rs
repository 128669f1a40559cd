//! What a caller's certificate request contributes: a public key and the proof that the caller
//! holds its private half. A name in it that is not the caller's is refused, nothing else in it
//! is listened to (CSR-C2, C3, C4 as design §3).

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA},
    prelude::FromDer,
};

use super::key_kind::{KeyKind, MAX_RSA_BITS, MIN_RSA_BITS};

/// A request for a P-256 key has some 250 bytes, one for RSA 8192 under 4 KiB (CSR-C3).
pub(crate) const MAX_REQUEST: usize = 16 * 1024;

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
pub(crate) struct PublicKey {
    info: SubjectPublicKeyInfo,
    kind: KeyKind,
}

impl PublicKey {
    /// From DER SubjectPublicKeyInfo.
    pub(crate) fn from_der(spki: &[u8]) -> Result<Self, InvalidRequest> {
        let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki)
            .map_err(|_| InvalidRequest::KeyKind)?;
        let kind = KeyKind::of(&parsed).ok_or(InvalidRequest::KeyKind)?;
        let info = SubjectPublicKeyInfo::from_der(spki).map_err(|_| InvalidRequest::KeyKind)?;
        Ok(Self { info, kind })
    }

    pub(crate) fn print(&self) -> KeyPrint {
        KeyPrint::of(&self.info.subject_public_key_info())
    }

    pub(crate) fn kind(&self) -> KeyKind {
        self.kind
    }

    pub(super) fn info(&self) -> &SubjectPublicKeyInfo {
        &self.info
    }
}

/// A request whose signature was checked.
#[derive(Debug, Clone)]
pub(crate) struct CertificateRequest {
    pub(crate) public_key: PublicKey,
    pub(crate) key_print: KeyPrint,
    /// The URI names it asks for: each must be the one the caller gets anyway.
    pub(crate) uris: Vec<String>,
    /// Not part of PKCS#10: said beside it.
    pub(crate) wants_service_names: bool,
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
        // before the signature: checking that of an enormous key costs too much
        let public_key = PublicKey::from_der(key.raw)?;
        let signed_with = &request.signature_algorithm.algorithm;
        if [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(signed_with) {
            return Err(InvalidRequest::Sha1);
        }
        request
            .verify_signature()
            .map_err(|_| InvalidRequest::Signature)?;
        Ok(Self {
            public_key,
            key_print: KeyPrint::of(key.raw),
            uris: uris(&request)?,
            wants_service_names: false,
        })
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
        "the certificate request's key must be EC P-256 or P-384 (named curve, uncompressed point), Ed25519, \
         or RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits: peers verify no other kind"
    )]
    KeyKind,
    #[error(
        "the certificate request is signed with SHA-1, which proves nothing any more: use SHA-256"
    )]
    Sha1,
    #[error("the certificate request is not signed by its own key")]
    Signature,
}

#[cfg(test)]
mod tests;
