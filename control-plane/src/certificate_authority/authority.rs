//! An issuing CA: a certificate, its key, and the intermediates up to its root.

use std::time::SystemTime;

use mesh_lite_proto::{svid::MAX_CHAIN, trust_bundle::TrustBundle};
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;
use x509_parser::certificate::X509Certificate;

use super::{
    authority_facts::{AuthorityFacts, InvalidAuthority, parse},
    imported,
    svid_template::{IssuerLimits, SvidTemplate},
};

/// What peers follow, less the leaf and the issuing CA.
const MAX_INTERMEDIATES: usize = MAX_CHAIN - 2;

/// The CA that signs leaves. Its key is never printed: there is no `Debug`.
pub(crate) struct IssuingAuthority {
    certificate: CertificateDer<'static>,
    /// Its issuer, that one's issuer, and so on, without the root. Empty for our own.
    intermediates: Vec<CertificateDer<'static>>,
    /// Its own, but valid no longer than the CAs above it.
    facts: AuthorityFacts,
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    public_key: Vec<u8>,
    warnings: Vec<String>,
}

impl IssuingAuthority {
    /// Signed by a root itself, as `mesh-lite root` makes them.
    #[cfg(test)]
    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        trust_domain: &TrustDomain,
    ) -> Result<Self, InvalidAuthority> {
        Self::with_intermediates(certificate, Vec::new(), key, trust_domain)
    }

    /// # Errors
    /// If a certificate is not a CA's or names another trust domain, or they are not a chain, or
    /// the key is not the first one's.
    pub(crate) fn with_intermediates(
        certificate: CertificateDer<'static>,
        above: Vec<CertificateDer<'static>>,
        key: KeyPair,
        trust_domain: &TrustDomain,
    ) -> Result<Self, InvalidAuthority> {
        let mut facts = AuthorityFacts::read(&certificate)?;
        facts.check_trust_domain(trust_domain)?;
        let public_key = parse(&certificate)?.public_key().raw.to_vec();
        if rcgen::PublicKeyData::subject_public_key_info(&key) != public_key {
            return Err(InvalidAuthority::OtherKey);
        }
        let mut warnings = imported::warnings("the issuing CA", &certificate)?;
        let intermediates = without_roots(above);
        let mut below = &certificate;
        for (index, intermediate) in intermediates.iter().enumerate() {
            let position = index.saturating_add(1);
            let above = check_intermediate(intermediate, below, position, trust_domain)?;
            facts.not_before = facts.not_before.max(above.not_before);
            facts.not_after = facts.not_after.min(above.not_after);
            let name = format!("certificate {position} after the issuing CA");
            warnings.extend(imported::warnings(&name, intermediate)?);
            below = intermediate;
        }
        if intermediates.len() > MAX_INTERMEDIATES {
            return Err(InvalidAuthority::TooLong(intermediates.len()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| InvalidAuthority::Malformed(error.to_string()))?;
        Ok(Self {
            certificate,
            intermediates,
            facts,
            trust_domain: trust_domain.clone(),
            issuer,
            public_key,
            warnings,
        })
    }

    #[cfg(test)]
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What follows a leaf: this CA and its intermediates, without the root.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.intermediates)
    }

    pub(crate) fn facts(&self) -> &AuthorityFacts {
        &self.facts
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What is unusual about it, and may trouble one peer or another.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
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

    /// The root in the bundle that signed the last CA of the chain.
    pub(crate) fn root_in<'a>(
        &self,
        bundle: &'a TrustBundle,
    ) -> Result<&'a CertificateDer<'static>, InvalidAuthority> {
        let last = self.intermediates.last().unwrap_or(&self.certificate);
        let certificate = parse(last)?;
        let root = bundle
            .authorities()
            .iter()
            .find(|root| is_signed_by(&certificate, root))
            .ok_or(InvalidAuthority::NotOfThisBundle)?;
        // an imported root may say things that no other check of ours could read
        if let Ok(facts) = AuthorityFacts::read(root) {
            facts.check_path_length(self.intermediates.len().saturating_add(1))?;
        }
        Ok(root)
    }

    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), InvalidAuthority> {
        self.facts.check_time(now)
    }
}

/// Chain files often end with the root, which peers have: one that signed itself is not sent.
fn without_roots(chain: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    let signed_itself = |der: &CertificateDer<'_>| {
        parse(der).is_ok_and(|certificate| certificate.subject() == certificate.issuer())
    };
    chain
        .into_iter()
        .filter(|certificate| !signed_itself(certificate))
        .collect()
}

/// `position` is also the number of CAs below it.
fn check_intermediate(
    intermediate: &CertificateDer<'_>,
    below: &CertificateDer<'_>,
    position: usize,
    trust_domain: &TrustDomain,
) -> Result<AuthorityFacts, InvalidAuthority> {
    let wrap = |reason: InvalidAuthority| InvalidAuthority::Intermediate {
        position,
        reason: Box::new(reason),
    };
    let facts = AuthorityFacts::read(intermediate).map_err(wrap)?;
    facts.check_trust_domain(trust_domain).map_err(wrap)?;
    if !is_signed_by(&parse(below)?, intermediate) {
        return Err(InvalidAuthority::BrokenChain { position });
    }
    facts.check_path_length(position)?;
    Ok(facts)
}

fn is_signed_by(certificate: &X509Certificate<'_>, by: &CertificateDer<'_>) -> bool {
    let Ok(by) = parse(by) else { return false };
    by.subject() == certificate.issuer()
        && certificate.verify_signature(Some(by.public_key())).is_ok()
}
