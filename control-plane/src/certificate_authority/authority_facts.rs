//! What a CA certificate says of itself, ours or imported, and what in it no mesh can live with.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use mesh_lite_proto::trust_bundle::hex;
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree, ParsedExtension},
    prelude::FromDer,
};

use crate::clock::from_unix_seconds;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthorityFacts {
    /// `None`: an imported CA that names no trust domain.
    pub(crate) trust_domain: Option<TrustDomain>,
    /// Lower-case hex of the subject key identifier: how sidecars name the active authority.
    pub(crate) key_id: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// How many CAs may stand between it and a leaf. `None`: any number.
    pub(crate) path_length: Option<u32>,
}

impl AuthorityFacts {
    /// Refused: not a CA, can't sign certificates, a path in its URI, URI name constraints (every
    /// rustls peer would fail).
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
        let constraints = certificate.basic_constraints().map_err(malformed)?;
        let validity = certificate.validity();
        let seconds = |timestamp: i64| from_unix_seconds(u64::try_from(timestamp).unwrap_or(0));
        Ok(Self {
            trust_domain: trust_domain(&certificate)?,
            key_id: key_identifier(&certificate),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
            path_length: constraints.and_then(|constraints| constraints.value.path_len_constraint),
        })
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.not_after
            .duration_since(self.not_before)
            .unwrap_or_default()
    }

    /// Half of its life: from then on the next one is due.
    pub(crate) fn half_life(&self) -> SystemTime {
        self.not_before
            .checked_add(self.lifetime() / 2)
            .unwrap_or(self.not_after)
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

    pub(super) fn check_trust_domain(
        &self,
        expected: &TrustDomain,
    ) -> Result<(), InvalidAuthority> {
        match &self.trust_domain {
            Some(found) if found != expected => Err(InvalidAuthority::OtherTrustDomain {
                found: found.to_string(),
                expected: expected.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// That `below` CAs may stand between it and a leaf.
    pub(super) fn check_path_length(&self, below: usize) -> Result<(), InvalidAuthority> {
        match self.path_length.map(usize::try_from) {
            Some(Ok(allowed)) if below > allowed => {
                Err(InvalidAuthority::PathLength { allowed, below })
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn parse<'a>(
    der: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, InvalidAuthority> {
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

/// Why a CA can't serve a mesh, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthority {
    #[error("the CA certificate can't be parsed: {0}. Give it in PEM or as DER of X.509 v3")]
    Malformed(String),
    #[error(
        "the certificate is not a CA's: give one whose basic constraints say CA:TRUE, not a workload's"
    )]
    NotAnAuthority,
    #[error(
        "the CA certificate's key usage does not allow it to sign certificates: have one made with keyCertSign"
    )]
    MayNotSign,
    #[error(
        "the CA certificate has more than one URI name: have one made with spiffe://<trust domain> alone, or with none"
    )]
    Uris,
    #[error(
        "{0:?} is no trust domain: have a CA certificate made whose URI is spiffe://<trust domain>, without a path and without a slash at its end"
    )]
    UriWithPath(String),
    #[error(
        "the CA certificate constrains URI names, and every rustls peer refuses such a chain: have one made without name constraints on URIs"
    )]
    UriConstraints,
    #[error(
        "the CA certificate and its key do not belong together: give the key that it was made for"
    )]
    OtherKey,
    #[error(
        "the CA certificate expired at {0}: sign the next one with `mesh-lite root renew`, or import one with `mesh-lite root import`"
    )]
    Expired(String),
    #[error("the CA certificate is valid from {0} on: compare the clocks")]
    NotYetValid(String),
    #[error(
        "the CA is of trust domain {found}, not {expected}: give the --trust-domain that `root init` was given"
    )]
    OtherTrustDomain { found: String, expected: String },
    #[error(
        "no root in the trust bundle signed the issuing CA, so no sidecar would trust its leaves: \
         add its root to the trust bundle, or the intermediates between them to the issuing CA"
    )]
    NotOfThisBundle,
    #[error(
        "certificate {position} after the issuing CA did not sign the one before it: give the chain in order, \
         issuing CA first, then each CA's issuer, without gaps"
    )]
    BrokenChain { position: usize },
    #[error("certificate {position} after the issuing CA can't stand there: {reason}")]
    Intermediate { position: usize, reason: Box<Self> },
    #[error(
        "a CA of the chain allows {allowed} CAs below it (pathLen) and there are {below}: \
         have the issuing CA signed nearer to the root, or that CA made with a larger pathLen"
    )]
    PathLength { allowed: usize, below: usize },
    #[error(
        "{0} CAs stand between the issuing CA and its root, more than peers follow: shorten the chain, to two at most"
    )]
    TooLong(usize),
    #[error(
        "peers would refuse what the issuing CA signs ({0}): have its chain made with key usage keyCertSign in every CA, \
         and with no extended key usage, or with both serverAuth and clientAuth"
    )]
    RefusedByPeers(String),
}
