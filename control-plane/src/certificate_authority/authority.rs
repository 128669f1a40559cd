//! An issuing CA: a certificate, its key, and what it may do.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use mesh_lite_proto::trust_bundle::{TrustBundle, hex};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree, ParsedExtension},
    prelude::FromDer,
};

use super::svid_template::{IssuerLimits, SvidTemplate};
use crate::clock::from_unix_seconds;

/// What a CA certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityFacts {
    /// `None`: an imported CA that names no trust domain.
    pub(crate) trust_domain: Option<TrustDomain>,
    /// Lower-case hex of the subject key identifier: how sidecars name the active authority.
    pub(crate) key_id: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl AuthorityFacts {
    /// Reads a CA certificate, ours or imported. Refused: not a CA, can't sign certificates, a
    /// path in its URI, URI name constraints (every rustls peer would fail).
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, InvalidAuthority> {
        let certificate = parse(der)?;
        if !certificate.is_ca() {
            return Err(InvalidAuthority::NotAnAuthority);
        }
        let usage = certificate.key_usage().map_err(malformed)?;
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            return Err(InvalidAuthority::MayNotSign);
        }
        if has_uri_constraints(&certificate)? {
            return Err(InvalidAuthority::UriConstraints);
        }
        let validity = certificate.validity();
        let seconds = |timestamp: i64| from_unix_seconds(u64::try_from(timestamp).unwrap_or(0));
        Ok(Self {
            trust_domain: trust_domain(&certificate)?,
            key_id: key_identifier(&certificate),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), InvalidAuthority> {
        if now >= self.not_after {
            return Err(InvalidAuthority::Expired(crate::clock::readable(
                self.not_after,
            )));
        }
        if now < self.not_before {
            return Err(InvalidAuthority::NotYetValid(crate::clock::readable(
                self.not_before,
            )));
        }
        Ok(())
    }
}

/// The CA that signs leaves. Its key is never printed: there is no `Debug`.
pub(crate) struct IssuingAuthority {
    certificate: CertificateDer<'static>,
    facts: AuthorityFacts,
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    public_key: Vec<u8>,
}

impl IssuingAuthority {
    /// # Errors
    /// If the certificate is not a CA's or names another trust domain, or the key is not the
    /// certificate's.
    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        trust_domain: &TrustDomain,
    ) -> Result<Self, InvalidAuthority> {
        let facts = AuthorityFacts::read(&certificate)?;
        if let Some(found) = facts
            .trust_domain
            .as_ref()
            .filter(|found| *found != trust_domain)
        {
            return Err(InvalidAuthority::OtherTrustDomain {
                found: found.to_string(),
                expected: trust_domain.to_string(),
            });
        }
        let public_key = parse(&certificate)?.public_key().raw.to_vec();
        if rcgen::PublicKeyData::subject_public_key_info(&key) != public_key {
            return Err(InvalidAuthority::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| InvalidAuthority::Malformed(error.to_string()))?;
        Ok(Self {
            certificate,
            facts,
            trust_domain: trust_domain.clone(),
            issuer,
            public_key,
        })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn facts(&self) -> &AuthorityFacts {
        &self.facts
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What no leaf of it may go beyond.
    pub(super) fn limits(&self) -> IssuerLimits<'_> {
        IssuerLimits {
            trust_domain: &self.trust_domain,
            not_before: self.facts.not_before,
            not_after: self.facts.not_after,
        }
    }

    /// DER SubjectPublicKeyInfo.
    pub(crate) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    pub(super) fn sign(
        &self,
        template: &SvidTemplate,
    ) -> Result<CertificateDer<'static>, super::IssueError> {
        let parameters = template.parameters()?;
        Ok(parameters
            .signed_by(template.public_key.info(), &self.issuer)?
            .into())
    }

    /// The root in the bundle that signed this CA.
    pub(crate) fn root_in<'a>(
        &self,
        bundle: &'a TrustBundle,
    ) -> Result<&'a CertificateDer<'static>, InvalidAuthority> {
        let certificate = parse(&self.certificate)?;
        bundle
            .authorities()
            .iter()
            .find(|root| is_signed_by(&certificate, root))
            .ok_or(InvalidAuthority::NotOfThisBundle)
    }
}

fn is_signed_by(certificate: &X509Certificate<'_>, root: &CertificateDer<'_>) -> bool {
    let Ok(root) = parse(root) else { return false };
    root.subject() == certificate.issuer()
        && certificate
            .verify_signature(Some(root.public_key()))
            .is_ok()
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, InvalidAuthority> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(InvalidAuthority::Malformed(
            "bytes follow the certificate".to_owned(),
        )),
        Err(error) => Err(InvalidAuthority::Malformed(error.to_string())),
    }
}

fn malformed(error: x509_parser::error::X509Error) -> InvalidAuthority {
    InvalidAuthority::Malformed(error.to_string())
}

fn trust_domain(
    certificate: &X509Certificate<'_>,
) -> Result<Option<TrustDomain>, InvalidAuthority> {
    let names = certificate.subject_alternative_name().map_err(malformed)?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let Some(uri) = uris.next() else {
        return Ok(None);
    };
    if uris.next().is_some() {
        return Err(InvalidAuthority::Uris);
    }
    let name = uri
        .strip_prefix("spiffe://")
        .filter(|name| !name.contains('/'))
        .ok_or_else(|| InvalidAuthority::UriWithPath(uri.to_owned()))?;
    match TrustDomain::new(name) {
        Ok(domain) if domain.to_string() == name => Ok(Some(domain)),
        _ => Err(InvalidAuthority::UriWithPath(uri.to_owned())),
    }
}

fn has_uri_constraints(certificate: &X509Certificate<'_>) -> Result<bool, InvalidAuthority> {
    let Some(constraints) = certificate.name_constraints().map_err(malformed)? else {
        return Ok(false);
    };
    let of_uris = |subtrees: &Option<Vec<GeneralSubtree<'_>>>| {
        subtrees
            .iter()
            .flatten()
            .any(|subtree| matches!(subtree.base, GeneralName::URI(_)))
    };
    let constraints = constraints.value;
    Ok(of_uris(&constraints.permitted_subtrees) || of_uris(&constraints.excluded_subtrees))
}

/// An imported CA without a key identifier is named by what rcgen then writes into its leaves:
/// the start of its public key's SHA-256.
fn key_identifier(certificate: &X509Certificate<'_>) -> String {
    const LENGTH: usize = 20;
    let stated =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
                _ => None,
            });
    stated.unwrap_or_else(|| {
        let print = digest(&SHA256, certificate.public_key().raw);
        hex(print.as_ref().get(..LENGTH).unwrap_or_default())
    })
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthority {
    #[error("the CA certificate can't be parsed: {0}")]
    Malformed(String),
    #[error("the certificate is not a CA's")]
    NotAnAuthority,
    #[error("the CA certificate's key usage does not allow it to sign certificates")]
    MayNotSign,
    #[error(
        "the CA certificate has more than one URI name; it may have one, spiffe://<trust domain>"
    )]
    Uris,
    #[error("{0:?} is no trust domain: a CA's URI is spiffe://<trust domain>, without a path")]
    UriWithPath(String),
    #[error("the CA certificate constrains URI names, and every rustls peer refuses such a chain")]
    UriConstraints,
    #[error("the CA certificate and its key do not belong together")]
    OtherKey,
    #[error("the CA certificate expired at {0}: sign the next one with `mesh-lite root renew`")]
    Expired(String),
    #[error("the CA certificate is valid from {0} on: compare the clocks")]
    NotYetValid(String),
    #[error(
        "the CA is of trust domain {found}, not {expected}: give the --trust-domain that `root init` was given"
    )]
    OtherTrustDomain { found: String, expected: String },
    #[error(
        "no root in the trust bundle signed the issuing CA, so no sidecar would trust its leaves"
    )]
    NotOfThisBundle,
}
