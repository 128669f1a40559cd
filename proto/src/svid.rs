//! What an X509-SVID says, read from its certificate (X509-SVID §§2, 4, 5).
//!
//! Signatures and time are not judged here: that is the verifier's job, with a trust bundle and
//! a clock. Everything else that makes a leaf a leaf is.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

use crate::identity::{InvalidWorkloadId, WorkloadId};

/// RFC 5280 §4.1.2.2 allows 20 octets; one more may be the sign.
const MAX_SERIAL: usize = 21;

/// How many certificates peers follow: leaf, issuing CA, and two more for an authority that was
/// imported.
pub const MAX_CHAIN: usize = 4;
/// A chain of ours has 1 KB; a peer that sends more than this wants us to work.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;

/// A certificate's serial number. Shown as lower-case hex without separators.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// Leading zero bytes carry no value and are dropped.
    ///
    /// # Errors
    /// If it is empty, zero or longer than a serial may be.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidSerial> {
        let value = bytes
            .iter()
            .position(|byte| *byte != 0)
            .and_then(|start| bytes.get(start..))
            .filter(|value| bytes.len() <= MAX_SERIAL && !value.is_empty())
            .ok_or(InvalidSerial)?;
        Ok(Self(value.into()))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = InvalidSerial;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 2 * MAX_SERIAL || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InvalidSerial);
        }
        let even = if text.len().is_multiple_of(2) {
            text.to_owned()
        } else {
            format!("0{text}")
        };
        let bytes: Vec<u8> = even
            .as_bytes()
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        Self::new(&bytes)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 1 to {MAX_SERIAL} bytes, written in hex, and not zero")]
pub struct InvalidSerial;

/// What a workload's certificate says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafFacts {
    pub id: WorkloadId,
    pub serial: Serial,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Name of the pod or Workload document it was issued to.
    pub common_name: Option<String>,
}

/// Reads a workload's certificate.
///
/// # Errors
/// If it is not a leaf as X509-SVID demands: exactly one URI SAN, which is a workload's SPIFFE
/// ID; not a CA; a key usage with digitalSignature and without keyCertSign and cRLSign; an
/// extended key usage, where present, with both serverAuth and clientAuth.
pub fn inspect_leaf(der: &CertificateDer<'_>) -> Result<LeafFacts, InvalidLeaf> {
    let certificate = parse(der)?;
    let id = only_uri(&certificate)?.parse()?;
    check_usage(&certificate)?;
    let serial = Serial::new(certificate.raw_serial()).map_err(|_| InvalidLeaf::Serial)?;
    let validity = certificate.validity();
    let common_name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .map(ToOwned::to_owned);
    Ok(LeafFacts {
        id,
        serial,
        not_before: system_time(validity.not_before.timestamp()),
        not_after: system_time(validity.not_after.timestamp()),
        common_name,
    })
}

/// Until when a certificate above a leaf is good. That it is a CA, and how far down it may sign, is
/// the chain check's to see; webpki does not look at its key usage (X509-SVID §4.3).
///
/// # Errors
/// If it can't be parsed, or its key usage does not allow it to sign certificates.
pub fn issuer_end(der: &CertificateDer<'_>) -> Result<SystemTime, IssuerMayNotSign> {
    let issuer = parse(der).map_err(|_| IssuerMayNotSign)?;
    match issuer.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => {
            Ok(system_time(issuer.validity().not_after.timestamp()))
        }
        _ => Err(IssuerMayNotSign),
    }
}

/// That peers look at a chain (leaf first, without the root) at all.
///
/// # Errors
/// If it has too many certificates or bytes.
pub fn check_chain_size(chain: &[CertificateDer<'_>]) -> Result<(), ChainTooLong> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        return Err(ChainTooLong);
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chain has more than {MAX_CHAIN} certificates or {MAX_CHAIN_BYTES} bytes")]
pub struct ChainTooLong;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a certificate of the chain may not sign certificates")]
pub struct IssuerMayNotSign;

/// The public key of a certificate, as DER SubjectPublicKeyInfo.
///
/// # Errors
/// If the certificate can't be parsed.
pub fn public_key_of(der: &CertificateDer<'_>) -> Result<Vec<u8>, InvalidLeaf> {
    Ok(parse(der)?.public_key().raw.to_vec())
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidLeaf> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(InvalidLeaf::Malformed(
            "bytes follow the certificate".to_owned(),
        )),
        Err(error) => Err(InvalidLeaf::Malformed(error.to_string())),
    }
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, InvalidLeaf> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| InvalidLeaf::Malformed(error.to_string()))?
        .ok_or(InvalidLeaf::UriSans(0))?;
    // the parser keeps a name that it can't read as `Invalid`: it might be a second URI
    if names
        .value
        .general_names
        .iter()
        .any(|name| matches!(name, GeneralName::Invalid(..)))
    {
        return Err(InvalidLeaf::Malformed(
            "a subject alternative name can't be read".to_owned(),
        ));
    }
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (None, _) => Err(InvalidLeaf::UriSans(0)),
        (Some(_), more) => Err(InvalidLeaf::UriSans(more.saturating_add(1))),
    }
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), InvalidLeaf> {
    let malformed =
        |error: x509_parser::error::X509Error| InvalidLeaf::Malformed(error.to_string());
    if certificate
        .basic_constraints()
        .map_err(malformed)?
        .is_some_and(|basic| basic.value.ca)
    {
        return Err(InvalidLeaf::IsAuthority);
    }
    let usage = certificate
        .key_usage()
        .map_err(malformed)?
        .ok_or(InvalidLeaf::NoKeyUsage)?;
    if !usage.value.digital_signature() {
        return Err(InvalidLeaf::NoDigitalSignature);
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(InvalidLeaf::MaySign);
    }
    if let Some(extended) = certificate.extended_key_usage().map_err(malformed)?
        && !(extended.value.server_auth && extended.value.client_auth)
    {
        return Err(InvalidLeaf::ExtendedKeyUsage);
    }
    let unreadable = certificate.extensions().iter().any(|extension| {
        extension.critical
            && matches!(
                extension.parsed_extension(),
                ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::ParseError { .. }
            )
    });
    if unreadable {
        Err(InvalidLeaf::UnknownCriticalExtension)
    } else {
        Ok(())
    }
}

fn system_time(unix_seconds: i64) -> SystemTime {
    match u64::try_from(unix_seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLeaf {
    #[error("the certificate can't be parsed: {0}")]
    Malformed(String),
    #[error("the certificate has {0} URI names; an X509-SVID has exactly one")]
    UriSans(usize),
    #[error(transparent)]
    Id(#[from] InvalidWorkloadId),
    #[error("the certificate is a CA; a workload's is not")]
    IsAuthority,
    #[error("the certificate states no key usage")]
    NoKeyUsage,
    #[error("the certificate's key usage lacks digitalSignature")]
    NoDigitalSignature,
    #[error("the certificate's key usage allows it to sign certificates or CRLs")]
    MaySign,
    #[error("the certificate's extended key usage lacks serverAuth or clientAuth")]
    ExtendedKeyUsage,
    #[error("the certificate has a critical extension that nobody here knows")]
    UnknownCriticalExtension,
    #[error("the certificate's serial number is not one")]
    Serial,
}

#[cfg(test)]
mod tests;
