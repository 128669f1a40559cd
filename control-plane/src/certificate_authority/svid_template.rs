//! Step 1 of issuing: what we intend to say about a workload. Nothing here comes from the
//! caller's certificate request but its public key.

use std::time::{Duration, SystemTime};

use mesh_lite_proto::identity::WorkloadId;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber,
};
use spiffe::TrustDomain;

use super::{
    certificate_request::PublicKey,
    random::{NoRandomNumbers, SerialBytes, serial},
};
use crate::clock::whole_seconds;

/// Peers' clocks differ; more than this is not worth a certificate that looks older than it is.
const MAX_BACKDATE: Duration = Duration::from_secs(120);
/// X.520's upper bound for a common name, in characters.
pub(crate) const MAX_COMMON_NAME: usize = 64;
/// RFC 5280 §4.2.1.6
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// What a leaf may not go beyond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IssuerLimits<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// One leaf as we want it.
#[derive(Debug, Clone)]
pub(crate) struct SvidTemplate {
    pub(crate) id: WorkloadId,
    /// Name of the pod or Workload document. Renewal finds the workload by it: a leaf without one
    /// can't be renewed.
    pub(crate) common_name: Option<String>,
    pub(crate) public_key: PublicKey,
    pub(crate) serial: SerialBytes,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl SvidTemplate {
    /// Valid from a little before `now`, for `lifetime` and never longer than the issuer.
    pub(crate) fn new(
        id: WorkloadId,
        common_name: Option<String>,
        public_key: PublicKey,
        lifetime: Duration,
        issuer: IssuerLimits<'_>,
        now: SystemTime,
    ) -> Result<Self, TemplateError> {
        if id.trust_domain() != issuer.trust_domain {
            let issuer = issuer.trust_domain.to_string();
            return Err(TemplateError::TrustDomain { id, issuer });
        }
        if let Some(name) = &common_name
            && !(1..=MAX_COMMON_NAME).contains(&name.chars().count())
        {
            return Err(TemplateError::CommonName(name.clone()));
        }
        if now >= issuer.not_after {
            return Err(TemplateError::IssuerExpired);
        }
        // An issuing CA made a moment ago on a machine with a faster clock is not valid yet.
        if whole_seconds(now) < issuer.not_before {
            return Err(TemplateError::IssuerNotYetValid);
        }
        let backdate = MAX_BACKDATE.min(lifetime / 10);
        let not_before = now
            .checked_sub(backdate)
            .unwrap_or(now)
            .max(issuer.not_before);
        let not_after = now
            .checked_add(lifetime)
            .unwrap_or(now)
            .min(issuer.not_after);
        Ok(Self {
            id,
            common_name,
            public_key,
            serial: serial()?,
            not_before: whole_seconds(not_before),
            not_after: whole_seconds(not_after),
        })
    }

    pub(super) fn parameters(&self) -> Result<CertificateParams, TemplateError> {
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from_slice(&self.serial));
        parameters.not_before = self.not_before.into();
        parameters.not_after = self.not_after.into();
        parameters.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            parameters
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        parameters.custom_extensions = vec![critical_uri_name(self.id.as_str())];
        Ok(parameters)
    }
}

/// The one URI name, critical although there may be a subject: nobody may read the subject alone.
/// (rcgen marks its own extension critical only if the subject is empty.)
fn critical_uri_name(uri: &str) -> CustomExtension {
    const URI: u8 = 0x86; // [6] IMPLICIT IA5String
    const SEQUENCE: u8 = 0x30;
    let content = der(SEQUENCE, der(URI, uri.as_bytes().to_vec()));
    let mut extension = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, content);
    extension.set_criticality(true);
    extension
}

/// One DER element: tag, definite length in the shortest form, content.
fn der(tag: u8, content: Vec<u8>) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let mut element = vec![tag];
    match (content.len(), u8::try_from(significant.len())) {
        (short @ 0..=127, _) => element.push(u8::try_from(short).unwrap_or_default()),
        (_, Ok(count)) => {
            element.push(0x80 | count);
            element.extend(significant);
        }
        // a length of more than 255 bytes does not fit into any machine word
        (_, Err(_)) => {}
    }
    element.extend(content);
    element
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    #[error("{id} is not of the trust domain {issuer} that this control plane issues for")]
    TrustDomain { id: WorkloadId, issuer: String },
    #[error("{0:?} can't be a certificate's common name: it has 1 to {MAX_COMMON_NAME} characters")]
    CommonName(String),
    #[error("the issuing CA has expired: sign the next one with `mesh-lite root renew`")]
    IssuerExpired,
    #[error(
        "the issuing CA is not valid yet: compare this machine's clock with the one that ran `mesh-lite root`"
    )]
    IssuerNotYetValid,
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}
