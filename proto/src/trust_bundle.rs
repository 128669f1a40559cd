//! The root certificates of a trust domain (SPIFFE Trust Domain and Bundle §4).

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use spiffe::TrustDomain;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// A root rotation holds two; more than this many is a mistake or an attack.
const MAX_AUTHORITIES: usize = 64;

/// The authorities of one trust domain. Never empty: a bundle without an authority would make
/// every peer a stranger, and is refused where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<CertificateDer<'static>>,
}

impl TrustBundle {
    /// Certificates that are there twice are kept once.
    ///
    /// # Errors
    /// If there is none, too many, or one that is not a CA certificate.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, InvalidTrustBundle> {
        if certificates.len() > MAX_AUTHORITIES {
            return Err(InvalidTrustBundle::TooMany(certificates.len()));
        }
        let mut authorities: Vec<CertificateDer<'static>> = Vec::with_capacity(certificates.len());
        for (index, certificate) in certificates.into_iter().enumerate() {
            check_authority(&certificate).map_err(|reason| InvalidTrustBundle::NotAnAuthority {
                index: index.saturating_add(1),
                reason,
            })?;
            if !authorities.contains(&certificate) {
                authorities.push(certificate);
            }
        }
        if authorities.is_empty() {
            return Err(InvalidTrustBundle::Empty);
        }
        Ok(Self {
            trust_domain,
            authorities,
        })
    }

    /// # Errors
    /// If the text is not PEM certificates, or as [`TrustBundle::new`].
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, InvalidTrustBundle> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .take(MAX_AUTHORITIES.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| InvalidTrustBundle::Pem(error.to_string()))?;
        Self::new(trust_domain, certificates)
    }

    pub fn to_pem(&self) -> String {
        self.authorities
            .iter()
            .map(|authority| pem("CERTIFICATE", authority))
            .collect()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    /// A name for this content: equal bundles have equal digests, whatever the order.
    pub fn digest(&self) -> String {
        let mut prints: Vec<_> = self
            .authorities
            .iter()
            .map(|authority| digest(&SHA256, authority))
            .collect();
        prints.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
        let all: Vec<u8> = prints
            .iter()
            .flat_map(|print| print.as_ref())
            .copied()
            .collect();
        hex(digest(&SHA256, &all).as_ref())
    }
}

/// DER in PEM's clothes (RFC 7468). Written once, where it stays: of a private key no copy is left
/// behind beside the one that the caller wipes.
pub fn pem(label: &str, der: &[u8]) -> String {
    /// 64 symbols.
    const LINE: usize = 48;
    const AROUND: usize = "-----BEGIN -----\n-----END -----\n".len();
    let symbols = der.len().div_ceil(3) * 4 + der.len().div_ceil(LINE);
    let mut text = String::with_capacity(AROUND + 2 * label.len() + symbols);
    let _ = writeln!(text, "-----BEGIN {label}-----");
    for line in der.chunks(LINE) {
        base64(line, &mut text);
        text.push('\n');
    }
    let _ = writeln!(text, "-----END {label}-----");
    text
}

/// Standard base64 with padding, appended.
pub fn base64(bytes: &[u8], text: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            let index = (bits >> (18 - 6 * position)) & 63;
            let symbol = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            text.push(char::from(if position <= group.len() {
                symbol
            } else {
                b'='
            }));
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn check_authority(der: &CertificateDer<'_>) -> Result<(), &'static str> {
    let Ok((rest, certificate)) = X509Certificate::from_der(der) else {
        return Err("it can't be parsed");
    };
    if !rest.is_empty() {
        return Err("bytes follow it");
    }
    if !certificate.is_ca() {
        return Err("it is not a CA");
    }
    match certificate.key_usage() {
        Ok(Some(usage)) if usage.value.key_cert_sign() => Ok(()),
        Ok(None) => Ok(()),
        _ => Err("its key usage does not allow it to sign certificates"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTrustBundle {
    #[error("the trust bundle holds no certificate, so it would trust nobody")]
    Empty,
    #[error("the trust bundle holds {0} certificates, more than {MAX_AUTHORITIES}")]
    TooMany(usize),
    #[error("the trust bundle is not PEM: {0}")]
    Pem(String),
    #[error("certificate {index} of the trust bundle is not an authority: {reason}")]
    NotAnAuthority { index: usize, reason: &'static str },
}

#[cfg(test)]
mod tests;
