//! The root of a mesh: made once by `mesh-lite root init`, used by `mesh-lite root renew`, never
//! read by the control plane.

use std::time::{Duration, SystemTime};

use mesh_lite_proto::trust_bundle::hex;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;

use super::{
    authority_facts::{AuthorityFacts, InvalidAuthority},
    random::{NoRandomNumbers, random_bytes, serial},
};
use crate::clock::whole_seconds;

/// Between leaf and root there is the issuing CA and nothing else.
const ROOT_PATH_LENGTH: u8 = 1;
const ISSUING_PATH_LENGTH: u8 = 0;
/// A machine whose clock is this far behind still takes a CA that was made just now.
const BACKDATE: Duration = Duration::from_secs(600);

pub(crate) struct Root {
    certificate: CertificateDer<'static>,
    facts: AuthorityFacts,
    trust_domain: TrustDomain,
    key: KeyPair,
}

impl Root {
    /// A new root key and its certificate.
    pub(crate) fn create(
        trust_domain: &TrustDomain,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, RootError> {
        let key = KeyPair::generate()?;
        let until = now.checked_add(lifetime).ok_or(RootError::Lifetime)?;
        let parameters = authority_parameters("root", trust_domain, ROOT_PATH_LENGTH, now, until)?;
        let certificate = parameters.self_signed(&key)?;
        Self::load(certificate.into(), key)
    }

    /// # Errors
    /// If the certificate is not a CA's or names no trust domain.
    pub(crate) fn load(
        certificate: CertificateDer<'static>,
        key: KeyPair,
    ) -> Result<Self, RootError> {
        let facts = AuthorityFacts::read(&certificate)?;
        let trust_domain = facts.trust_domain.clone().ok_or(RootError::NoTrustDomain)?;
        Ok(Self {
            certificate,
            facts,
            trust_domain,
            key,
        })
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(crate) fn facts(&self) -> &AuthorityFacts {
        &self.facts
    }

    pub(crate) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// A new issuing CA with a new key, never valid past the root.
    pub(crate) fn sign_issuing_authority(
        &self,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<NewIssuingAuthority, RootError> {
        self.facts.check_time(now)?;
        let until = now
            .checked_add(lifetime)
            .ok_or(RootError::Lifetime)?
            .min(self.facts.not_after);
        let parameters = authority_parameters(
            "issuing CA",
            &self.trust_domain,
            ISSUING_PATH_LENGTH,
            now,
            until,
        )?;
        let key = KeyPair::generate()?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, &self.key)?;
        let certificate: Certificate = parameters.signed_by(&key, &issuer)?;
        let certificate: CertificateDer<'static> = certificate.into();
        let facts = AuthorityFacts::read(&certificate)?;
        Ok(NewIssuingAuthority {
            certificate,
            intermediates: Vec::new(),
            facts,
            key,
        })
    }
}

/// An issuing CA on its way into the key store. No `Debug`: it holds the key.
pub(crate) struct NewIssuingAuthority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    pub(crate) facts: AuthorityFacts,
    pub(crate) key: KeyPair,
}

/// SPIFFE-A1 to A6: a CA that signs certificates and CRLs and nothing else, the trust domain
/// without a path as its only name, no extended key usage, no name constraints.
fn authority_parameters(
    role: &str,
    trust_domain: &TrustDomain,
    path_length: u8,
    now: SystemTime,
    until: SystemTime,
) -> Result<CertificateParams, RootError> {
    // Two roots of one name make peers report a bad signature where they mean another root.
    let distinct = hex(&random_bytes::<4>()?);
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(&serial()?));
    parameters.not_before = whole_seconds(now.checked_sub(BACKDATE).unwrap_or(now)).into();
    parameters.not_after = whole_seconds(until).into();
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::OrganizationName, "mesh-lite");
    parameters
        .distinguished_name
        .push(DnType::CommonName, format!("{role} {distinct}"));
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.use_authority_key_identifier_extension = true;
    let uri = format!("spiffe://{trust_domain}").try_into()?;
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    Ok(parameters)
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
    #[error("the root certificate names no trust domain")]
    NoTrustDomain,
    #[error("the lifetime is too long to be a date")]
    Lifetime,
}
